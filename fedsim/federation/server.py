"""The server's accelerator, which computes one thing at a time, in virtual time and on record."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from fedsim.federation.world import World
from fedsim.records.rows import SERVER_ID, Compute
from fedsim.sim.devices.cost import Work, compute_energy_j, compute_jitter, duration_s
from fedsim.sim.devices.profile import DeviceProfile


class Server:
    """The server's accelerator: one computation at a time, first come first served, in virtual time."""

    def __init__(self, world: World, profile: DeviceProfile) -> None:
        self._world = world
        self._profile = profile
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._busy = False

    async def compute(self, work: Work | Callable[[], Work], kind: str, subject: int = -1) -> None:
        """Hold the accelerator for as long as the work takes, after those who asked before.

        Work that is only known when the accelerator is free, such as a batch of what waits by then, is given as a function.
        A job that is cancelled while it waits leaves no trace; one that is cancelled while it runs is on record as cut, with
        its share of the job's FLOP and bytes, and the next one starts at that instant.
        """
        await self._take_turn()
        if not isinstance(work, Work):
            work = work()
        jitter = compute_jitter(self._profile, self._world.seed, (SERVER_ID, kind, subject))
        start_at_s = self._world.loop.time()
        length_s = duration_s(self._profile, work, jitter)
        cut = True
        try:
            await asyncio.sleep(length_s)
            cut = False
        finally:
            elapsed_s = self._world.loop.time() - start_at_s
            share = min(elapsed_s / length_s, 1.0) if cut and length_s else 1.0
            self._log(work, kind, subject, start_at_s, share, cut=cut)
            self._hand_over()

    async def _take_turn(self) -> None:
        if not self._busy:
            self._busy = True
            return
        turn: asyncio.Future[None] = self._world.loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # handed the turn and cancelled at the same instant: pass it on
                self._hand_over()
            elif turn in self._waiting:  # else whoever handed over at this instant has passed over it
                self._waiting.remove(turn)
            raise

    def _log(
        self, work: Work, kind: str, subject: int, start_at_s: float, share: float, *, cut: bool
    ) -> None:
        end_at_s = self._world.loop.time()
        self._world.log.add(
            Compute(
                request_id=subject,
                client_id=SERVER_ID,
                kind=kind,
                start_at_s=start_at_s,
                end_at_s=end_at_s,
                flop=work.flop * share,
                memory_bytes=work.memory_bytes * share,
                energy_j=compute_energy_j(self._profile, end_at_s - start_at_s),
                cut=cut,
            )
        )

    def _hand_over(self) -> None:
        """Give the accelerator to the first who waits; it stays busy meanwhile, so that nobody can barge in."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False
