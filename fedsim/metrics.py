"""Metrics over virtual time, counted from the records: what the curves in a paper are drawn from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from fedsim.records import Evaluation, Outcome, RecordLog, Transfer, Update

if TYPE_CHECKING:
    import polars as pl

METRIC_COLUMNS: dict[str, Any] = {
    "at_s": float, "event": str, "policy_version": int, "split": str, "reward_mean": float, "greedy": float,
    "pass_at_1": float, "pass_at_8": float, "entropy": float, "kl_to_initial": float, "loss": float,
    "clip_fraction": float, "grad_norm": float, "staleness_mean": float, "wire_up_bytes": int,
    "wire_down_bytes": int, "paper_up_bytes": int, "requests_ended": int, "dropped": int, "in_flight": int,
}  # fmt: skip


def metrics_frame(log: RecordLog) -> pl.DataFrame:
    """Metrics over virtual time: one row per optimiser step (``update``) and per ``evaluation``, in order.

    Bytes are cumulative over the transfers that ended by ``at_s``; ``requests_ended`` and ``dropped``
    (every status other than ok, late and over_selected) likewise; ``in_flight`` are requests sent and not
    ended at that instant. A column that an event does not have, or whose value is not a number, is null.
    """
    import polars as pl

    clock = _Counters(log)
    events: list[Update | Evaluation] = [*log.of(Update), *log.of(Evaluation)]
    events.sort(key=lambda event: (event.at_s, event.policy_version, isinstance(event, Evaluation)))
    rows = []
    for event in events:
        known = {name: getattr(event, name) for name in METRIC_COLUMNS if hasattr(event, name)}
        kind = "evaluation" if isinstance(event, Evaluation) else "update"
        rows.append(known | {"event": kind} | clock.at(event.at_s))
    return pl.DataFrame(rows, schema=METRIC_COLUMNS).fill_nan(None)


class _Counters:
    """Cumulative counts over virtual time, by binary search in sorted instants."""

    def __init__(self, log: RecordLog) -> None:
        transfers = sorted(log.of(Transfer), key=lambda row: row.end_at_s)
        self._transferred_at_s = [row.end_at_s for row in transfers]
        self._bytes = {
            "wire_up_bytes": _cumulative(row.wire_bytes if row.direction == "up" else 0 for row in transfers),
            "wire_down_bytes": _cumulative(
                row.wire_bytes if row.direction == "down" else 0 for row in transfers
            ),
            "paper_up_bytes": _cumulative(row.paper_bytes for row in transfers),
        }
        outcomes = log.of(Outcome)
        self._sent_at_s = sorted(row.sent_at_s for row in outcomes)
        self._ended_at_s = sorted(row.ended_at_s for row in outcomes)
        kept = ("ok", "late", "over_selected")
        self._dropped_at_s = sorted(row.ended_at_s for row in outcomes if row.status not in kept)

    def at(self, instant_s: float) -> dict[str, int]:
        num_transfers = bisect_right(self._transferred_at_s, instant_s)
        ended = bisect_right(self._ended_at_s, instant_s)
        return {name: sums[num_transfers] for name, sums in self._bytes.items()} | {
            "requests_ended": ended,
            "dropped": bisect_right(self._dropped_at_s, instant_s),
            "in_flight": bisect_right(self._sent_at_s, instant_s) - ended,
        }


def _cumulative(amounts: Iterable[int]) -> list[int]:
    return list(accumulate(amounts, initial=0))
