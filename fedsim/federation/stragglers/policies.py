"""Straggler policies: how long the server waits for replies, as a few lines of ordinary asyncio.

A policy starts requests and returns the replies it is content with:

    wait_all      every asked client has answered or failed
    deadline      the same, at most so long
    quorum        so many have answered, and then a grace for the others
    over_select   m + extra are asked, the first m count
    hedged        a spare is asked for each that is silent for so long or lost, the first of the pair counts
    replace       the next in line is asked for each that is lost, at once
    adaptive      a deadline learned from history: factor x the q-quantile of the reply times so far

``deadline`` limits every one of them but wait_all, and ``partial`` asks at the deadline for what is there. A request that is
given up is cancelled with the fate its bytes will carry (``late``, or ``over_selected`` where others were faster): the device
does not know, and goes on computing and sending, unless ``on_deadline: cancel`` sends it a message that arrives in time.

Asking a client is what it always is: its luck belongs to the client and the question, so policies meet the same devices.

References:
    Dean, Barroso: The Tail at Scale, CACM 56(2), 2013 (hedged requests).
    Bonawitz et al.: Towards Federated Learning at Scale, MLSys 2019 (over-selection).
    Chen, Pan, Monga, Bengio, Jozefowicz: Revisiting Distributed Synchronous SGD, arXiv 1604.00981 (backup workers).
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

from fedsim.errors import RequestError
from fedsim.federation.handlers import Hurry
from fedsim.federation.stragglers.config import StragglerConfig, refuse_impossible

__all__ = ["ReplyTimes", "StragglerConfig", "Stragglers", "refuse_impossible", "seated"]

T = TypeVar("T")
Ask = Callable[[int, Hurry | None], Coroutine[Any, Any, T]]
"""How a client is asked: by its id, and with the server's word to hurry where the policy may give it."""


class Stragglers:
    """A protocol's patience with its clients, and what it has learned of their reply times; one for a run."""

    def __init__(self, config: StragglerConfig, now_s: Callable[[], float]) -> None:
        self.config = config
        self._now_s = now_s
        self._times = ReplyTimes(config.history or 1)

    async def collect(self, ask: Ask[T], chosen: Sequence[int], spares: Iterable[int] = ()) -> dict[int, T]:
        """Ask the chosen clients at once and return the replies that the policy is content with, by client id.

        At most as many replies come back as clients were chosen, in the order of asking. ``spares`` are the next in line; one
        is drawn only when it is needed. A reply at the deadline's own instant is in time. A request that fails with a
        ``RequestError`` is simply absent: its cause stands in the records. Any other exception is a bug and propagates. If
        ``collect`` itself is cancelled (the run ends), the requests under way are given up as ``late``.
        """
        if not chosen:
            return {}
        hurry = Hurry() if self.config.partial else None
        asked = Asked(
            self._timed(ask) if self.config.policy == "adaptive" else ask, hurry, self.config.on_deadline
        )
        try:
            try:
                async with asyncio.timeout(self.deadline_s()):
                    await _POLICIES[self.config.policy](asked, chosen, iter(spares), self.config)
            except TimeoutError:
                if hurry is not None:
                    hurry.now()
                    await asked.enough(len(chosen), self.config.partial_grace)
                asked.give_up("late")
        except asyncio.CancelledError:
            asked.forget()
            asked.raise_bugs()
            raise
        return asked.first(len(chosen))

    def deadline_s(self) -> float | None:
        """How long the next collection waits at most [s]; None: for as long as it takes.

        ``adaptive``: D = factor x Q_q of the known reply times, when there are ``warm_up`` of them. Whoever was given up
        counts as endless. Since factor >= 1, those lie beyond Q_q, so that cutting them off does not move it: the deadline
        does not creep down by its own doing. Where more than 1 - q of them were given up, it waits again for all.
        """
        config = self.config
        if config.policy != "adaptive" or len(self._times) < (config.warm_up or 1):
            return config.deadline
        learned_s = (config.factor or 1.0) * self._times.quantile(config.quantile or 0.5)
        limit_s = min(learned_s, config.deadline or math.inf)
        return limit_s if 0 < limit_s < math.inf else None

    def _timed(self, ask: Ask[T]) -> Ask[T]:
        async def timed(client_id: int, hurry: Hurry | None) -> T:
            asked_at_s = self._now_s()
            try:
                reply = await ask(client_id, hurry)
            except asyncio.CancelledError:
                self._times.add(math.inf)
                raise
            self._times.add(self._now_s() - asked_at_s)
            return reply

        return timed


