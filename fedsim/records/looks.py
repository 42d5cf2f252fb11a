"""Looks at questions that are only measured: the one reader of what was found, when, and what had been spent by then."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsim.records.run import Run


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found, and what the run had spent until then.

    Attributes:
        version: of the policy.
        value: of the measure.
        wire_bytes: bytes on the wire, both ways.
        paper_bytes: the paper's account.
        virtual_s: virtual time of the look.
        updates: optimiser steps.
        trained: questions (of averaging: modules) in all those steps.
    """

    version: int
    value: float
    wire_bytes: int
    paper_bytes: int
    virtual_s: float
    updates: int
    trained: int = 0


def looks(run: Run, measure: str = "greedy", split: str = "validation") -> tuple[Look, ...]:
    """A run's looks at a set of questions in which something was measured, in order; none in timing fidelity.

    Args:
        run: which.
        measure: ``greedy``, ``pass_at_1`` or ``pass_at_8``: a share of the questions.
        split: ``validation``, ``test``, or the name of an extra set.
    """
    import polars as pl

    trained = [0, *accumulate(run.records["updates"]["num_groups"])]
    counted = run.metrics.fill_nan(None).with_columns(updates=(pl.col("event") == "update").cum_sum())
    rows = counted.filter(pl.col("event") == "evaluation", pl.col("split") == split).drop_nulls(measure)
    return tuple(
        Look(
            version=row["policy_version"],
            value=row[measure],
            wire_bytes=row["wire_up_bytes"] + row["wire_down_bytes"],
            paper_bytes=row["paper_up_bytes"],
            virtual_s=row["at_s"],
            updates=row["updates"],
            trained=trained[row["updates"]],
        )
        for row in rows.iter_rows(named=True)
    )
