"""Requests against closed forms: queues at a device, Little's law, and what a constant hazard costs.

Seeds are fixed, so these tests pass or fail for good; the intervals say how far a right simulation may be off by luck. Means
of correlated numbers are compared by batch means: 25 batches, two-sided t with 24 degrees of freedom, 3.5 standard errors
(0.2%). Means of independent numbers by 4 standard errors of a normal law (0.006%).

References:
    Kleinrock, Queueing Systems, volume 1 (1975): M/M/1 (3.2), Little's law (2.1), Pollaczek and Khinchine's mean (5.6).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from fedsim.federation.handlers import Subject
from fedsim.sim import streams
from fedsim.sim.devices.config import DropoutConfig
from tests.samples.worlds import INSTANT, ROUND, SmallWorld, ask, small_world

NUM_BATCHES, BATCH = 25, 400
ARRIVALS_PER_S = 0.5


async def stream_of_tasks(world: SmallWorld, *, law: str) -> list[tuple[float, int]]:
    """Poisson arrivals at one device, mean service 1 s; returns the number in the system, looked at every 2 s."""
    seen: list[tuple[float, int]] = []

    async def look() -> None:
        while True:
            await asyncio.sleep(2.0)
            seen.append((world.loop.time(), world.federation.num_open_requests))

    looking = asyncio.ensure_future(look())
    requests = []
    for n in range(NUM_BATCHES * BATCH):
        await asyncio.sleep(streams.exponential(1 / ARRIVALS_PER_S, "arrival", n))
        service_s = 1.0 if law == "deterministic" else streams.exponential(1.0, "service", n)
        requests.append(
            asyncio.ensure_future(world.federation.clients[0].request(ask(service_s), Subject(draw=n)))
        )
    await asyncio.gather(*requests)
    looking.cancel()
    return seen


def batch_means(numbers: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error, from 25 batches."""
    size = len(numbers) // NUM_BATCHES
    means = [math.fsum(numbers[i * size : (i + 1) * size]) / size for i in range(NUM_BATCHES)]
    mean = math.fsum(means) / NUM_BATCHES
    variance = math.fsum((one - mean) ** 2 for one in means) / (NUM_BATCHES - 1)
    return mean, math.sqrt(variance / NUM_BATCHES)


@pytest.mark.parametrize(
    ("law", "second_moment", "most_error_s"), [("exponential", 2.0, 0.2), ("deterministic", 1.0, 0.1)]
)
async def test_sojourn_at_a_device_is_that_of_a_queue_first_come_first_served(
    law: str, second_moment: float, most_error_s: float
) -> None:
    """W = 1/mu + lambda E[S^2] / (2 (1 - rho)): 2 s for M/M/1 and 1.5 s for M/D/1 at half load."""
    world = small_world([INSTANT])
    seen = await stream_of_tasks(world, law=law)
    expected_s = 1.0 + ARRIVALS_PER_S * second_moment / (2 * (1 - ARRIVALS_PER_S))
    mean_s, error_s = batch_means([row.ended_at_s - row.sent_at_s for row in world.outcomes])
    assert abs(mean_s - expected_s) < 3.5 * error_s and error_s < most_error_s
    # Little's law, L = lambda W, with L from looking at the system now and then.
    mean_number, number_error = batch_means([float(number) for _, number in seen])
    assert abs(mean_number - ARRIVALS_PER_S * expected_s) < 3.5 * number_error
    # On every path the area under that number is the sum of the sojourns: an identity, up to rounding.
    changes = [(row.sent_at_s, 1) for row in world.outcomes] + [
        (row.ended_at_s, -1) for row in world.outcomes
    ]
    area, number, last_s = 0.0, 0, 0.0
    for at_s, change in sorted(changes):
        area += number * (at_s - last_s)
        number, last_s = number + change, at_s
    assert number == 0
    assert area == pytest.approx(math.fsum(row.ended_at_s - row.sent_at_s for row in world.outcomes))
    await world.settle()


# A request on ROUND without delays: down for 1 s, computed for 2 s, up for 5 s; 100 and 50 bytes.
DOWN_S, COMPUTE_S, UP_S = 1.0, 2.0, 5.0
NUM_REQUESTS = 2000


async def under_hazard(hazard: object) -> SmallWorld:
    """As many devices as requests, each asked once."""
    dropout = DropoutConfig.model_validate({"hazard": hazard})
    world = small_world([replace(ROUND, rtt_s=0.0)] * NUM_REQUESTS, dropout=dropout, seed=5)
    await world.federation.broadcast(ask(COMPUTE_S), range(NUM_REQUESTS))
    await world.settle()
    return world


