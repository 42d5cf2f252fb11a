"""A small undirected graph of texts and numbers, and its GraphML as networkx writes it, byte for byte.

Every run leaves one such file, and importing networkx takes longer than a short run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx as nx

Value = str | bool | float

_HEAD = (
    "<?xml version='1.0' encoding='utf-8'?>\n"
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:schemaLocation="http://graphml.graphdrawing.org/xmlns '
    'http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd">'
)
_XML_TYPES: Mapping[type, str] = {str: "string", bool: "boolean", float: "double"}


@dataclass(frozen=True, slots=True)
class Drawing:
    """Nodes and edges with their attributes, in the order in which they came.

    Attributes:
        nodes: attributes by name; names are words without ``"``, ``&`` and ``<``.
        edges: attributes by both ends.
    """

    nodes: dict[str, dict[str, Value]] = field(default_factory=dict)
    edges: dict[tuple[str, str], dict[str, Value]] = field(default_factory=dict)

    def add_node(self, name: str, **attributes: Value) -> None:
        """Add a node, or attributes to one that is there."""
        self.nodes.setdefault(name, {}).update(attributes)

    def add_edge(self, one: str, other: str, **attributes: Value) -> None:
        """Add an edge, and its ends where they are not there yet."""
        self.add_node(one)
        self.add_node(other)
        self.edges[one, other] = attributes

    def to_networkx(self) -> nx.Graph[str]:
        """The same graph for networkx."""
        import networkx as nx

        graph: nx.Graph[str] = nx.Graph()
        graph.add_nodes_from(self.nodes.items())
        graph.add_edges_from((*ends, attributes) for ends, attributes in self.edges.items())
        return graph

    def graphml(self) -> str:
        """The graph as GraphML: plain XML of texts and numbers, nothing that could execute."""
        keys: dict[tuple[str, str, str], str] = {}
        elements: list[str] = []
        for name, attributes in self.nodes.items():
            elements += _element(f'node id="{name}"', "node", attributes, keys)
        for source, target, attributes in self._edges_by_first_end():
            elements += _element(f'edge source="{source}" target="{target}"', "edge", attributes, keys)
        told = [
            f'  <key id="{key}" for="{scope}" attr.name="{name}" attr.type="{kind}" />'
            for (name, kind, scope), key in reversed(keys.items())
        ]
        graph = ['  <graph edgedefault="undirected">', *elements, "  </graph>"]
        return "\n".join([_HEAD, *told, *graph, "</graphml>\n"])

    def _edges_by_first_end(self) -> list[tuple[str, str, dict[str, Value]]]:
        """Edges in networkx's order: by the end that was added first, which is named first."""
        place = {name: index for index, name in enumerate(self.nodes)}
        turned = [
            (one, other, given) if place[one] < place[other] else (other, one, given)
            for (one, other), given in self.edges.items()
        ]
        return sorted(turned, key=lambda edge: place[edge[0]])


def _element(
    tag: str, scope: str, attributes: Mapping[str, Value], keys: dict[tuple[str, str, str], str]
) -> list[str]:
    """The lines of a node or an edge; ``keys`` takes up the attributes that are new."""
    if not attributes:
        return [f"    <{tag} />"]
    lines = [f"    <{tag}>"]
    for name, value in attributes.items():
        key = keys.setdefault((name, _XML_TYPES[type(value)], scope), f"d{len(keys)}")
        text = _escaped(str(value))
        lines.append(f'      <data key="{key}">{text}</data>' if text else f'      <data key="{key}" />')
    return [*lines, f"    </{tag.partition(' ')[0]}>"]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
