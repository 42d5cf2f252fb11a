"""Choosing M clients for a question: the ranking that every rule shares, and the controls.

A rule returns client ids in order of preference. Ties break by a draw keyed with (seed, question, client),
so a client's chances do not depend on its number, on who else is there, or on when the question is asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from fedsim.sim import streams

FloatArray = npt.NDArray[np.float64]


def best_experts(
    scores: FloatArray, question_id: int, num_experts: int, eligible: Collection[int], seed: int
) -> tuple[int, ...]:
    """C(x): the ``num_experts`` eligible clients of highest score, best first (eq. 6).

    A client whose score is NaN is not eligible. Fewer than ``num_experts`` come back when fewer are
    eligible, and none when nobody is.

    Args:
        scores: one per client, ``[K]``.
        question_id: the question's key for tie-breaking draws.
        num_experts: M, at least 1.
        eligible: ids of the clients that may be asked.
        seed: of the run.

    Raises:
        ValueError: ``num_experts`` is less than one.
    """
    if num_experts < 1:
        raise ValueError(f"num_experts is {num_experts}; must be at least 1")
    by_score: dict[float, list[int]] = defaultdict(list)
    for client in set(eligible):
        score = float(scores[client])
        if score == score:  # not NaN
            by_score[score].append(client)
    chosen: list[int] = []
    for score in sorted(by_score, reverse=True):
        equals = by_score[score]
        if len(equals) > 1:  # only they need a draw
            equals.sort(key=lambda client: (streams.uniform(seed, "tie", question_id, client), client))
        chosen += equals
        if len(chosen) >= num_experts:
            break
    return tuple(chosen[:num_experts])


def competent_enough(chosen: Sequence[int], scores: FloatArray, floor: float) -> tuple[int, ...]:
    """The chosen clients whose score is at least ``floor`` times the best known one's, in the same order.

    The best known client counts whether or not it can be asked now. Under label skew a domain may have one owner only; the
    second best then knows next to nothing, and its confident noise costs bytes and spoils the group, most of all while the
    owner is away. With ``floor`` 0 everybody stays (the paper); nobody is left when no competent client can be asked, or when
    the best one that is known gets nothing right.

    Args:
        chosen: client ids, best first.
        scores: one per client, ``[K]``, NaN where unknown.
        floor: share of the best score, in [0, 1].
    """
    if not floor:
        return tuple(chosen)
    known = scores[~np.isnan(scores)]
    least = floor * float(known.max(initial=0.0))
    return tuple(client for client in chosen if scores[client] >= least > 0)


def random_experts(
    question_id: int, num_experts: int, eligible: Collection[int], seed: int
) -> tuple[int, ...]:
    """Control: ``num_experts`` (0: nobody) eligible clients by a keyed draw, each as likely as any other."""
    if not num_experts:
        return ()
    ids = sorted(set(eligible))
    scores = np.full(ids[-1] + 1 if ids else 0, np.nan)
    for client in ids:
        scores[client] = streams.uniform(seed, "random expert", question_id, client)
    return best_experts(scores, question_id, num_experts, ids, seed)


def all_experts(eligible: Collection[int]) -> tuple[int, ...]:
    """Control: every eligible client, in order of id."""
    return tuple(sorted(set(eligible)))