async def test_expected_wasted_bytes_and_seconds_under_a_constant_hazard() -> None:
    """With T ~ Exp(h): down bytes r_d T on their way, all Q of them afterwards, and r_u (T - D) while the reply goes up.

    E[waste] = r_d int_0^d t h e^(-ht) dt + Q (e^(-hd) - e^(-hF)) + r_u int_D^F (t - D) h e^(-ht) dt
    """
    rate = 0.1
    world = await under_hazard(f"{rate} /s")
    wasted: dict[int, int] = dict.fromkeys((row.request_id for row in world.outcomes), 0)
    for row in world.transfers(fate="cut"):
        wasted[row.request_id] += row.wire_bytes
    starts_up_s = DOWN_S + COMPUTE_S
    ends_s = starts_up_s + UP_S

    def ramp(length_s: float) -> float:
        """The integral of t h e^(-ht) from 0 to a length."""
        return (1 - math.exp(-rate * length_s) * (1 + rate * length_s)) / rate

    expected = (
        100.0 * ramp(DOWN_S)
        + 100.0 * (math.exp(-rate * DOWN_S) - math.exp(-rate * ends_s))
        + 10.0 * math.exp(-rate * starts_up_s) * ramp(UP_S)
    )
    assert_mean(list(wasted.values()), expected)
    # Seconds computed for nothing: up to the failure where it comes then, all of them where the upload fails.
    lost = {row.request_id for row in world.outcomes if row.status == "dropped"}
    wasted_s = [0.0] * NUM_REQUESTS
    for compute in world.computes:
        if compute.request_id in lost:
            wasted_s[compute.request_id] = compute.end_at_s - compute.start_at_s
    upload_fails = math.exp(-rate * starts_up_s) * (1 - math.exp(-rate * UP_S))
    assert_mean(wasted_s, math.exp(-rate * DOWN_S) * ramp(COMPUTE_S) + COMPUTE_S * upload_fails)


def assert_mean(numbers: Sequence[float], expected: float) -> None:
    """The mean of independent numbers, within 4 standard errors, which are less than 15% of it."""
    mean = math.fsum(numbers) / len(numbers)
    error = math.sqrt(math.fsum((one - mean) ** 2 for one in numbers) / (len(numbers) - 1) / len(numbers))
    assert abs(mean - expected) < 4 * error < 0.15 * expected


@pytest.mark.parametrize(
    ("download", "compute", "upload"), [(0.3, 0.1, 0.05), (0.0, 0.4, 0.0), (0.5, 0.0, 0.1)]
)
async def test_requests_fail_in_each_phase_as_its_hazard_says(
    download: float, compute: float, upload: float
) -> None:
    """P(lost in phase i) = exp(-sum of h_j d_j over the phases before) (1 - exp(-h_i d_i)); binomial, 4 standard errors."""
    hazards = {"download": f"{download} /s", "compute": f"{compute} /s", "upload": f"{upload} /s"}
    world = await under_hazard(hazards)
    reached = 1.0
    for phase, rate, length_s in (
        ("down", download, DOWN_S),
        ("compute", compute, COMPUTE_S),
        ("up", upload, UP_S),
    ):
        expected = reached * -math.expm1(-rate * length_s)
        reached *= math.exp(-rate * length_s)
        share = sum(row.phase == phase for row in world.outcomes) / NUM_REQUESTS
        assert abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / NUM_REQUESTS)
    share = sum(row.status == "ok" for row in world.outcomes) / NUM_REQUESTS
    assert abs(share - reached) <= 4 * math.sqrt(reached * (1 - reached) / NUM_REQUESTS)


async def test_waiting_for_the_processor_counts_as_computing() -> None:
    """The second of two questions waits 2 s behind the first: it survives down, queue and computation with e^(-4h)."""
    rate, pairs = 0.2, 1000
    dropout = DropoutConfig.model_validate({"hazard": {"compute": f"{rate} /s"}})
    world = small_world([INSTANT] * pairs, dropout=dropout, seed=8)
    requests = [client.request(ask(2.0), Subject(attempt=n)) for client in world.federation for n in range(2)]
    await asyncio.gather(*requests, return_exceptions=True)
    await world.settle()
    survived = [row.attempt for row in world.outcomes if row.status == "ok"]
    first_share, second_share = survived.count(0) / pairs, survived.count(1) / pairs
    assert abs(first_share - math.exp(-2 * rate)) < 4 * math.sqrt(0.25 / pairs)
    # Where the first was lost after t < 2 s, the second waited for t only: E[e^(-h min(T, 2))] e^(-2h).
    waited = math.exp(-4 * rate) + 0.5 * (1 - math.exp(-4 * rate))
    assert abs(second_share - waited * math.exp(-2 * rate)) < 4 * math.sqrt(0.25 / pairs)
