"""Edge aggregators: relays between clients and the server, as a tree of links.

An edge is a point such as a base station, an office gateway or a regional proxy whose own link towards the server its clients
share. It forwards every message as it is and *aggregates nothing*: the server sees the same messages as without it, and the
bytes of a client are counted once, on the way between client and server. What an edge changes is rates (its link is one more
bottleneck, `fedsim.sim.network.tree`) and delays (``rtt`` of every edge on the way adds to the client's).

A tree is written in the scenario (name -> settings) or read from a GraphML file by networkx: a directed graph whose arcs lead
from an edge to its parent and carry ``up``, ``down`` and ``rtt``; its nodes carry ``classes``, ``clients`` and ``share``
(lists as text with commas). The node ``server`` is the server, whose link is ``network.server_link``.

Who stands where is a function of (seed, client): clients that an edge names, then, of each class, the shares that edges ask
for, by one uniform draw per client. Edges without a share take equal parts of what others leave; where all give one and they
sum to less than 1, the others stand at the server's link itself.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, ValidationError, model_validator

from fedsim.config.files import read_text
from fedsim.config.limits import MAX_DIGITS, MAX_GRAPH_BYTES
from fedsim.config.strict import SettingError, StrictModel
from fedsim.config.units import LinkRate, Seconds
from fedsim.config.validation import scenario_error
from fedsim.config.yaml import Document
from fedsim.errors import DataFileError, ScenarioError
from fedsim.records.rows import Direction
from fedsim.sim import streams
from fedsim.sim.devices.profile import DeviceProfile
from fedsim.sim.lazy import LazySequence
from fedsim.sim.network.tree import TreeEdge, TreeLink
from fedsim.sim.timeline import Timeline

if TYPE_CHECKING:
    import networkx as nx

SERVER = "server"
"""The node of a graph that is the server."""

_NUMBER = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}")


class EdgeConfig(StrictModel):
    """One edge: its link towards the server, and who stands behind it."""

    up: LinkRate = Field(description="Rate towards the server, bytes/s, or unlimited.")
    down: LinkRate = Field(description="Rate towards the clients, bytes/s, or unlimited.")
    rtt: Seconds = Field(default=0.0, description="Round-trip time that this edge's link adds, seconds.")
    parent: str | None = Field(
        default=None, description="Edge that this one stands behind; none = the server's link."
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        description="Device classes whose clients may stand behind it; none = all, if share is given.",
    )
    clients: tuple[int, ...] = Field(default=(), description="Clients that stand behind it, by id.")
    share: float | None = Field(
        default=None, ge=0, le=1, description="Share (0 to 1) of the clients of each of its classes."
    )

    @property
    def takes_by_class(self) -> bool:
        """Whether it takes clients other than those it names."""
        return self.classes is not None or self.share is not None

    def takes(self, device_class: str) -> bool:
        """Whether clients of a class may stand behind it."""
        return self.takes_by_class and (self.classes is None or device_class in self.classes)


class EdgesConfig(StrictModel):
    """The edges by name: ``{west: {up: 1 Gbit/s, down: 1 Gbit/s, classes: [phone]}}``, or ``{file: tree.graphml}``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, EdgeConfig]

    file: str | None = Field(default=None, description="GraphML file of the tree, read by networkx.")

    @property
    def edges(self) -> dict[str, EdgeConfig]:
        """Settings by name, in the order written."""
        return dict(self.__pydantic_extra__)

    @model_validator(mode="after")
    def _is_a_tree(self) -> EdgesConfig:
        edges = self.edges
        if self.file is not None and edges:
            raise ValueError("give either a file or edges, not both")
        if self.file is None and not edges:
            raise ValueError("no edges; write at least one, or leave network.edges out")
        if SERVER in edges:
            raise SettingError(
                f"an edge cannot be called {SERVER}: that is the server itself; give its link under network.server_link",
                SERVER,
            )
        for name, edge in edges.items():
            if edge.parent is not None and edge.parent not in edges:
                known = ", ".join(other for other in edges if other != name) or "there is no other"
                raise ValueError(f"the parent of {name} is {edge.parent!r}, which is no edge ({known})")
            way_up(name, edges)
        parents = {edge.parent for edge in edges.values()}
        for name, edge in edges.items():
            if not (edge.takes_by_class or edge.clients or name in parents):
                raise ValueError(
                    f"nobody stands behind {name}; give it clients, classes or share, or an edge behind it"
                )
        named = [client_id for edge in edges.values() for client_id in edge.clients]
        for client_id in named:
            if named.count(client_id) > 1:
                raise ValueError(f"client {client_id} stands behind two edges")
        return self


