"""A tree of links in one direction, shared by max-min fairness: clients behind edges, edges behind the server's link.

Every flow crosses its client's access link, the edge that the client stands behind, that edge's parent and so on, and the
server's link, which is the root. Max-min fair rates of a tree are found from the leaves up: node v of capacity S_v is full at
the *level* s_v where what comes from below fills it,

    sum over flows below v of min(C_k / n_k, s_u of the nodes u between flow and v, s_v) = S_v

and a flow runs at the smallest of its client's ``C_k / n_k`` and the levels on its way. A level depends on nothing above its
node, so a change (start, finish, cut, new rate) moves levels on one path to the root only.

A node sorts what comes from below by its rate, as `fedsim.sim.network.link` does for one link: what is slower than the level
passes through as it is, to be sorted again one node up; all the rest is merged into one *group* of flows at the level, and
the group goes up as one thing of rate ``left_v`` (what the slower ones leave of S_v) and so many flows. Each group has a clock
that its flows are served by. A change costs O(d log n) for each client that changes side on a path of d nodes, plus O(log n)
for each group whose rate changes, however many flows are in it. `tests.oracles.max_min` fills the whole graph from scratch.

Totals are integers of 2^-40 bytes/s, so that comparisons are exact. Nodes of rate 0 stall what is below them.

References:
    Bertsekas and Gallager, Data Networks (1992), section 6.5.2 (max-min fairness, bottleneck links).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar

from fedsim.sim.network.link import RATE_UNIT_BYTES_PER_S, TIE_S, ClientFlows, Flow, SharedLink, rate_units
from fedsim.sim.timeline import Timeline


@dataclass(frozen=True, slots=True)
class TreeEdge:
    """One edge's link to its parent; ``parent`` None is the server's link."""

    bytes_per_s: float
    parent: str | None = None


class TreeLink(SharedLink):
    """One direction of a tree of links (see the module's docstring); used like a ``SharedLink``, which is its root."""

    def __init__(
        self,
        timeline: Timeline,
        capacity_bytes_per_s: float,
        edges: Mapping[str, TreeEdge],
        home: Callable[[int], str | None],
    ) -> None:
        """Make an idle tree.

        Args:
            timeline: the clock.
            capacity_bytes_per_s: the server link's rate; infinity = no limit there.
            edges: edges by name; their parents lead to the root.
            home: the edge that a client stands behind; None = the server's link itself.

        Raises:
            ValueError: a rate is negative, or a parent is no edge or stands below its child.
        """
        super().__init__(timeline, capacity_bytes_per_s)
        self._root = _Node(None, capacity_bytes_per_s)
        self._nodes: dict[str, _Node] = {}
        for name in edges:
            self._add(name, edges, ())
        self._home = home
        self._finishes: _Queue[_Node | _Client] = _Queue()
        self._dirty: dict[_Node, None] = {}
        self._loose: dict[_Client, None] = {}  # clients that read no clock until things have settled

    def set_capacity(self, capacity_bytes_per_s: float) -> None:
        """Change the rate of the server's link; infinity = no limit there, 0 = nothing moves."""
        self._set_node(self._root, capacity_bytes_per_s)

    def set_edge_capacity(self, name: str, capacity_bytes_per_s: float) -> None:
        """Change the rate of one edge's link; infinity = no limit there, 0 = nothing below it moves.

        Raises:
            KeyError: there is no such edge.
        """
        self._set_node(self._nodes[name], capacity_bytes_per_s)

    def rate_bytes_per_s(self, flow: Flow) -> float:
        """The rate at which a flow runs now; 0 when it is stalled or has ended."""
        if not flow.is_open:
            return 0.0
        client = self._client(flow.client_id)
        return client.own_rate if client.bound is None else client.bound.rate

    def _add(self, name: str, edges: Mapping[str, TreeEdge], above: tuple[str, ...]) -> _Node:
        if name in above:
            raise ValueError(f"edges in a circle: {' -> '.join((*above, name))}")
        if name not in edges:
            raise ValueError(f"the parent {name!r} of {above[-1]!r} is no edge")
        if name not in self._nodes:
            edge = edges[name]
            parent = self._root if edge.parent is None else self._add(edge.parent, edges, (*above, name))
            self._nodes[name] = _Node(parent, edge.bytes_per_s)
        return self._nodes[name]

    def _set_node(self, node: _Node, capacity_bytes_per_s: float) -> None:
        node.set_capacity(capacity_bytes_per_s)
        self._advance()
        self._soil(node)
        self._settle()

    def _client(self, client_id: int) -> _Client:
        client = self._clients[client_id]
        assert isinstance(client, _Client)
        return client

    # What the one link does by its two sides, the tree does by its nodes.

    def _new_client(self, client_id: int, access: int) -> _Client:
        name = self._home(client_id)
        client = _Client(client_id, access, self._root if name is None else self._nodes[name])
        client.since_s = self._now_s
        return client

    def _advance(self) -> None:
        self._now_s = self._timeline.now_s

    def _clock(self, client: ClientFlows) -> float:
        assert isinstance(client, _Client)
        if client.bound is not None:
            return client.bound.clock(self._now_s) + client.offset
        return client.served + client.own_rate * (self._now_s - client.since_s)

    def _take_out(self, client: ClientFlows) -> None:
        assert isinstance(client, _Client)
        self._loosen(client)
        self._soil(client.home)
        _remove(client, 0)

    def _join(self, client: ClientFlows) -> None:
        assert isinstance(client, _Client)
        self._loosen(client)
        self._soil(client.home)
        _insert(client, client.home)

    def _settle(self) -> None:
        """Bring every node on the soiled paths to its level, from below; then re-rate the groups and bind the clients."""
        for node in sorted(self._dirty, key=lambda node: -node.depth):
            self._level(node)
        for client in self._loose:
            if client.num_open:
                self._bind(client)
        changed = dict(self._dirty)
        for node in sorted(self._dirty, key=lambda node: node.depth):
            node.re_rate(self._now_s, changed)
        for node in changed:
            node.version += 1
            if (at_s := node.next_finish_at_s(self._now_s)) < math.inf:
                self._finishes.push(at_s, node)
        self._dirty, self._loose = {}, {}
        self._schedule()

    def _next_finish_at_s(self) -> float:
        return self._finishes.key()

    def _finished(self) -> list[Flow]:
        slack_s = max(TIE_S, 4 * math.ulp(self._now_s))
        due: list[tuple[_Client, float]] = []
        while self._finishes.key() <= self._now_s + slack_s:
            first = self._finishes.pop()
            if isinstance(first, _Client):
                due.append((first, first.own_rate * slack_s))
            else:
                due += [(client, first.rate * slack_s) for client in first.pop_due(self._now_s, slack_s)]
                self._soil(first)
        return [flow for client, slack_bytes in due for flow in self._finish_due(client, slack_bytes)]

    # Settling.

    def _soil(self, node: _Node | None) -> None:
        while node is not None and node not in self._dirty:
            self._dirty[node] = None
            node = node.parent

    def _loosen(self, client: _Client) -> None:
        """Freeze the client's clock until it is bound again, at this same instant."""
        client.served = self._clock(client)
        client.since_s, client.bound = self._now_s, None
        client.version += 1
        self._loose[client] = None

    def _bind(self, client: _Client) -> None:
        """Read the clock of the group that the client is in, or the client's own."""
        first_mark = client.marks[0][0]
        place = client.places[-1]
        if not place.is_own:
            client.bound = place.node
            client.offset = client.served - place.node.clock(self._now_s)
            place.node.by_mark.push(first_mark - client.offset, client)
        elif client.own_rate:
            self._finishes.push(self._now_s + (first_mark - client.served) / client.own_rate, client)

    def _level(self, node: _Node) -> None:
        """Sort what passes through and what is merged at a node by exact comparison, then send its group up anew."""
        while (place := node.passing.top()) is not None and node.is_outrun_by(place.thing):
            self._move(place, node)
        while (place := node.merged.top()) is not None and not node.is_outrun_by(place.thing):
            self._move(place, node)
        num_flows = node.merged_flows
        left = node.left or 0 if num_flows else 0
        node.level = left / num_flows * RATE_UNIT_BYTES_PER_S if num_flows else math.inf
        if (left, num_flows) != (node.access, node.num_open):
            _remove(node, 0)
            node.access, node.num_open, node.own_rate = left, num_flows, node.level
            if num_flows:
                _insert(node, node.parent)

    def _move(self, place: _Place, node: _Node) -> None:
        """Let pass what was merged at the node, or the other way round."""
        thing, is_own = place.thing, place.is_own
        if isinstance(thing, _Client):
            self._loosen(thing)
        elif isinstance(thing, _Node):
            self._dirty[thing] = None  # its group runs at another rate now; its level is what it was
        _remove(thing, thing.places.index(place))
        node.put(thing, is_own=not is_own)
        if not is_own:
            _insert(thing, node.parent)


class _Thing(Protocol):
    """What comes to a node from below: a client's flows, or the group of flows that a node has merged."""

    version: int
    access: int
    num_open: int
    own_rate: float
    places: list[_Place]


class _Place:
    """Where a thing stands at one node: it passes through (``is_own``) or is merged."""

    __slots__ = ("is_own", "node", "thing", "version")

    def __init__(self, thing: _Thing, node: _Node, *, is_own: bool) -> None:
        self.thing = thing
        self.node = node
        self.is_own = is_own
        self.version = 0


class _Client(ClientFlows):
    """One client's flows; ``bound`` is the node whose group's clock they read, None for the client's own."""

    __slots__ = ("bound", "home", "places")

    def __init__(self, client_id: int, access: int, home: _Node) -> None:
        super().__init__(client_id, access)
        self.home = home
        self.places: list[_Place] = []
        self.bound: _Node | None = None


class _Node:
    """One link of the tree, and the group of flows that it has merged (``access``, ``num_open``: their total and number)."""

    __slots__ = ("_capacity", "_common", "_since_s", "access", "by_mark", "depth", "groups", "level", "merged", "merged_flows",
                 "num_open", "own_rate", "parent", "passing", "passing_units", "places", "rate", "version")  # fmt: skip

    def __init__(self, parent: _Node | None, capacity_bytes_per_s: float) -> None:
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.set_capacity(capacity_bytes_per_s)
        self.version = 0
        self.level = math.inf
        # What comes from below: fastest first what passes, slowest first what is merged; of the latter, the groups.
        self.passing_units = self.merged_flows = 0
        self.passing: _Queue[_Place] = _Queue()
        self.merged: _Queue[_Place] = _Queue()
        self.groups: dict[_Node, None] = {}
        # The group, as a thing that goes up, and its clock.
        self.access = self.num_open = 0
        self.own_rate = 0.0
        self.places: list[_Place] = []
        self.rate = 0.0
        self._common = self._since_s = 0.0
        self.by_mark: _Queue[_Client] = _Queue()

    def set_capacity(self, capacity_bytes_per_s: float) -> None:
        finite = math.isfinite(capacity_bytes_per_s) or not capacity_bytes_per_s > 0
        self._capacity = rate_units(capacity_bytes_per_s) if finite else None

    @property
    def left(self) -> int | None:
        """What the things that pass leave of the capacity; None = no limit."""
        return None if self._capacity is None else self._capacity - self.passing_units

    def is_outrun_by(self, thing: _Thing) -> bool:
        """Whether a thing is faster than the share of what is merged; no thing is where nothing is merged and enough left."""
        left = self.left
        return left is not None and thing.access * self.merged_flows > thing.num_open * left

    def put(self, thing: _Thing, *, is_own: bool) -> None:
        """Stand a thing on one side."""
        place = _Place(thing, self, is_own=is_own)
        thing.places.append(place)
        if is_own:
            self.passing_units += thing.access
            self.passing.push(-thing.own_rate, place)
        else:
            self.merged_flows += thing.num_open
            self.merged.push(thing.own_rate, place)
            if isinstance(thing, _Node):
                self.groups[thing] = None

    def drop(self, place: _Place) -> None:
        """Take a thing away again."""
        place.version += 1
        if place.is_own:
            self.passing_units -= place.thing.access
        else:
            self.merged_flows -= place.thing.num_open
            if isinstance(place.thing, _Node):
                del self.groups[place.thing]

    # The group's clock.

    def clock(self, now_s: float) -> float:
        """Bytes that each flow of the group has been served."""
        return self._common + self.rate * (now_s - self._since_s)

    def re_rate(self, now_s: float, changed: dict[_Node, None]) -> None:
        """Run the clock at the group's rate: its level, or that of the group it is merged into; note whose changed."""
        place = self.places[-1] if self.places else None
        rate = self.level if place is None or place.is_own else place.node.rate
        if not self.merged_flows:
            self._common, self._since_s, self.rate = 0.0, now_s, 0.0
        elif rate != self.rate:
            self._common, self._since_s, self.rate = self.clock(now_s), now_s, rate
            changed[self] = None
            for group in self.groups:
                group.re_rate(now_s, changed)

    def next_finish_at_s(self, now_s: float) -> float:
        """When the first of the group's flows ends at this rate."""
        mark = self.by_mark.key()
        return now_s + (mark - self.clock(now_s)) / self.rate if mark < math.inf and self.rate else math.inf

    def pop_due(self, now_s: float, slack_s: float) -> Iterable[_Client]:
        """The clients whose first flow ends now: the first one by the rounding that woke us, others by their marks."""
        until, due = self.clock(now_s) + self.rate * slack_s, [self.by_mark.pop()]
        while self.by_mark.key() <= until:
            due.append(self.by_mark.pop())
        return due


def _insert(thing: _Thing, node: _Node | None) -> None:
    """Let a thing pass from a node upwards until it is faster than a level (by the last levels; settling corrects)."""
    while node is not None:
        is_own = thing.own_rate <= node.level
        node.put(thing, is_own=is_own)
        node = node.parent if is_own else None


def _remove(thing: _Thing, index: int) -> None:
    """Take a thing away from its places, from the one of this index upwards."""
    for place in thing.places[index:]:
        place.node.drop(place)
    del thing.places[index:]


class _Versioned(Protocol):
    version: int


T = TypeVar("T", bound=_Versioned)


class _Queue(Generic[T]):
    """Things by a key, smallest first; an entry whose thing has another version by now is skipped."""

    __slots__ = ("_entries", "_sweep_at", "num_pushed")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, int, T]] = []
        self._sweep_at = 64
        self.num_pushed = 0

    def push(self, key: float, thing: T) -> None:
        self.num_pushed += 1
        if len(self._entries) >= self._sweep_at:
            self._entries = [entry for entry in self._entries if entry[2] == entry[3].version]
            heapify(self._entries)
            self._sweep_at = 2 * len(self._entries) + 64
        heappush(self._entries, (key, self.num_pushed, thing.version, thing))

    def top(self) -> T | None:
        entries = self._entries
        while entries and entries[0][2] != entries[0][3].version:
            heappop(entries)
        return entries[0][3] if entries else None

    def key(self) -> float:
        return math.inf if self.top() is None else self._entries[0][0]

    def pop(self) -> T:
        if self.top() is None:
            raise IndexError("nothing left")
        return heappop(self._entries)[3]
