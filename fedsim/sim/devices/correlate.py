"""Owners of a domain, or of most data, as the slow or absent devices: the hard case for a federation.

When speed and presence are independent of who owns which rows, every domain keeps some owner that answers. ``correlate`` takes
that away without changing the devices themselves:

* ``speed`` deals the same drawn devices anew: the client that owns most gets the slowest device, and so on down. The population
  is permuted, so every marginal of it is what it was. A device's speed is the reached FLOP/s (peak times efficiency), then the
  reached memory bytes/s.
* ``availability`` orders instead of drawing how devices differ in presence and in giving tasks up: client k's standard normal
  score is ``z_k = Phi^-1((rank_k + 1/2) / K)``, with rank 0 for the client that owns least. Its log-odds of being there are
  ``a - spread z_k``, those of giving a task up ``b + spread z_k``, with the means kept (`fedsim.sim.devices.odds`); a measured
  phone's share is the quantile at ``Phi(-z_k)``, and traces are dealt by their share of time.

What a client owns is its private rows of one domain (``domain``), or of all (``data_size``). Clients that own equally much are
ordered by a keyed draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedsim.config.strict import SettingError, StrictModel
from fedsim.errors import ScenarioError
from fedsim.sim import streams
from fedsim.sim.devices.availability import differs
from fedsim.sim.devices.availability_config import PresenceConfig
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.population import Population
from fedsim.sim.devices.presets import unknown_name

Owned = Literal["domain", "data_size"]


class CorrelateConfig(StrictModel):
    """Makes the owners of a domain, or of most data, the slow or absent devices."""

    speed: Owned | None = Field(
        default=None,
        description="Who gets the slowest of the drawn devices: owners of a domain, or of most rows.",
    )
    availability: Owned | None = Field(
        default=None,
        description="Who is there least and gives up most; needs availability.spread, dropout.spread, kind phones or trace.",
    )
    of: str | None = Field(default=None, description="The domain whose owners are meant; default the first.")

    @model_validator(mode="after")
    def _says_something(self) -> CorrelateConfig:
        if self.speed is None and self.availability is None:
            raise ValueError("correlate does nothing; give it speed or availability: domain or data_size")
        if self.of is not None and "domain" not in (self.speed, self.availability):
            raise ValueError(f"of names the domain {self.of!r}, but neither speed nor availability is domain")
        return self


def refuse_nothing_to_order(
    config: CorrelateConfig, availability: PresenceConfig, dropout: DropoutConfig
) -> None:
    """Refuse to order presence where devices do not differ in it.

    Raises:
        SettingError: ``correlate.availability`` is set, no spread is, and the kind of availability has none by itself.
    """
    if config.availability is None or differs(availability):
        return
    if not dropout.spread:
        raise SettingError(
            "correlate.availability has nothing to order: devices are equally often there and give up equally often; set "
            "dropout.spread, or availability.spread with kind: sessions or daily (e.g. 1.5), or use kind: phones",
            *("correlate", "availability"),
        )
    if not dropout.per_task:
        raise SettingError(
            "correlate.availability has nothing to order: dropout.spread spreads per_task, which is 0",
            *("correlate", "availability"),
        )


def refuse_unknown_domain(config: CorrelateConfig | None, domains: Sequence[str]) -> None:
    """Refuse a domain that the federation has not.

    Raises:
        ScenarioError: ``correlate.of`` is none of the domains; names the nearest one.
    """
    if config is not None and config.of is not None and config.of not in domains:
        raise ScenarioError(f"correlate.of: {unknown_name('domain', config.of, domains)}").at(
            "correlate", "of"
        )


def owned_rows(
    by: Owned, partition: npt.NDArray[np.int64], domains: Sequence[str], of: str | None = None
) -> npt.NDArray[np.int64]:
    """How many private rows each client owns [K]: of one domain (default the first), or of all.

    Args:
        by: what counts.
        partition: private rows per client and domain [K, D].
        domains: names of the D domains.
        of: the domain's name.
    """
    if by == "data_size":
        return np.asarray(partition.sum(axis=1))
    return np.asarray(partition[:, domains.index(of) if of is not None else 0])


def ranks(owned: npt.NDArray[np.int64], seed: int) -> list[int]:
    """The rank of each client by what it owns, 0 for the least [K]; equals are ordered by a keyed draw."""
    ties = [streams.uniform(seed, "correlate", client_id) for client_id in range(len(owned))]
    order = sorted(range(len(owned)), key=lambda client_id: (int(owned[client_id]), ties[client_id]))
    ranked = [0] * len(order)
    for rank, client_id in enumerate(order):
        ranked[client_id] = rank
    return ranked


def normal_scores(ranked: Sequence[int]) -> list[float]:
    """``Phi^-1((rank + 1/2) / K)`` for each rank (Blom's scores with the simplest offset); they sum to 0."""
    normal = NormalDist()
    return [normal.inv_cdf((rank + 0.5) / len(ranked)) for rank in ranked]


def dealt(population: Population, ranked: Sequence[int]) -> Population:
    """The same devices, dealt so that the highest rank has the slowest; a permutation."""
    columns = population.columns
    compute = columns["peak_flop_per_s"] * columns["compute_efficiency"]
    memory = columns["memory_bytes_per_s"] * columns["memory_efficiency"]
    fastest_first = np.lexsort((-memory, -compute))  # stable: equal devices keep their order
    chosen = fastest_first[np.asarray(ranked)]
    return Population(
        class_names=population.class_names,
        class_index=population.class_index[chosen],
        columns={name: column[chosen] for name, column in columns.items()},
    )


def deal_devices(
    config: CorrelateConfig | None,
    population: Population,
    partition: npt.NDArray[np.int64],
    domains: Sequence[str],
    seed: int,
) -> Population:
    """The population of a scenario, with ``correlate.speed`` applied.

    Raises:
        ScenarioError: ``correlate.of`` is none of the domains.
    """
    refuse_unknown_domain(config, domains)
    if config is None or config.speed is None:
        return population
    return dealt(population, ranks(owned_rows(config.speed, partition, domains, config.of), seed))


def presence_scores(
    config: CorrelateConfig | None, partition: npt.NDArray[np.int64], domains: Sequence[str], seed: int
) -> list[float] | None:
    """The score z_k of every client for ``correlate.availability``, the highest for who is there least; None = draw.

    Raises:
        ScenarioError: ``correlate.of`` is none of the domains.
    """
    refuse_unknown_domain(config, domains)
    if config is None or config.availability is None:
        return None
    return normal_scores(ranks(owned_rows(config.availability, partition, domains, config.of), seed))
