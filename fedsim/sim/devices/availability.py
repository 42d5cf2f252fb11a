"""When devices are there: pure functions of (seed, client, virtual time).

An idle device has no process and no event; whoever wants to know asks. Whether a device is on at an instant
never depends on what was asked before. Intervals are half open, [start, end): at the instant of a change the
new state holds.

A device is there when its own kind of availability says so (always, sessions, a daily cycle, measured phones, a trace), its
region has no outage, it has joined, and it has not left for good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from fedsim.sim.devices.availability_config import (
    AlwaysConfig,
    DailyConfig,
    PhonesConfig,
    PresenceConfig,
    SessionsConfig,
    TraceConfig,
)
from fedsim.sim.devices.availability_trace import Trace
from fedsim.sim.devices.outages import Membership, Outages
from fedsim.sim.devices.phones import Phones
from fedsim.sim.devices.presence import AllOf, AlwaysOn, StatedAvailability
from fedsim.sim.devices.sessions import Daily, Sessions


def availability(
    config: PresenceConfig,
    seed: int,
    folder: Path = Path(),
    scores: Sequence[float] | None = None,
    horizon_s: float = math.inf,
) -> StatedAvailability:
    """The availability that a scenario asks for.

    Args:
        config: the scenario's ``availability``.
        seed: root of the draws.
        folder: where a relative trace file is looked up (the scenario's folder).
        scores: one standard normal score per client where ``correlate`` deals presence; the highest is there least.
        horizon_s: the instant at which the run is over in any case.

    Raises:
        DataFileError: the trace file is missing or wrong.
    """
    sources: list[StatedAvailability] = []
    if config.join_within is not None or config.mean_stay is not None:
        sources.append(Membership(config.join_within, config.mean_stay, seed))
    num_quick = len(sources)
    if config.outage is not None:
        sources.append(Outages(config.outage, seed))
    sources.append(_own(config, seed, folder, scores))
    return sources[0] if len(sources) == 1 else AllOf(sources, horizon_s, num_quick)


def differs(config: PresenceConfig) -> bool:
    """Whether devices differ in their share of time, so that it can be dealt by ownership."""
    return isinstance(config, PhonesConfig | TraceConfig) or config.spread > 0


def _own(
    config: PresenceConfig, seed: int, folder: Path, scores: Sequence[float] | None
) -> StatedAvailability:
    match config:
        case SessionsConfig():
            return Sessions(config, seed, scores)
        case DailyConfig():
            return Daily(config, seed, scores)
        case PhonesConfig():
            return Phones(config, seed, scores)
        case TraceConfig():
            return Trace(config, folder, scores)
        case AlwaysConfig():
            return AlwaysOn()
    raise TypeError(f"no availability of kind {type(config).__name__}")
