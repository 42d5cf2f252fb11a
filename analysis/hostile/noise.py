"""How noisy a retained share is: what a limited number of test questions gives, and what seeds differ by."""

from __future__ import annotations

import math
from collections.abc import Iterator

from analysis.finished import mean
from analysis.hostile.runs import MEASURES, PLAIN, HostileGrid, retained, standard_error


def noise_lines(grid: HostileGrid) -> Iterator[str]:
    """How noisy a retained share is: by the test questions, and between seeds."""
    for measure, title in MEASURES.items():
        samples = grid.samples if measure == "pass_at_1" else 1
        low, high, oracle = sampling_error(grid, measure, samples)
        if oracle is None:
            yield f"* {title} was not measured, or no oracle gained anything."
            continue
        spread, cells = between_seeds(grid, measure)
        ends = f"{low:.2f}" if samples == 1 else f"{low:.2f} to {high:.2f}"
        how = (
            ""
            if samples == 1
            else f" (lower end: {samples} samples of a question tell as much as {samples} questions)"
        )
        seeds = (
            f"between seeds it has a standard deviation of {spread:.2f} (pooled over {cells} cells)"
            if spread is not None
            else "no cell has two seeds, so the spread between seeds is not known"
        )
        yield (
            f"* Noise of a {title} share of one seed near 1: standard error {ends} from the test questions and samples{how}, "
            f"the oracle's gain being {oracle:.3f} in the mean; {seeds}."
        )


def sampling_error(grid: HostileGrid, measure: str, samples: int) -> tuple[float, float, float | None]:
    """Standard error of a retained share near 1 from the test questions, and the oracles' mean gain.

    An accuracy p over n questions has sqrt(p (1 - p) / n) if all samples of a question fall alike, and over n times
    ``samples`` if they are independent; a ratio of two such gains near 1 has sqrt(2) of it over the oracle's gain (the initial
    accuracy is the same run's of both, and cancels). Runs that share their test questions differ by less.

    Returns:
        Lower and upper bound, and the gain; the gain is None where nothing was measured or gained.
    """
    gains, errors = [], []
    for (rule, level, seed), summary in grid.summaries.items():
        if not grid.levels[level].is_oracle or rule != PLAIN:
            continue
        found = grid.gain(rule, level, seed, measure)
        if found is not None:
            gains.append(found)
            errors.append(standard_error(summary, measure))
    if not gains or mean(gains) <= 0:
        return math.nan, math.nan, None
    high = math.sqrt(2) * mean(errors) / mean(gains)
    return high / math.sqrt(samples), high, mean(gains)


def between_seeds(grid: HostileGrid, measure: str) -> tuple[float | None, int]:
    """Standard deviation of retained shares between the seeds of a cell, pooled, and over how many cells."""
    squares, freedom, cells = 0.0, 0, 0
    for rule in grid.rules:
        for level in grid.levels:
            if rule == PLAIN and grid.levels[level].is_oracle:
                continue
            known = [one for one in retained(grid, rule, level, measure).by_seed.values() if one is not None]
            if len(known) > 1:
                middle = mean(known)
                squares += sum((one - middle) ** 2 for one in known)
                freedom += len(known) - 1
                cells += 1
    return (math.sqrt(squares / freedom) if freedom else None), cells
