"""One computation on a device: when it ends, what is done of it, and its rows in the books."""

from __future__ import annotations

import math
from collections.abc import Callable

from fedsim.federation.world import World
from fedsim.records.rows import Compute, Purpose
from fedsim.sim import streams
from fedsim.sim.devices.cost import Work, compute_energy_j, compute_jitter, duration_s
from fedsim.sim.devices.device import Device
from fedsim.sim.timeline import Scheduled


class Computation:
    """The processor is held by one request, from now on, with pauses where the device is away (``on_cut: suspend``).

    Its nominal length is what the cost model says (`fedsim.sim.devices.cost`); slow-downs of the device stretch it
    (`World.slowdowns`). A task that will be given up ends after its share of the nominal length.
    """

    __slots__ = ("_device", "_done_s", "_event", "_from_s", "_given_up", "_key", "_kind", "_nominal_s", "_on_done",
                 "_on_given_up", "_request_id", "_stretches", "_until_s", "_work", "_world")  # fmt: skip

    def __init__(
        self,
        world: World,
        device: Device,
        request_id: int,
        kind: Purpose,
        key: tuple[streams.Part, ...],
        work: Work,
        on_done: Callable[[], None],
        on_given_up: Callable[[], None],
    ) -> None:
        self._world = world
        self._device = device
        self._request_id = request_id
        self._kind = kind
        self._key = key
        self._work = work
        self._on_done = on_done
        self._on_given_up = on_given_up
        self._nominal_s = duration_s(device.profile, work, compute_jitter(device.profile, world.seed, key))
        share = world.dropout.gives_up_at(key)
        self._given_up = share is not None
        self._until_s = self._nominal_s if share is None else self._nominal_s * share
        self._done_s = 0.0
        self._stretches: tuple[tuple[float, float, float], ...] = ()
        self._event: Scheduled | None = None
        self.go_on()

    @property
    def share_done(self) -> float:
        """How much of the nominal length was done when it last stood still, in [0, 1]."""
        return min(self._done_s / self._nominal_s, 1.0) if self._nominal_s else 1.0

    def go_on(self) -> None:
        """Compute what is left from this instant on."""
        timeline, slowdowns = self._world.timeline, self._world.slowdowns
        self._from_s = timeline.now_s
        left_s = self._until_s - self._done_s
        if slowdowns is None:
            ends_at_s = self._from_s + left_s
        else:
            ends_at_s = slowdowns.finish_at_s(self._device.client_id, self._key, self._from_s, left_s)
        self._event = timeline.at(ends_at_s, self._on_given_up if self._given_up else self._on_done)

    def stand_still(self) -> None:
        """Stop here; what is done is kept."""
        if self._event is None:
            return
        self._event.cancel()
        self._event = None
        now_s, slowdowns = self._world.timeline.now_s, self._world.slowdowns
        if slowdowns is None:
            progress_s = now_s - self._from_s
        else:
            progress_s = slowdowns.progress_s(self._device.client_id, self._key, self._from_s, now_s)
        progress_s = min(progress_s, self._until_s - self._done_s)
        self._done_s += progress_s
        self._stretches += ((self._from_s, now_s, progress_s),)

    def close(self, *, cut: bool, share: float = 1.0) -> None:
        """Put it on record, a row for each stretch between two absences.

        FLOP and bytes are the task's times the share of its nominal length that was done: all of them when it ended, less
        when it was cut or given up, and ``share`` where a partial reply took so much. Of several rows each has its part of
        them by the work done in it.
        """
        if not cut and not self._stretches:  # the plain case
            assert self._event is not None
            self._event.cancel()
            self._log(self._from_s, self._world.timeline.now_s, share, cut=False)
            return
        self.stand_still()
        if cut:
            share = self.share_done
        whole_s = math.fsum(done_s for _, _, done_s in self._stretches)
        last = self._stretches[-1]
        for stretch in self._stretches:
            part = stretch[2] / whole_s if whole_s else float(stretch is last)
            self._log(stretch[0], stretch[1], share * part, cut=cut)

    def _log(self, start_at_s: float, end_at_s: float, share: float, *, cut: bool) -> None:
        self._world.log.add(
            Compute(
                request_id=self._request_id,
                client_id=self._device.client_id,
                kind=self._kind,
                start_at_s=start_at_s,
                end_at_s=end_at_s,
                flop=self._work.flop * share,
                memory_bytes=self._work.memory_bytes * share,
                energy_j=compute_energy_j(self._device.profile, end_at_s - start_at_s),
                cut=cut,
            )
        )
