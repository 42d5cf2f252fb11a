"""Metrics over virtual time, counted from the records: what the curves in a paper are drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsim.records.log import Chunk, RecordLog
from fedsim.records.rows import Evaluation, Outcome, Transfer, Update

if TYPE_CHECKING:
    import polars as pl

METRIC_COLUMNS: dict[str, Any] = {
    "at_s": float, "event": str, "policy_version": int, "split": str, "reward_mean": float, "greedy": float,
    "pass_at_1": float, "pass_at_8": float, "entropy": float, "kl_to_initial": float, "loss": float,
    "clip_fraction": float, "grad_norm": float, "staleness_mean": float, "wire_up_bytes": int,
    "wire_down_bytes": int, "paper_up_bytes": int, "requests_ended": int, "dropped": int, "in_flight": int,
}  # fmt: skip


class Metrics:
    """One row per optimiser step (``update``) and per ``evaluation``, in order; counted from rows that come in pieces.

    Bytes are cumulative over the transfers that ended by ``at_s``; ``requests_ended`` and ``dropped``
    (every status other than ok, late and over_selected) likewise; ``in_flight`` are requests sent and not
    ended at that instant. A column that an event does not have, or whose value is not a number, is null.

    Args:
        log: where the events stand.
    """

    def __init__(self, log: RecordLog) -> None:
        self._events: list[Update | Evaluation] = []
        for chunk in log.chunks(Update, Evaluation):
            self._events += [*chunk.of(Update), *chunk.of(Evaluation)]
        self._events.sort(key=lambda event: (event.at_s, event.policy_version, isinstance(event, Evaluation)))
        self._at_s = np.array([event.at_s for event in self._events], dtype=float)
        # Per column, what happened after the event before this one and not after this one ``[E + 1]``.
        self._amounts = {
            name: np.zeros(len(self._events) + 1, dtype=np.int64)
            for name in (
                "wire_up_bytes",
                "wire_down_bytes",
                "paper_up_bytes",
                "requests_ended",
                "dropped",
                "sent",
            )
        }

    def add(self, chunk: Chunk) -> None:
        """Count the next rows."""
        transfers, outcomes = chunk.of(Transfer), chunk.of(Outcome)
        if transfers:
            place = self._places([row.end_at_s for row in transfers])
            wire_bytes = np.array([row.wire_bytes for row in transfers], dtype=np.int64)
            up = np.array([row.direction == "up" for row in transfers])
            self._count("wire_up_bytes", place[up], wire_bytes[up])
            self._count("wire_down_bytes", place[~up], wire_bytes[~up])
            self._count(
                "paper_up_bytes", place, np.array([row.paper_bytes for row in transfers], dtype=np.int64)
            )
        if outcomes:
            place = self._places([row.ended_at_s for row in outcomes])
            lost = np.array([row.status not in ("ok", "late", "over_selected") for row in outcomes])
            self._count("requests_ended", place, 1)
            self._count("dropped", place[lost], 1)
            self._count("sent", self._places([row.sent_at_s for row in outcomes]), 1)

    def frame(self) -> pl.DataFrame:
        """The metrics of all rows so far."""
        import polars as pl

        counts = {name: np.cumsum(amounts).tolist() for name, amounts in self._amounts.items()}
        counts["in_flight"] = [
            sent - ended for sent, ended in zip(counts.pop("sent"), counts["requests_ended"], strict=True)
        ]
        rows = []
        for place, event in enumerate(self._events):
            known = {name: getattr(event, name) for name in METRIC_COLUMNS if hasattr(event, name)}
            kind = "evaluation" if isinstance(event, Evaluation) else "update"
            rows.append(known | {"event": kind} | {name: column[place] for name, column in counts.items()})
        return pl.DataFrame(rows, schema=METRIC_COLUMNS).fill_nan(None)

    def _places(self, instants_s: list[float]) -> NDArray[np.intp]:
        """Of each instant, the first event that is not before it."""
        return np.searchsorted(self._at_s, instants_s, side="left")

    def _count(self, name: str, place: NDArray[np.intp], amount: NDArray[np.int64] | int) -> None:
        np.add.at(self._amounts[name], place, amount)
