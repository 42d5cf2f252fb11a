"""The confidence graph: question, exemplars, clients, in layers, with one question's experts readable."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import networkx as nx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedsim.errors import RunFolderError
from fedsim.figures.labels import shown_name
from fedsim.figures.page import FIGURES_FOLDER
from fedsim.figures.run.devices import device_classes
from fedsim.figures.style import BLUE, GREY, ORANGE, PALE, VERMILLION, new_figure, styled
from fedsim.records.run import Run
from fedsim.records.run_folder import CONFIDENCE_GRAPH, write_atomically

Graph: TypeAlias = (
    "nx.Graph[str]"  # nodes carry ``kind``; edges carry ``weight`` (see protocols.shared.confidence_graph)
)
Place: TypeAlias = tuple[float, float]

_TEXT_WIDTH = 24
_FAINT = "#C8C8C8"


@dataclass(frozen=True, slots=True)
class SampleQuestion:
    """One question of the graph with what selects its experts.

    Attributes:
        node: the question's node.
        exemplars: its L nearest exemplars, most similar first, with their cosine.
        competence: per client that answered any of them, the share it answered correctly, in [0, 1].
        best: the clients whose competence is at least the M-th highest (more than M where they tie).
    """

    node: str
    exemplars: tuple[tuple[str, float], ...]
    competence: Mapping[str, float]
    best: frozenset[str]


def confidence_graph(run: Run) -> Figure | None:
    """Three layers from left to right; everything faint, the sample question's neighbourhood in colour.

    A line from an exemplar to a client says that the client answered it correctly. The width of the
    question's edges grows with cosine similarity. Beside each client stands its competence for this question.
    """
    graph = read_graph(run)
    sample = None if graph is None else sample_question(graph, _num_experts(run))
    if graph is None or sample is None:
        return None
    classes = device_classes(run)
    with styled():
        figure = new_figure(4.2)
        axes = figure.subplots()
        places = _places(graph, sample)
        _draw_edges(axes, graph, sample, places)
        _draw_nodes(axes, graph, sample, places)
        _draw_labels(axes, graph, sample, places, classes)
        axes.set_xlim(-0.6, 2.62)
        axes.set_ylim(-0.02, 1.1)
        axes.axis("off")
        _legend(figure, sample)
    return figure


def read_graph(run: Run) -> Graph | None:
    """The graph of the run's ``confidence_graph.json`` (of an earlier version's ``.graphml``), or None without one.

    None in timing fidelity as well, where stand-ins for models made up who answers rightly.

    Raises:
        RunFolderError: the file holds no graph.
    """
    path = run.folder / CONFIDENCE_GRAPH
    earlier = path.with_suffix(".graphml")
    if not run.measures or (not path.exists() and not earlier.exists()):
        return None
    try:
        if not path.exists():
            return nx.Graph(nx.read_graphml(earlier))
        tables = json.loads(path.read_bytes())
        graph: Graph = nx.Graph()
        graph.add_nodes_from((node.pop("id"), node) for node in tables["nodes"])
        graph.add_edges_from((edge.pop("source"), edge.pop("target"), edge) for edge in tables["edges"])
    except (nx.NetworkXError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{path} holds no graph") from error
    return graph


def write_graphml(run: Run) -> list[Path]:
    """Write the graph for other programs, as ``figures/confidence_graph.graphml``; no file where the run has none."""
    path = run.folder / FIGURES_FOLDER / "confidence_graph.graphml"
    graph = read_graph(run)
    if graph is None:
        path.unlink(missing_ok=True)
        return []
    for entry in graph.nodes.values():
        entry |= {key: _xml(value) for key, value in entry.items() if isinstance(value, str)}
    return [write_atomically(path, "\n".join([*nx.generate_graphml(graph), ""]).encode())]


def _xml(text: str) -> str:
    """The text without characters that XML 1.0 cannot hold."""
    return "".join(
        c if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff" else "?"
        for c in text
    )


def sample_question(graph: Graph, num_experts: int) -> SampleQuestion | None:
    """The first question that has exemplars, and the competence of every client for it."""
    for node in of_kind(graph, "question"):
        near = [
            (other, float(graph.edges[node, other].get("weight", 1.0)))
            for other in graph.neighbors(node)
            if graph.nodes[other].get("kind") == "exemplar"
        ]
        if near:
            near.sort(key=lambda entry: (-entry[1], _number(entry[0])))
            competence = _competence(graph, [exemplar for exemplar, _ in near])
            shares = sorted(competence.values(), reverse=True)
            least = shares[min(num_experts, len(shares)) - 1] if shares else 0.0
            best = frozenset(client for client, share in competence.items() if share >= least)
            return SampleQuestion(node, tuple(near), competence, best)
    return None


def of_kind(graph: Graph, kind: str) -> list[str]:
    """Nodes of one kind, in the order of the numbers in their names."""
    return sorted((str(node) for node in graph if graph.nodes[node].get("kind") == kind), key=_number)


def _competence(graph: Graph, exemplars: Sequence[str]) -> dict[str, float]:
    found = {}
    for client in of_kind(graph, "client"):
        answers = [_is_correct(graph, e, client) for e in exemplars if graph.has_edge(e, client)]
        if answers:
            found[client] = sum(answers) / len(answers)
    return found


def _is_correct(graph: Graph, exemplar: str, client: str) -> bool:
    return graph.has_edge(exemplar, client) and float(graph.edges[exemplar, client].get("weight", 0)) > 0


def _number(node: str) -> tuple[int, str]:
    digits = re.search(r"\d+", node)
    return (int(digits.group()) if digits else -1, node)


def _num_experts(run: Run) -> int:
    protocol = (run.manifest.get("scenario") or {}).get("protocol") or {}
    return int(protocol.get("num_experts") or 2)


def _places(graph: Graph, sample: SampleQuestion) -> dict[str, Place]:
    """Columns by kind; the sample and its neighbours on top, exemplars by domain, clients by competence."""
    near = dict(sample.exemplars)

    def exemplar_order(node: str) -> tuple[bool, str, tuple[int, str]]:
        return (node not in near, str(graph.nodes[node].get("domain", "")), _number(node))

    columns = (
        sorted(of_kind(graph, "question"), key=lambda node: (node != sample.node, _number(node))),
        sorted(of_kind(graph, "exemplar"), key=exemplar_order),
        sorted(of_kind(graph, "client"), key=lambda node: (-sample.competence.get(node, -1), _number(node))),
    )
    return {
        node: (float(x), 1.0 - (row + 0.5) / len(column))
        for x, column in enumerate(columns)
        for row, node in enumerate(column)
    }


def _draw_edges(axes: Axes, graph: Graph, sample: SampleQuestion, places: Mapping[str, Place]) -> None:
    for question in of_kind(graph, "question"):
        for exemplar in graph.neighbors(question) if question != sample.node else ():
            _line(axes, places[question], places[exemplar], PALE, 0.4, 1)
    cosines = [cosine for _, cosine in sample.exemplars]
    low, high = min(cosines), max(cosines)
    for exemplar, cosine in sample.exemplars:
        width = 0.3 + 1.0 * ((cosine - low) / (high - low) if high > low else 0.5)
        _line(axes, places[sample.node], places[exemplar], ORANGE, width, 4)
        for client in sample.competence:
            if _is_correct(graph, exemplar, client):
                colour, width, layer = (BLUE, 0.8, 3) if client in sample.best else (GREY, 0.35, 2)
                _line(axes, places[exemplar], places[client], colour, width, layer)


def _line(axes: Axes, start: Place, end: Place, colour: str, width: float, layer: int) -> None:
    axes.plot([start[0], end[0]], [start[1], end[1]], color=colour, linewidth=width, zorder=layer)


def _draw_nodes(axes: Axes, graph: Graph, sample: SampleQuestion, places: Mapping[str, Place]) -> None:
    near = dict(sample.exemplars)
    # Exemplars stand one below the other: with many of them the dots shrink, so that they do not touch.
    dot = min(4.5, 230 / max(1, len(of_kind(graph, "exemplar"))))
    looks = {"question": ("s", 8.0, VERMILLION), "exemplar": ("o", dot, ORANGE), "client": ("D", 6.5, BLUE)}
    for node, (x, y) in places.items():
        marker, size, colour = looks[graph.nodes[node]["kind"]]
        if not (node == sample.node or node in near or node in sample.best):
            size, colour = (0.8 * size, GREY if node in sample.competence else _FAINT)
        axes.plot(
            [x],
            [y],
            marker,
            markersize=size,
            color=colour,
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=5,
        )


def _draw_labels(
    axes: Axes,
    graph: Graph,
    sample: SampleQuestion,
    places: Mapping[str, Place],
    classes: Mapping[int, str],
) -> None:
    for client in of_kind(graph, "client"):
        x, y = places[client]
        number = _number(client)[0]
        name = f"client {number}" + (f" ({classes[number]})" if number in classes else "")
        known = f"{sample.competence[client]:.2f}" if client in sample.competence else "not probed"
        weight = "bold" if client in sample.best else "normal"
        axes.text(x + 0.06, y, f"{known}   {name}", va="center", fontsize=7, fontweight=weight)
    x, y = places[sample.node]
    axes.text(x - 0.06, y, _question_text(graph, sample.node), va="center", ha="right", fontsize=7)
    titles = (
        f"questions ({len(of_kind(graph, 'question'))} drawn)",
        f"exemplars ({len(of_kind(graph, 'exemplar'))} drawn, {len(sample.exemplars)} nearest)",
        f"competence of clients ({len(of_kind(graph, 'client'))})",
    )
    for x, title in enumerate(titles):
        axes.text(x, 1.06, title, ha="center", va="center", fontsize=8)


def _question_text(graph: Graph, node: str) -> str:
    """The question's domain and text, in a few short lines."""
    entry = graph.nodes[node]
    text = shown_name(str(entry.get("text", "")), 4 * _TEXT_WIDTH)
    return "\n".join([shown_name(str(entry.get("domain", node))), *textwrap.wrap(text, _TEXT_WIDTH)])


def _legend(figure: Figure, sample: SampleQuestion) -> None:
    handles = [
        Line2D([], [], color=ORANGE, linewidth=1.5, label="nearest exemplars (width: cosine)"),
        Line2D(
            [],
            [],
            color=BLUE,
            marker="D",
            markersize=5,
            linewidth=0.8,
            label="most competent: correct answers",
        ),
        Line2D(
            [],
            [],
            color=GREY,
            marker="D",
            markersize=4,
            linewidth=0.5,
            label="other clients: correct answers",
        ),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
