"""Straggler policies against closed forms, for request times that are exponential with mean 1.

Every bound is four standard errors of the sample mean, which a right policy misses with probability 6e-5; draws are keyed, so a
test that passes once passes always.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fedsim.errors import ClientDropped
from fedsim.federation.handlers import Hurry
from fedsim.federation.stragglers.policies import StragglerConfig, Stragglers
from fedsim.sim import clock, streams

MANY = 2000


class Outcome:
    """What every one of many collections took and brought, and how many were asked."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.answered: list[int] = []
        self.num_asked = 0


def simulate(
    config: StragglerConfig, chosen: int, spares: int = 0, *, loss: float = 0.0, number: int = MANY
) -> Outcome:
    """Collect again and again; a request ends after Exp(1) and is then lost with probability ``loss``."""
    outcome = Outcome()

    async def main() -> None:
        now_s = asyncio.get_running_loop().time
        stragglers = Stragglers(config, now_s)
        for trial in range(number):

            async def ask(client_id: int, hurry: Hurry | None, trial: int = trial) -> int:
                outcome.num_asked += 1
                await asyncio.sleep(streams.exponential(1.0, "reply time", trial, client_id))
                if streams.uniform("lost", trial, client_id) < loss:
                    raise ClientDropped("compute")
                return client_id

            begun_s = now_s()
            replies = await stragglers.collect(ask, range(chosen), range(chosen, chosen + spares))
            outcome.seconds.append(now_s() - begun_s)
            outcome.answered.append(len(replies))

    clock.run(main())
    return outcome


def agrees(sample: Sequence[float], mean: float, sd: float | None = None) -> bool:
    """Within four standard errors."""
    error = (statistics.stdev(sample) if sd is None else sd) / math.sqrt(len(sample))
    return abs(statistics.fmean(sample) - mean) < 4 * error


def order_statistic(k: int, n: int) -> tuple[float, float]:
    """Mean and deviation of the k-th of n: sum over i < k of 1/(n - i), and of 1/(n - i)^2."""
    terms = [1 / (n - i) for i in range(k)]
    return sum(terms), math.sqrt(sum(term * term for term in terms))


def how(policy: str, **keys: Any) -> StragglerConfig:
    return StragglerConfig(policy=policy, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "chosen", "spares", "k", "n"),
    [
        (how("wait_all"), 5, 0, 5, 5),
        (how("quorum", quorum=3), 5, 0, 3, 5),
        (how("quorum", quorum=1), 4, 0, 1, 4),
        (how("over_select", extra=3), 2, 3, 2, 5),
        (how("over_select", extra=1), 4, 3, 4, 5),
    ],
)
def test_waiting_for_k_of_n_takes_the_kth_order_statistic(
    config: StragglerConfig, chosen: int, spares: int, k: int, n: int
) -> None:
    outcome = simulate(config, chosen, spares)
    mean, sd = order_statistic(k, n)
    assert agrees(outcome.seconds, mean, sd)
    assert (set(outcome.answered), outcome.num_asked) == ({k}, n * MANY)


def test_the_grace_after_a_quorum_brings_each_of_the_others_with_the_chance_that_it_comes_in_time() -> None:
    """By lack of memory each of the n - k others still needs Exp(1) at the quorum: it is in time with 1 - e^-g."""
    outcome = simulate(how("quorum", quorum=2, grace="500 ms"), 5)
    share = -math.expm1(-0.5)
    assert agrees(
        [answered - 2 for answered in outcome.answered], 3 * share, math.sqrt(3 * share * (1 - share))
    )


def test_a_deadline_cuts_the_wait_and_the_replies_alike() -> None:
    """One client: it answers by d with 1 - e^-d, and E[min(X, d)] is the same number."""
    outcome = simulate(how("deadline", deadline="1.2 s"), 1)
    share = -math.expm1(-1.2)
    assert agrees(outcome.answered, share, math.sqrt(share * (1 - share)))
    assert agrees(outcome.seconds, share)