def way_up(name: str, edges: Mapping[str, EdgeConfig]) -> tuple[str, ...]:
    """The edges between a client behind ``name`` and the server, nearest first.

    Raises:
        ValueError: the parents lead in a circle.
    """
    way: tuple[str, ...] = ()
    step: str | None = name
    while step is not None:
        if step in way:
            raise ValueError(f"edges in a circle: {' -> '.join((*way, step))}")
        way, step = (*way, step), edges[step].parent
    return way


@dataclass(frozen=True, slots=True)
class EdgeTree:
    """The edges of a run, and the edge of every client (``homes``; who is not in it stands at the server's link)."""

    edges: Mapping[str, EdgeConfig]
    homes: Mapping[int, str]

    def link(self, timeline: Timeline, direction: Direction, capacity_bytes_per_s: float) -> TreeLink:
        """One direction of the tree, with the server's link as its root."""
        links = {name: TreeEdge(getattr(edge, direction), edge.parent) for name, edge in self.edges.items()}
        return TreeLink(timeline, capacity_bytes_per_s, links, self.homes.get)

    def extra_rtt_s(self, client_id: int) -> float:
        """Round-trip time that the edges on a client's way add, seconds."""
        name = self.homes.get(client_id)
        return 0.0 if name is None else sum(self.edges[step].rtt for step in way_up(name, self.edges))

    def behind(self, profiles: Sequence[DeviceProfile]) -> Sequence[DeviceProfile]:
        """Profiles [K] with the round-trip times of the edges on the way; each is made when it is first asked for."""

        def profile_of(client_id: int) -> DeviceProfile:
            profile = profiles[client_id]
            return replace(profile, rtt_s=profile.rtt_s + self.extra_rtt_s(client_id))

        return LazySequence(len(profiles), profile_of)


def edge_tree(
    config: EdgesConfig | None, seed: int, classes_of_clients: Sequence[str], folder: Path = Path()
) -> EdgeTree | None:
    """The edges of a run and who stands behind which; None without edges.

    Args:
        config: ``network.edges``.
        seed: the run's seed.
        classes_of_clients: [K] the device class of each client.
        folder: where a relative file is looked up (the scenario's folder).

    Raises:
        DataFileError: the file is missing, is no GraphML, or holds no tree of edges.
        ScenarioError: an edge names a client or a class that there is not, or shares of a class exceed 1.
    """
    if config is None:
        return None
    edges = config.edges if config.file is None else read_edges(folder / config.file).edges
    homes = {client_id: name for name, edge in edges.items() for client_id in edge.clients}
    for client_id, name in homes.items():
        if not 0 <= client_id < len(classes_of_clients):
            raise ScenarioError(
                f"network.edges.{name}.clients: there is no client {client_id}; ids are 0 to {len(classes_of_clients) - 1}"
            ).at("network", "edges", name, "clients")
    known = list(dict.fromkeys(classes_of_clients))
    for name, edge in edges.items():
        for device_class in edge.classes or ():
            if device_class not in known:
                raise ScenarioError(
                    f"network.edges.{name}.classes: there is no client of class {device_class!r} ({', '.join(known)})"
                ).at("network", "edges", name, "classes")
    shares = {device_class: _shares(device_class, edges) for device_class in known}
    for client_id, device_class in enumerate(classes_of_clients):
        if client_id not in homes:
            draw = streams.uniform(seed, "edge", client_id)
            for name, until in shares[device_class]:
                if draw < until:
                    homes[client_id] = name
                    break
    return EdgeTree(edges, homes)