class Asked(Generic[T]):
    """The requests of one collection, in the order of asking, and what came of them so far."""

    def __init__(self, ask: Ask[T], hurry: Hurry | None, on_deadline: str) -> None:
        self._ask = ask
        self._hurry = hurry
        self._tells = on_deadline == "cancel"
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._num_out = 0
        self._news = asyncio.Event()
        self.num_lost = 0
        self.replies: dict[int, T] = {}

    def start(self, client_ids: Iterable[int]) -> None:
        """Ask these clients too."""
        for client_id in client_ids:
            self._tasks[client_id] = asyncio.create_task(
                self._request(client_id), name=f"request to client {client_id}"
            )
            self._num_out += 1

    async def _request(self, client_id: int) -> None:
        try:
            self.replies[client_id] = await self._ask(client_id, self._hurry)
        except RequestError:
            self.num_lost += 1
        finally:
            self._num_out -= 1
            self._news.set()

    def out(self, client_ids: Collection[int] | None = None) -> list[asyncio.Task[None]]:
        """The requests still under way, of these clients or of all."""
        asked = self._tasks if client_ids is None else client_ids
        return [self._tasks[client_id] for client_id in asked if not self._tasks[client_id].done()]

    async def one_more(self) -> bool:
        """Sleep until one more request has ended; false when none is under way."""
        if not self._num_out:
            return False
        self._news.clear()
        await self._news.wait()
        return True

    async def enough(self, num_replies: int, timeout_s: float | None = None) -> None:
        """Sleep until so many have answered, nobody can any more, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.replies) < num_replies and await self.one_more():
                    pass
        except TimeoutError:
            return

    async def ended(self, timeout_s: float | None = None) -> None:
        """Sleep until every request has ended, or the time is over."""
        if out := self.out():
            await asyncio.wait(out, timeout=timeout_s)

    async def first_of(self, client_ids: Collection[int], timeout_s: float | None = None) -> bool:
        """Sleep until one of these has answered (true), none of them can any more, or the time is over (false)."""
        while not self.replies.keys() & client_ids:
            out = self.out(client_ids)
            if not out:
                return False
            ended, _ = await asyncio.wait(out, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not ended:
                return False
        return True

    def give_up(self, fate: str, client_ids: Collection[int] | None = None) -> None:
        """Wait no longer for these, or for anybody: their bytes get this fate, unless they can be told to stop."""
        for task in self.out(client_ids):
            task.cancel("cancel" if self._tells else fate)

    def forget(self) -> None:
        """The run ends: nobody is told anything."""
        for task in self.out():
            task.cancel("late")

    def first(self, num_replies: int) -> dict[int, T]:
        """The replies that came first, so many at most, in the order of asking."""
        self.raise_bugs()
        came = dict(islice(self.replies.items(), num_replies))
        return {client_id: came[client_id] for client_id in self._tasks if client_id in came}

    def raise_bugs(self) -> None:
        """Raise what was no ``RequestError``; looks at every error, so that asyncio reports none as never retrieved."""
        ended = [task for task in self._tasks.values() if task.done() and not task.cancelled()]
        for error in [task.exception() for task in ended]:
            if error is not None:
                raise error


# ------------------------------------------------------------------------------------------------------ the policies


async def _wait_all(
    asked: Asked[T], chosen: Sequence[int], spares: Iterator[int], config: StragglerConfig
) -> None:
    asked.start(chosen)
    await asked.ended()


async def _quorum(
    asked: Asked[T], chosen: Sequence[int], spares: Iterator[int], config: StragglerConfig
) -> None:
    asked.start(chosen)
    await asked.enough(config.quorum or len(chosen))
    await asked.ended(config.grace)
    asked.give_up("late")


async def _over_select(
    asked: Asked[T], chosen: Sequence[int], spares: Iterator[int], config: StragglerConfig
) -> None:
    asked.start([*chosen, *islice(spares, config.extra)])
    await asked.enough(len(chosen))
    asked.give_up("over_selected")


async def _replace(
    asked: Asked[T], chosen: Sequence[int], spares: Iterator[int], config: StragglerConfig
) -> None:
    asked.start(chosen)
    others, num_seen = islice(spares, config.replacements), 0
    while await asked.one_more():
        num_lost = asked.num_lost
        asked.start(islice(others, num_lost - num_seen))
        num_seen = num_lost


async def _hedged(
    asked: Asked[T], chosen: Sequence[int], spares: Iterator[int], config: StragglerConfig
) -> None:
    async def pair(client_id: int) -> None:
        if await asked.first_of([client_id], config.hedge_after):
            return
        both = [client_id, *islice(spares, 1)]
        asked.start(both[1:])
        await asked.first_of(both)
        asked.give_up("over_selected", both)

    asked.start(chosen)
    async with asyncio.TaskGroup() as pairs:
        for client_id in chosen:
            pairs.create_task(pair(client_id), name=f"hedge of client {client_id}")


_POLICIES: Mapping[str, Callable[..., Awaitable[None]]] = {
    "wait_all": _wait_all,
    "deadline": _wait_all,
    "adaptive": _wait_all,
    "quorum": _quorum,
    "over_select": _over_select,
    "replace": _replace,
    "hedged": _hedged,
}


def seated(chosen: Sequence[int], answered: Collection[int]) -> tuple[int, ...]:
    """Who stands in each place: a chosen client that answered, else a spare that did, else the silent one itself.

    Spares take the free places in the order of asking.

    >>> seated([4, 7, 9], answered=[9, 2])
    (2, 7, 9)
    """
    spares = iter([client_id for client_id in answered if client_id not in chosen])
    return tuple(client_id if client_id in answered else next(spares, client_id) for client_id in chosen)


class ReplyTimes:
    """The latest reply times [s], as many as are kept; infinite for one that was given up."""

    def __init__(self, num_kept: int) -> None:
        self._latest: deque[float] = deque(maxlen=num_kept)
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, seconds: float) -> None:
        """Remember one more, and forget the oldest when there are too many."""
        if len(self._latest) == self._latest.maxlen:
            del self._sorted[bisect_left(self._sorted, self._latest[0])]
        self._latest.append(seconds)
        insort(self._sorted, seconds)

    def quantile(self, share: float) -> float:
        """Q_q: the smallest known time that at least this share of them does not exceed [s].

        Raises:
            ValueError: none is known.
        """
        if not self._sorted:
            raise ValueError("no reply time is known yet")
        return self._sorted[max(math.ceil(share * len(self._sorted)) - 1, 0)]
