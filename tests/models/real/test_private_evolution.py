"""Private Evolution: one vote per private row, noise that is calibrated to it, and what the votes do to a population."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.models.interfaces import Samples
from fedsim.models.real import private_evolution
from fedsim.models.real.private_evolution import evolve, histogram, kept_share, resampled
from fedsim.privacy.config import EvolutionConfig
from fedsim.sim import streams

SETTINGS = EvolutionConfig(iterations=4, threshold=1.0)


class Numbers:
    """A public generator of rows ``(x, y)`` with x uniform in 0 to 99; a variation moves x by at most ten."""

    def __init__(self, malformed: float = 0.0) -> None:
        self.malformed = malformed
        self.asked: list[tuple[str, float]] = []

    def random(self, count, key):
        self.asked.append(("random", 0.0))
        return self._spoiled([(str(x), "y") for x in streams.generator(key).integers(100, size=count)], key)

    def vary(self, rows, keep, key):
        self.asked.append(("vary", keep))
        moves = streams.generator(key).integers(-10, 11, size=len(rows)) * (1 - keep)
        return self._spoiled(
            [(str(int(np.clip(int(x) + move, 0, 99))), y) for (x, y), move in zip(rows, moves, strict=True)],
            key,
        )

    def embed(self, rows):
        return np.array([[float(x)] for x, _ in rows])

    def _spoiled(self, rows, key):
        coins = streams.generator(key, "spoiled").random(len(rows))
        return [None if coin < self.malformed else row for row, coin in zip(rows, coins, strict=True)]


points = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=12)


def test_every_private_row_votes_for_its_nearest_sample():
    private = np.array([[0.0], [0.4], [0.6], [9.0]])
    assert histogram(private, np.array([[0.0], [1.0], [5.0]])).tolist() == [2, 1, 1]


@settings(max_examples=200, deadline=None)
@given(points, points, st.tuples(st.integers(-5, 5), st.integers(-5, 5)))
def test_one_more_private_row_changes_the_histogram_by_exactly_one_vote(private, synthetic, added):
    """The sensitivity that the accounting rests on, with ties and equal samples included."""
    at = np.array(synthetic, dtype=float)
    before = histogram(np.array(private, dtype=float), at)
    after = histogram(np.array([*private, added], dtype=float), at)
    change = after - before
    assert change.min() >= 0
    assert change.sum() == change.max() == 1
    assert before.sum() == len(private)


def test_the_votes_of_many_rows_are_those_of_a_plain_loop():
    draws = streams.generator("points")
    private, synthetic = draws.normal(size=(1200, 6)), draws.normal(size=(50, 6))
    loop = Counter(int(((synthetic - row) ** 2).sum(1).argmin()) for row in private)
    assert histogram(private, synthetic).tolist() == [loop[i] for i in range(50)]


def test_resampling_is_in_proportion_to_the_weights_and_uniform_without_any():
    counts = Counter(resampled(np.array([0.0, 1.0, 3.0]), 8000, streams.generator("a")))
    assert counts[0] == 0
    assert counts[2] == pytest.approx(6000, abs=5 * (8000 * 0.75 * 0.25) ** 0.5)
    level = Counter(resampled(np.zeros(4), 8000, streams.generator("b")))
    assert all(abs(level[i] - 2000) < 5 * (8000 * 0.25 * 0.75) ** 0.5 for i in range(4))


def test_without_noise_the_population_moves_to_the_private_rows():
    private = [("20", "y"), ("21", "y"), ("80", "y")] * 20
    made = evolve(Numbers(), private, 60, SETTINGS.model_copy(update={"threshold": 0.0}), 0.0, seed=1)
    found = np.array([int(x) for x, _ in made.rows])
    near = (np.abs(found[:, None] - [20, 21, 80]).min(1) <= 6).mean()
    assert len(made.rows) == 60
    assert near > 0.9
    # Two thirds of the private rows lie around 20.
    assert 0.5 < (found < 50).mean() < 0.85


def test_overwhelming_noise_leaves_nothing_of_the_private_rows():
    """What is released under huge noise is the same in distribution wherever the private rows lie."""
    means = [
        np.mean(
            [int(x) for seed in range(20) for x, _ in evolve(Numbers(), rows, 100, SETTINGS, 1e6, seed).rows]
        )
        for rows in ([("5", "y")] * 30, [("95", "y")] * 30)
    ]
    assert means[0] == pytest.approx(means[1], abs=1e-9)


def test_a_histogram_below_the_threshold_is_resampled_uniformly_and_counted():
    high = SETTINGS.model_copy(update={"threshold": 1e3})
    made = evolve(Numbers(), [("5", "y")] * 3, 40, high, 1.0, seed=1)
    assert made.num_uniform == SETTINGS.iterations
    assert (
        evolve(
            Numbers(), [("5", "y")] * 3, 40, SETTINGS.model_copy(update={"threshold": 0.0}), 0.0, 1
        ).num_uniform
        == 0
    )


def test_malformed_samples_are_thrown_away_and_counted_and_a_malformed_variation_leaves_its_parent():
    made = evolve(Numbers(malformed=0.3), [("50", "y")] * 10, 100, SETTINGS, 0.5, seed=2)
    assert len(made.rows) == 100
    assert None not in made.rows
    assert [len(batch.rows) + batch.num_malformed for batch in made.generated] == [100] * (
        1 + SETTINGS.iterations
    )
    assert 0.2 < sum(batch.num_malformed for batch in made.generated) / 500 < 0.4
    # Voted on are the first samples that were well formed, and then whole populations, kept parents included.
    assert made.voted_on[0] == made.generated[0].rows
    assert [len(rows) for rows in made.voted_on[1:]] == [100] * (SETTINGS.iterations - 1)


def test_each_iteration_adds_fresh_noise_of_the_stated_deviation_and_takes_off_the_threshold(monkeypatch):
    """Where every sample has 1,000 votes, none is lost at zero: what is left of them is the noise."""
    weights = []

    def watched(found, count, draws):
        weights.append(found)
        return resampled(found, count, draws)

    monkeypatch.setattr(private_evolution, "resampled", watched)
    monkeypatch.setattr(private_evolution, "histogram", lambda private, at: np.full(len(at), 1000))
    evolve(Numbers(), [("5", "y")], 4000, SETTINGS.model_copy(update={"threshold": 2.0}), 3.0, seed=1)
    assert len(weights) == SETTINGS.iterations
    for found in weights:
        assert found.mean() == pytest.approx(1000 - 2.0 * 3.0, abs=5 * 3.0 / 4000**0.5)
        assert found.std() == pytest.approx(3.0, abs=5 * 3.0 / 8000**0.5)
    correlations = np.corrcoef(weights)[np.triu_indices(SETTINGS.iterations, 1)]
    assert np.abs(correlations).max() < 5 / 4000**0.5


def test_a_generator_that_writes_nothing_well_formed_gives_no_rows():
    made = evolve(Numbers(malformed=1.1), [("50", "y")] * 10, 30, SETTINGS, 0.5, seed=2)
    assert (made.rows, made.generated, made.voted_on) == ((), (Samples((), 30),), ())


def test_variations_weaken_from_the_first_share_to_the_last():
    assert [
        kept_share(EvolutionConfig(iterations=3, keep_first=0.2, keep_last=0.8), t) for t in range(3)
    ] == [
        0.2,
        0.5,
        0.8,
    ]
    assert kept_share(EvolutionConfig(iterations=1), 0) == EvolutionConfig().keep_last
    generator = Numbers()
    evolve(generator, [("5", "y")], 10, EvolutionConfig(iterations=3), 1.0, seed=1)
    assert [kind for kind, _ in generator.asked] == ["random", "vary", "vary", "vary"]


def test_evolution_is_a_pure_function_of_its_arguments():
    def made(seed=1, rows=30, sigma=1.0):
        return evolve(Numbers(), [("30", "y")] * rows, 50, SETTINGS, sigma, seed).rows

    assert made() == made()
    assert len({made(), made(seed=2), made(rows=300), made(sigma=3.0)}) == 4