def _settings_in(graph: nx.Graph[Any]) -> dict[str, dict[str, Any]]:
    """What a graph says of each edge, as a scenario would write it."""
    if not graph.is_directed() or graph.is_multigraph():
        raise ValueError("must be a directed graph without parallel arcs (edgedefault directed)")
    if SERVER not in graph:
        raise ValueError(f"has no node {SERVER!r}, at which all ways end")
    edges: dict[str, dict[str, Any]] = {}
    for name, membership in graph.nodes(data=True):
        parents = list(graph[name])  # where its arcs lead
        if name == SERVER:
            if parents:
                raise ValueError(f"an arc leads away from {SERVER!r}; arcs lead from an edge to its parent")
            continue
        if len(parents) != 1:
            raise ValueError(f"{name!r} has {len(parents)} arcs that leave it; a tree has one, to its parent")
        parent = {} if parents[0] == SERVER else {"parent": str(parents[0])}
        lists: dict[str, Any] = {
            key: _listed(membership[key]) for key in ("classes", "clients") if key in membership
        }
        edges[str(name)] = {**membership, **lists, **graph.edges[name, parents[0]], **parent}
    return edges


def _shares(device_class: str, edges: Mapping[str, EdgeConfig]) -> list[tuple[str, float]]:
    """The edges that take a class, each with the upper end of its interval of (0, 1)."""
    takers = {name: edge.share for name, edge in edges.items() if edge.takes(device_class)}
    given = sum(share for share in takers.values() if share is not None)
    if given > 1 + 1e-9:
        raise ScenarioError(
            f"network.edges: shares of class {device_class!r} sum to {given:g} ({', '.join(takers)}); must be at most 1"
        ).at("network", "edges")
    num_open = sum(share is None for share in takers.values())
    until, ends = 0.0, []
    for name, share in takers.items():
        until += (1 - given) / num_open if share is None else share
        ends.append((name, until))
    if num_open and ends:
        ends[-1] = (ends[-1][0], 1.0)  # whatever rounding says, nobody is left over
    return ends


def read_edges(path: Path) -> EdgesConfig:
    """The edges of a GraphML file.

    Raises:
        DataFileError: it cannot be read, is no GraphML with one graph, has a document type declaration (whose entities can make
            a small file large), or holds no tree of edges.
    """
    try:
        text = read_text(path, MAX_GRAPH_BYTES, DataFileError)
    except DataFileError as error:
        raise error.at("network", "edges", "file") from None
    _refuse_other_xml(text, path)
    import networkx as nx

    document = Document({}, {}, str(path))
    try:
        graph = nx.read_graphml(io.BytesIO(text.encode()))
    except KeyError as error:  # networkx looks types up in a table
        raise DataFileError(
            f'{path}: {error} is not a type that GraphML has, e.g. attr.type="string"'
        ) from None
    except ValueError as error:
        raise DataFileError(f"{path}: a <data> is not of its key's attr.type: {error}") from None
    except nx.NetworkXError as error:
        raise DataFileError(f"{path}: {error}") from None
    try:
        document.data.update(_settings_in(graph))
        return EdgesConfig.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        raise DataFileError(str(scenario_error(error, document, EdgesConfig))) from None
    except ValueError as error:
        raise DataFileError(f"{path}: {error}") from None


def _refuse_other_xml(text: str, path: Path) -> None:
    from xml.etree import ElementTree

    for line, content in enumerate(text.splitlines(), start=1):
        if "<!DOCTYPE" in content or "<!ENTITY" in content:
            raise DataFileError(
                f"{path}:{line}: document type declarations (<!DOCTYPE) are not supported; leave it out"
            )
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        reason = str(error).partition(": line")[0]
        raise DataFileError(f"{path}:{error.position[0]}: not XML: {reason}") from None
    except ValueError as error:  # an encoding that is none
        raise DataFileError(f"{path}:1: not XML: {error}") from None
    num_graphs = sum(element.tag.rpartition("}")[2] == "graph" for element in root)
    if root.tag.rpartition("}")[2] != "graphml" or num_graphs != 1:
        raise DataFileError(f"{path}: holds {num_graphs} graphs; must be GraphML with one <graph>")


def _listed(text: Any) -> list[Any]:
    words = [word.strip() for word in str(text).split(",") if word.strip()]
    return [int(word) if _NUMBER.fullmatch(word) else word for word in words]
