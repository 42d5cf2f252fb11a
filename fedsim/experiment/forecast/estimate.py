"""What a run will roughly take, before it is run: its first updates are played with stand-ins and extrapolated."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedsim.config.validation import located
from fedsim.errors import OutOfTime
from fedsim.experiment.checks import refuse_early
from fedsim.experiment.components import load_components
from fedsim.experiment.prepared import Prepared
from fedsim.experiment.probe_run import ShortSimulation
from fedsim.progress import SilentProgress
from fedsim.records.log import RecordLog
from fedsim.records.rows import Outcome, Transfer, Update
from fedsim.sim.clock import run as run_on_virtual_time

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario

_FEWEST_UPDATES, _MOST_UPDATES = 6, 40
_GROUPS = 600  # played at most where updates are large: half a second
BUDGET_S = 10.0
"""Real time that an estimate may take."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will roughly take, extrapolated from its first updates with stand-in models.

    ``updates`` is how many the figures are for: where the stop conditions end the run, without those on accuracy
    and wall time, which nobody can foresee. ``expected_staleness`` is ``in_flight / groups_per_update`` (None
    where nothing is in flight across updates).

    ``played`` of ``to_play`` updates were played before the real time for it was over. Two at least are needed to tell how it
    goes on; with fewer, the figures are of what was played, and ``updates`` is how many that were.
    """

    updates: int
    requests: int
    wire_up_bytes: float
    wire_down_bytes: float
    paper_up_bytes: float
    virtual_s: float
    expected_staleness: float | None
    played: int
    to_play: int

    @property
    def why_not_extrapolated(self) -> str:
        """Why the figures are not for the whole run; empty where they are."""
        if self.played > 1 or self.played == self.to_play:
            return ""
        return f"the time for it was over after {self.played} of {self.to_play} updates (--budget)"


@located
def estimate(scenario: Scenario, *, budget_s: float = BUDGET_S) -> Estimate:
    """Simulate the first updates with stand-ins (no torch) and extrapolate to where the scenario stops.

    What the first half of them took, with the probing and the filling of queues, counts once, and so do base models that are
    shipped; what the second half took on average counts for all others. Queues at slow devices may still grow then, so
    virtual time tends to be underrated.

    Args:
        scenario: what would be run.
        budget_s: real seconds after which no more is played; whatever can be refused is refused in any case.

    Raises:
        FederationError, Deadlock: already the first updates cannot happen.
        LimitExceeded: nor do they within the scenario's limits.
        InputError: a setting asks for the impossible, or an own question or device file is wrong.
    """
    return estimate_prepared(refuse_early(scenario), budget_s)


def estimate_prepared(prepared: Prepared, budget_s: float = BUDGET_S) -> Estimate:
    """`estimate` of what was checked already."""
    scenario = prepared.scenario
    wanted, until_wall_s = scenario.stop.updates, time.monotonic() + budget_s
    to_play = min(_num_played(scenario), wanted or _MOST_UPDATES)
    stop = scenario.stop.model_copy(update={"updates": to_play})
    log, limits, silent = RecordLog(), scenario.limits, SilentProgress()
    short = prepared.varied(stop=stop, fidelity="timing")
    with silent.phase("estimate") as phase:
        simulation = ShortSimulation(short, load_components(short, silent), log, phase)
        try:
            ending = run_on_virtual_time(
                simulation.main,
                max_virtual_s=limits.virtual,
                max_events=limits.events,
                until_wall_s=until_wall_s,
            )
            stopped_by, virtual_s = ending.stopped_by, ending.virtual_s
        except OutOfTime:
            stopped_by, virtual_s = "budget", simulation.federation.now_s()
    ends_s = [row.at_s for row in log.of(Update)]
    played = _totals(log, np.inf) | {"virtual_s": virtual_s}
    updates = float(len(ends_s))
    if stopped_by in ("updates", "budget") and len(ends_s) > 1:
        middle = len(ends_s) // 2
        early, late = (_totals(log, at_s, _shipments(log)) for at_s in (ends_s[middle - 1], ends_s[-1]))
        each = {name: (late[name] - early[name]) / (len(ends_s) - middle) for name in early}
        more = [wanted - updates] if wanted else []
        if scenario.stop.virtual is not None and each["virtual_s"] > 0:
            more.append((scenario.stop.virtual - played["virtual_s"]) / each["virtual_s"])
        each_wire = each["wire_up_bytes"] + each["wire_down_bytes"]
        if scenario.stop.wire_bytes is not None and each_wire > 0:
            wire = played["wire_up_bytes"] + played["wire_down_bytes"]
            more.append((scenario.stop.wire_bytes - wire) / each_wire)
        num_more = max(0.0, min(more, default=0.0))
        updates += num_more
        played = {name: total + num_more * each[name] for name, total in played.items()}
    schedule = getattr(scenario.protocol, "update", None)
    return Estimate(
        updates=round(updates),
        requests=round(played["requests"]),
        wire_up_bytes=played["wire_up_bytes"],
        wire_down_bytes=played["wire_down_bytes"],
        paper_up_bytes=played["paper_up_bytes"],
        virtual_s=played["virtual_s"],
        expected_staleness=None if schedule is None else schedule.expected_staleness,
        played=len(ends_s),
        to_play=to_play if stopped_by == "budget" else len(ends_s),
    )


def _num_played(scenario: Scenario) -> int:
    """How many updates are played: fewer where one takes many groups, since an estimate should take a moment only."""
    schedule = getattr(scenario.protocol, "update", None)
    groups = 60 if schedule is None else schedule.groups_per_step
    return min(_MOST_UPDATES, max(_FEWEST_UPDATES, _GROUPS // groups))


def _shipments(log: RecordLog) -> frozenset[int]:
    """Requests that brought a client its base model."""
    return frozenset(row.request_id for row in log.of(Outcome) if row.purpose == "setup")


def _totals(log: RecordLog, until_s: float, without: Collection[int] = ()) -> dict[str, float]:
    """What requests and transfers that had ended by an instant sum up to, but for some requests."""
    transfers = [row for row in log.of(Transfer) if row.end_at_s <= until_s and row.request_id not in without]
    return {
        "virtual_s": until_s,
        "requests": float(
            sum(row.ended_at_s <= until_s and row.request_id not in without for row in log.of(Outcome))
        ),
        "wire_up_bytes": float(sum(row.wire_bytes for row in transfers if row.direction == "up")),
        "wire_down_bytes": float(sum(row.wire_bytes for row in transfers if row.direction == "down")),
        "paper_up_bytes": float(sum(row.paper_bytes for row in transfers)),
    }