@pytest.mark.parametrize("after_s", [0.25, 1.0, 2.0])
def test_hedging_takes_the_minimum_of_the_pair_from_the_hedge_on(after_s: float) -> None:
    """E[min(X, h + Y)] = 1 - e^-h + e^-h / 2, and a spare is asked with probability e^-h."""
    outcome = simulate(how("hedged", hedge_after=f"{after_s} s"), 1, 1)
    silent = math.exp(-after_s)
    assert agrees(outcome.seconds, 1 - silent / 2)
    assert abs(outcome.num_asked / MANY - 1 - silent) < 4 * math.sqrt(silent * (1 - silent) / MANY)
    assert set(outcome.answered) == {1}


@pytest.mark.parametrize("replacements", [1, 3])
def test_replacement_fills_a_place_unless_everybody_in_line_is_lost(replacements: int) -> None:
    """Loss p, r replacements: filled with 1 - p^(r+1); the expected number asked, and time, is (1 - p^(r+1)) / (1 - p)."""
    loss = 0.6
    outcome = simulate(how("replace", replacements=replacements), 1, replacements, loss=loss)
    filled = 1 - loss ** (replacements + 1)
    assert agrees(outcome.answered, filled, math.sqrt(filled * (1 - filled)))
    assert agrees(outcome.seconds, filled / (1 - loss))


def test_without_replacement_a_loss_is_a_loss() -> None:
    outcome = simulate(how("wait_all"), 3, 3, loss=0.6)
    assert agrees(outcome.answered, 3 * 0.4, math.sqrt(3 * 0.4 * 0.6))


def test_an_adaptive_deadline_settles_where_its_quantile_says_and_stays_there() -> None:
    """D = f Q_q with Q_q = -ln(1 - q), so (1 - q)^f come late: 3.2% at q = 0.9 and f = 1.5.

    The quantile of 1000 draws has a deviation of 0.095, so D one of 0.14, alike for as long as the window lasts: over 10
    windows the share's deviation is 0.14 / sqrt(10) of itself, beside the binomial one.
    """
    windows, history = 10, 1000
    config = how("adaptive", quantile=0.9, factor=1.5, history=history)
    outcome = simulate(config, 1, number=(windows + 1) * history)
    late = [1 - answered for answered in outcome.answered[history:]]
    expected = 0.1**1.5
    error = math.hypot(0.142 * expected / math.sqrt(windows), math.sqrt(expected / len(late)))
    assert abs(statistics.fmean(late) - expected) < 4 * error
    first, last = late[: 4 * history], late[-4 * history :]
    assert abs(statistics.fmean(first) - statistics.fmean(last)) < 4 * error * math.sqrt(5)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (lambda: how("over_select", extra=2), lambda: how("over_select", extra=1)),
        (lambda: how("quorum", quorum=2), lambda: how("quorum", quorum=3)),
        (lambda: how("hedged", hedge_after="200 ms"), lambda: how("wait_all")),
        (lambda: how("deadline", deadline="1 s"), lambda: how("wait_all")),
    ],
)
def test_with_the_same_luck_a_more_impatient_policy_is_never_slower(
    better: Callable[[], StragglerConfig], worse: Callable[[], StragglerConfig]
) -> None:
    fast, slow = (simulate(config(), 3, 3, number=300).seconds for config in (better, worse))
    assert all(a <= b + 1e-6 for a, b in zip(fast, slow, strict=True))
    assert statistics.fmean(fast) < statistics.fmean(slow) - 0.05


def test_the_same_luck_gives_the_same_collections() -> None:
    config = how("hedged", hedge_after="500 ms", deadline="3 s")
    twice = [simulate(config, 3, 3, loss=0.3, number=200) for _ in range(2)]
    assert (twice[0].seconds, twice[0].answered) == (twice[1].seconds, twice[1].answered)
