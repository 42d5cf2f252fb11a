"""Private Evolution: private rows vote, with noise, for the public samples nearest to them.

    S_1 = N random samples of the public generator
    T times:  h = how many private rows have each sample of S as their nearest (l2 distance of embeddings)
              h~ = max(0, h + N(0, sigma^2) - H)
              S' = N samples of S drawn with probability h~ / sum h~  (all zero: drawn uniformly, and counted)
              S = a variation of every sample of S', the weaker the later
    answer S

Privacy. S is public when h is counted, and a private row casts exactly one vote, so adding or removing a row changes one count
by one: l2 sensitivity 1, whatever N is. Everything after h + noise is post-processing. T histograms are T Gaussian releases of
sensitivity 1 (``privacy/accounting.py``). There are no classes: one histogram over all samples, nothing composed in parallel.

Votes choose among what the generator writes; they cannot repair it. A generator trained on a corpus with wrong answers writes
them under any votes, because each variation's answer is its own again: the mix of questions moves, the answers stay the
generator's. And n private rows cast n votes on N samples: unless N is well below n, counts are near 1 and sigma drowns them.

No torch here: the generator is an argument.

References:
    Lin et al., Differentially Private Synthetic Data via Foundation Model APIs 1: Images, ICLR 2024, algorithms 1 and 2
    (look-ahead 0); Xie et al., Differentially Private Synthetic Data via Foundation Model APIs 2: Text, ICML 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedsim.models.interfaces import FloatArray, Samples
from fedsim.privacy.config import EvolutionConfig
from fedsim.sim import streams

Row = tuple[str, str]
"""A question's text and its answer's."""

_PRIVATE_AT_ONCE = 512


class Generator(Protocol):
    """A public generator that is only ever called."""

    def random(self, count: int, key: streams.Part) -> list[Row | None]:
        """So many fresh samples; None where one is malformed."""

    def vary(self, rows: Sequence[Row], keep: float, key: streams.Part) -> list[Row | None]:
        """A variation of each row that keeps a share of it; None where one is malformed."""

    def embed(self, rows: Sequence[Row]) -> FloatArray:
        """Where rows lie ``[n, d]``."""


@dataclass(frozen=True, slots=True)
class Evolved:
    """What came of it.

    Attributes:
        rows: the samples that are released.
        generated: what the generator wrote: the first samples, then each iteration's variations. Malformed ones were thrown
            away (first samples) or left their parent in place (variations).
        voted_on: the population of each iteration, kept parents included, which was embedded for the votes.
        num_uniform: iterations in which no count was left above the threshold.
    """

    rows: tuple[Row, ...]
    generated: tuple[Samples, ...]
    voted_on: tuple[tuple[Row, ...], ...]
    num_uniform: int


def evolve(
    generator: Generator,
    private: Sequence[Row],
    count: int,
    settings: EvolutionConfig,
    sigma: float,
    seed: int,
) -> Evolved:
    """The algorithm above; a pure function of its arguments. ``sigma`` is the noise's standard deviation [votes]."""
    generated = [well_formed(generator.random(count, streams.integer(seed, "random")))]
    population, voted_on, num_uniform = generated[0].rows, [], 0
    private_at = generator.embed(private)
    for iteration in range(settings.iterations if population else 0):
        voted_on.append(population)
        votes = histogram(private_at, generator.embed(population))
        noise = sigma * streams.generator(seed, "votes", iteration).standard_normal(len(votes))
        weights = np.maximum(0.0, votes + noise - settings.threshold * sigma)
        num_uniform += not weights.any()
        draws = streams.generator(seed, "resample", iteration)
        parents = [population[i] for i in resampled(weights, count, draws)]
        varied = generator.vary(
            parents, kept_share(settings, iteration), streams.integer(seed, "vary", iteration)
        )
        generated.append(well_formed(varied))
        population = tuple(row or parent for row, parent in zip(varied, parents, strict=True))
    return Evolved(population, tuple(generated), tuple(voted_on), num_uniform)


def well_formed(written: Sequence[Row | None]) -> Samples:
    """One batch of a generator's samples: the well-formed ones, and how many (None) were not."""
    rows = tuple(row for row in written if row is not None)
    return Samples(rows, len(written) - len(rows))


def histogram(private: FloatArray, synthetic: FloatArray) -> npt.NDArray[np.int64]:
    """Votes ``[N]``: every private row ``[n, d]`` for its nearest synthetic one ``[N, d]`` in l2, the first of equals."""
    counts = np.zeros(len(synthetic), dtype=np.int64)
    lengths = (synthetic**2).sum(1)
    for start in range(0, len(private), _PRIVATE_AT_ONCE):
        part = private[start : start + _PRIVATE_AT_ONCE]
        # Always so many rows: a row's rounding, hence its vote, must not depend on how many others there are.
        filled = np.zeros((_PRIVATE_AT_ONCE, private.shape[1]))
        filled[: len(part)] = part
        # |p - s|^2 less |p|^2, which does not matter for the nearest s.
        nearest = (lengths - 2.0 * filled @ synthetic.T).argmin(1)[: len(part)]
        counts += np.bincount(nearest, minlength=len(synthetic))
    return counts


def resampled(weights: FloatArray, count: int, draws: np.random.Generator) -> list[int]:
    """So many indices drawn with replacement in proportion to the weights, or uniformly where all are zero."""
    total = weights.sum()
    shares = weights / total if total > 0 else np.full(len(weights), 1.0 / len(weights))
    return [int(index) for index in draws.choice(len(weights), size=count, p=shares)]


def kept_share(settings: EvolutionConfig, iteration: int) -> float:
    """Share of a row's tokens that the variation of this iteration keeps: linear from the first to the last."""
    if settings.iterations == 1:
        return settings.keep_last
    way = iteration / (settings.iterations - 1)
    return settings.keep_first + way * (settings.keep_last - settings.keep_first)
