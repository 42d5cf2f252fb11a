"""A link that flows share by max-min fairness, in one direction, with an access cap per client.

Client k with n_k flows and access rate C_k, server link of capacity S: every flow of k runs at ``min(C_k /
n_k, s)``, where the fair share s is the largest with ``sum_k n_k min(C_k / n_k, s) <= S`` (water filling over
clients). So a client is either *own-limited* (``C_k / n_k <= s``) or *shared-limited*, and all shared-limited
flows run at the one rate ``s = (S - sum of own-limited C_k) / number of shared-limited flows``.

Nothing is recomputed per flow. Bytes served are read off clocks: an own-limited client has a clock of its
own, which runs at ``C_k / n_k``; all shared-limited clients read one common clock, which runs at s. A flow
finishes when its client's clock reaches the flow's mark, and marks never move. A change (start, finish, cut,
new rate) costs O(log n) plus the clients that change side. `tests.oracles.max_min` is the same link,
recomputed from scratch.

Rates are held as integers of 2^-40 bytes/s, so sums over clients are exact: no drift, whatever the order.

A rate of exactly 0 is a state, not an error: an access link at 0 stalls its client's flows, a server link at 0 all
flows. A stalled flow keeps what it has sent, has no event on the timeline, and goes on when a rate is set again.

References:
    Bertsekas and Gallager, Data Networks (1992), section 6.5.2 (max-min fairness); Parekh and Gallager,
    IEEE/ACM ToN 1 (1993) (virtual service clocks).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from operator import attrgetter

from fedsim.sim.timeline import Scheduled, Timeline

RATE_UNIT_BYTES_PER_S = 2.0**-40
# An access link without a limit: fast enough that no transfer takes measurable time.
UNLIMITED_ACCESS_BYTES_PER_S = 2.0**60
_UNLIMITED_UNITS = round(UNLIMITED_ACCESS_BYTES_PER_S / RATE_UNIT_BYTES_PER_S)
# Flows that finish within this time of one another finish together, in order of start.
TIE_S = 1e-9


class Flow:
    """One transfer on a link: who, how much, since when, and whether it still runs.

    Attributes:
        client_id: whose access link it uses.
        wire_bytes: bytes to carry.
        number: 0, 1, ... in order of start on this link; decides ties.
        is_open: whether it still runs (neither finished nor cut).
    """

    __slots__ = ("_client", "_mark", "_on_done", "_sent_bytes", "client_id", "is_open", "number",
                 "wire_bytes")  # fmt: skip

    def __init__(
        self,
        client: ClientFlows,
        wire_bytes: float,
        number: int,
        on_done: Callable[[Flow], object],
    ) -> None:
        self.client_id = client.client_id
        self.wire_bytes = wire_bytes
        self.number = number
        self.is_open = True
        self._client = client
        self._mark = 0.0
        self._sent_bytes = 0.0
        self._on_done = on_done


class SharedLink:
    """One direction of the server's link, shared by all clients' flows (see the module's docstring)."""

    def __init__(self, timeline: Timeline, capacity_bytes_per_s: float = math.inf) -> None:
        """Make an idle link.

        Args:
            timeline: the clock.
            capacity_bytes_per_s: the server link's rate; infinity = only access links limit.

        Raises:
            ValueError: the capacity is negative or not a number.
        """
        self._timeline = timeline
        self._capacity = rate_units(capacity_bytes_per_s) if math.isfinite(capacity_bytes_per_s) else None
        self._clients: dict[int, ClientFlows] = {}
        self._now_s = timeline.now_s
        self._num_flows = 0
        self._num_open = 0
        # What ended: whole bytes, which are exact however many there are, and the parts of bytes of flows that were cut.
        self._whole_bytes = 0
        self._parts_bytes = 0.0
        # Own-limited clients: sum of C_k, largest C_k / n_k first, earliest finish first.
        self._own_units = 0
        self._own_by_rate = _Heap()
        self._own_by_finish = _Heap()
        # Shared-limited clients: number of flows, smallest C_k / n_k first, first mark on the common clock
        # first.
        self._shared_flows = 0
        self._shared_by_rate = _Heap()
        self._shared_by_mark = _Heap()
        self._common = 0.0
        self._fair_rate = math.inf
        self._wake: Scheduled | None = None
        self._wake_at_s = math.inf

    @property
    def num_open_flows(self) -> int:
        """Flows under way."""
        return self._num_open

    @property
    def client_ids(self) -> tuple[int, ...]:
        """Clients with a flow under way, in the order in which they began."""
        return tuple(self._clients)

    def has_flows(self, client_id: int) -> bool:
        """Whether a client has a flow under way, running or stalled."""
        return client_id in self._clients

    @property
    def carried_bytes(self) -> float:
        """All bytes carried so far: of finished, cut and open flows. Costs O(open flows).

        Finished flows of whole bytes are added up as integers: their sum has no rounding error below 2^53 bytes.
        """
        self._advance()
        open_bytes = math.fsum(
            self._served(client, flow)
            for client in self._clients.values()
            for _, _, flow in client.marks
            if flow.is_open
        )
        return self._whole_bytes + (self._parts_bytes + open_bytes)

    def rate_bytes_per_s(self, flow: Flow) -> float:
        """The rate at which a flow runs now; 0 when it is stalled or has ended."""
        if not flow.is_open:
            return 0.0
        client = flow._client
        return client.own_rate if client.is_own else self._fair_rate

    def start(
        self, client_id: int, wire_bytes: float, access_bytes_per_s: float, on_done: Callable[[Flow], object]
    ) -> Flow:
        """Start a transfer of ``wire_bytes``; ``on_done(flow)`` is called when its last byte has left.

        The callback comes from the timeline, never from inside this call, also for an empty transfer. The
        client's access rate is shared by its own flows; a new value holds for all of them from now on. At rate 0
        nothing is sent, and even an empty transfer waits.

        Raises:
            ValueError: negative or non-finite bytes, or a rate that is negative or not a number.
        """
        if not 0 <= wire_bytes < math.inf:
            raise ValueError(f"a transfer of {wire_bytes} bytes; must be finite and not negative")
        access = rate_units(access_bytes_per_s)
        self._advance()
        client = self._clients.get(client_id)
        if client is None:
            client = self._clients[client_id] = self._new_client(client_id, access)
        else:
            self._take_out(client)
            client.access = access
        flow = Flow(client, float(wire_bytes), self._num_flows, on_done)
        self._num_flows += 1
        flow._mark = client.served + flow.wire_bytes
        heappush(client.marks, (flow._mark, flow.number, flow))
        client.num_open += 1
        self._num_open += 1
        self._put_in(client)
        self._settle()
        return flow

    def cut(self, flow: Flow) -> float:
        """Stop a flow and return the bytes it has sent; a flow that has ended returns what it sent before."""
        if flow.is_open:
            self._advance()
            client = flow._client
            sent_bytes = self._served(client, flow)
            self._take_out(client)
            self._close(flow, sent_bytes)
            self._put_in(client)
            self._settle()
        return flow._sent_bytes

    def set_access(self, client_id: int, access_bytes_per_s: float) -> None:
        """Change the access rate of a client's running flows (a rate that varies in time); 0 stalls them."""
        self.set_accesses({client_id: access_bytes_per_s})

    def set_accesses(self, access_bytes_per_s: Mapping[int, float]) -> None:
        """Change the access rates of many clients at this instant; clients without a running flow are passed over.

        Raises:
            ValueError: a rate is negative or not a number.
        """
        units = {client_id: rate_units(rate) for client_id, rate in access_bytes_per_s.items()}
        self._advance()
        for client_id, access in units.items():
            client = self._clients.get(client_id)
            if client is not None:
                self._take_out(client)
                client.access = access
                self._put_in(client)
        self._settle()

    def set_capacity(self, capacity_bytes_per_s: float) -> None:
        """Change the rate of the server's link; infinity = only access links limit, 0 = nothing moves."""
        self._advance()
        self._capacity = rate_units(capacity_bytes_per_s) if math.isfinite(capacity_bytes_per_s) else None
        self._settle()

    def _new_client(self, client_id: int, access: int) -> ClientFlows:
        return ClientFlows(client_id, access)

    # Reading the clocks.

    def _advance(self) -> None:
        """Move the common clock to now; clients' own clocks are moved when they are touched."""
        now_s = self._timeline.now_s
        if self._shared_flows:
            self._common += self._fair_rate * (now_s - self._now_s)
        self._now_s = now_s

    def _served(self, client: ClientFlows, flow: Flow) -> float:
        clock = self._clock(client)
        return min(max(flow.wire_bytes - (flow._mark - clock), 0.0), flow.wire_bytes)

    def _clock(self, client: ClientFlows) -> float:
        """Bytes that each flow of the client has been served since the client became active."""
        if client.is_own:
            return client.served + client.own_rate * (self._now_s - client.since_s)
        return self._common + client.offset

    # Changing sides.

    def _take_out(self, client: ClientFlows) -> None:
        """Freeze the client's clock and leave both sides."""
        client.served = self._clock(client)
        client.version += 1
        if client.is_own:
            self._own_units -= client.access
            self._own_by_rate.forget(client)
            self._own_by_finish.forget(client)
        else:
            self._shared_flows -= client.num_open
            self._shared_by_rate.forget(client)
            self._shared_by_mark.forget(client)
            if not self._shared_flows:
                self._common = 0.0

    def _put_in(self, client: ClientFlows) -> None:
        """Join the side that fits the last fair share, or leave for good when no flow is open."""
        marks = client.marks
        while marks and not marks[0][2].is_open:
            heappop(marks)
        if not client.num_open:
            del self._clients[client.client_id]
            return
        client.own_rate = client.access * RATE_UNIT_BYTES_PER_S / client.num_open
        self._join(client)

    def _join(self, client: ClientFlows) -> None:
        if client.own_rate <= self._fair_rate:
            self._join_own(client)
        else:
            self._join_shared(client)

    def _join_own(self, client: ClientFlows) -> None:
        client.is_own = True
        client.since_s = self._now_s
        self._own_units += client.access
        left_bytes = client.marks[0][0] - client.served
        finish_at_s = self._now_s + left_bytes / client.own_rate if client.own_rate else math.inf
        self._own_by_rate.push(-client.own_rate, client)
        self._own_by_finish.push(finish_at_s, client)

    def _join_shared(self, client: ClientFlows) -> None:
        client.is_own = False
        client.offset = client.served - self._common
        self._shared_flows += client.num_open
        self._shared_by_rate.push(client.own_rate, client)
        self._shared_by_mark.push(client.marks[0][0] - client.offset, client)

    def _settle(self) -> None:
        """Move clients until every one is on its right side, then re-rate the common clock and the wake-up.

        First the fastest own-limited clients leave their side while they exceed the share, which only raises
        it towards them; then the slowest shared-limited ones whose cap is below it. Comparisons are exact.
        """
        capacity, own, shared = self._capacity, self._own_by_rate.entries, self._shared_by_rate.entries
        while own and capacity is not None:
            client = own[0][3]
            if client.access * self._shared_flows <= client.num_open * (capacity - self._own_units):
                break
            self._take_out(client)
            self._join_shared(client)
        while shared:
            client = shared[0][3]
            if capacity is not None:
                left = capacity - self._own_units
                if client.access * self._shared_flows > client.num_open * left:
                    break
            self._take_out(client)
            self._join_own(client)
        if shared and capacity is not None:
            left = capacity - self._own_units
            self._fair_rate = left / self._shared_flows * RATE_UNIT_BYTES_PER_S
        else:
            self._fair_rate = math.inf
        self._schedule()

    # Finishing.

    def _schedule(self) -> None:
        """One wake-up for the whole link, at the next finish."""
        at_s = max(self._next_finish_at_s(), self._now_s)
        if at_s == self._wake_at_s:
            return
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        self._wake_at_s = at_s
        if at_s < math.inf:
            self._wake = self._timeline.at(at_s, self._on_wake)

    def _next_finish_at_s(self) -> float:
        own, shared = self._own_by_finish.entries, self._shared_by_mark.entries
        at_s = own[0][0] if own else math.inf
        if not (shared and self._fair_rate):
            return at_s
        return min(at_s, self._now_s + (shared[0][0] - self._common) / self._fair_rate)

    def _on_wake(self) -> None:
        self._wake, self._wake_at_s = None, math.inf
        self._advance()
        finished = self._finished()
        self._settle()
        if len(finished) > 1:
            finished.sort(key=attrgetter("number"))
        for flow in finished:
            flow._on_done(flow)

    def _finished(self) -> list[Flow]:
        """Close the flows whose last byte leaves now, or within the resolution of time."""
        slack_s = max(TIE_S, 4 * math.ulp(self._now_s))
        own, shared = self._own_by_finish.entries, self._shared_by_mark.entries
        finished: list[Flow] = []
        while True:
            if own and own[0][0] <= self._now_s + slack_s:
                client = own[0][3]
                finished += self._finish_due(client, client.own_rate * slack_s)
            elif shared and shared[0][0] <= self._common + self._fair_rate * slack_s and self._fair_rate:
                finished += self._finish_due(shared[0][3], self._fair_rate * slack_s)
            else:
                return finished

    def _finish_due(self, client: ClientFlows, slack_bytes: float) -> list[Flow]:
        """Close the client's first flow, which is due by the same rounding that woke us, and its siblings by their marks."""
        self._take_out(client)
        due, finished = max(client.served + slack_bytes, client.marks[0][0]), []
        while client.marks and client.marks[0][0] <= due:
            flow = heappop(client.marks)[2]
            if flow.is_open:
                self._close(flow, flow.wire_bytes)
                finished.append(flow)
        self._put_in(client)
        return finished

    def _close(self, flow: Flow, sent_bytes: float) -> None:
        flow.is_open = False
        flow._sent_bytes = sent_bytes
        flow._client.num_open -= 1
        self._num_open -= 1
        whole_bytes = int(sent_bytes)
        self._whole_bytes += whole_bytes
        self._parts_bytes += sent_bytes - whole_bytes


class ClientFlows:
    """One client's flows on the link.

    ``served`` is its clock when last touched (bytes per flow), at ``since_s`` if own-limited; a
    shared-limited client's clock is the common one plus ``offset``. ``marks`` holds (mark, number, flow),
    first finish first.
    """

    __slots__ = ("access", "client_id", "is_own", "marks", "num_open", "offset", "own_rate", "served",
                 "since_s", "version")  # fmt: skip

    def __init__(self, client_id: int, access: int) -> None:
        self.client_id = client_id
        self.access = access
        self.is_own = True
        self.marks: list[tuple[float, int, Flow]] = []
        self.num_open = 0
        self.offset = 0.0
        self.own_rate = 0.0
        self.served = 0.0
        self.since_s = 0.0
        self.version = 0


_Entry = tuple[float, int, int, ClientFlows]
"""Key, number of the push, the client's version then, client."""


class _Heap:
    """Clients of one side by a key, smallest first.

    A client's version grows whenever it leaves a side, so an entry holds as long as it has the client's version. The first
    entry always holds: whoever leaves is forgotten at once if it stands there, else when it comes to stand there.
    """

    __slots__ = ("_num_pushed", "_sweep_at", "entries")

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self._num_pushed = 0
        self._sweep_at = 64

    def push(self, key: float, client: ClientFlows) -> None:
        self._num_pushed += 1
        entries = self.entries
        if len(entries) >= self._sweep_at:
            entries[:] = [entry for entry in entries if entry[2] == entry[3].version]
            heapify(entries)
            self._sweep_at = 2 * len(entries) + 64
        heappush(entries, (key, self._num_pushed, client.version, client))

    def forget(self, client: ClientFlows) -> None:
        entries = self.entries
        if entries[0][3] is client:
            while entries and entries[0][2] != entries[0][3].version:
                heappop(entries)


def rate_units(rate_bytes_per_s: float) -> int:
    """A rate as an integer of 2^-40 bytes/s; at least one unless it is exactly 0.

    Raises:
        ValueError: the rate is negative or not a number.
    """
    if not rate_bytes_per_s >= 0:
        raise ValueError(f"a rate of {rate_bytes_per_s} bytes/s; must be 0 or more")
    if rate_bytes_per_s == 0:
        return 0
    if rate_bytes_per_s >= UNLIMITED_ACCESS_BYTES_PER_S:
        return _UNLIMITED_UNITS
    return round(rate_bytes_per_s / RATE_UNIT_BYTES_PER_S) or 1
