"""How devices compute more slowly than their profile says: pure functions of (seed, client, task, virtual time).

A task of nominal length W that starts at t0 on client k ends at the first t with

    integral from t0 to t of v_k(s) ds = W F        F = product of the factors of the task, v_k = product of the speeds

| kind | what it draws | law | mean |
|---|---|---|---|
| fixed | F, once for a device | ``factor`` with probability ``share``, else 1 | 1 + share (factor - 1) |
| pareto | F, once for a task | ``P(F > x) = x^-shape``, x >= 1 | shape / (shape - 1) |
| lognormal | F, once for a task | ``exp(sigma z - sigma^2 / 2)`` | 1 (the median is ``exp(-sigma^2 / 2)``) |
| on_off | v over time | 1 in fast, 1 / factor in slow spells, both exponential | (fast + slow / factor) / (fast + slow) |
| background | v over slots of time | ``1 - load = U^(m / (1 - m))``, U uniform with memory | 1 - m |

``on_off`` is an alternating renewal process that is stationary from time 0 on. ``background`` maps the stationary AR(1)
level z of `fedsim.sim.ar1` to ``U = Phi(z)``; loads near 0 are then the most frequent for a mean m below one half, uniform at
one half. ``v_k`` is piecewise constant, so both directions of the integral are sums over pieces. A device that hangs
(`fedsim.sim.faults.plan`) has speed 0 meanwhile. Draws are keyed by the kind, its place among the laws of that kind, and the
client or the task, so that a law more or less changes no other's luck, and a higher ``share`` or lower ``shape`` only slows
tasks.

Left out: slow-downs that devices share, heat that depends on what the device computed, and spells of any other law.

References:
    Dean and Barroso, The Tail at Scale, CACM 56 (2013): why machines are slow now and then.
    Ananthanarayanan et al., Effective Straggler Mitigation, NSDI 2013: stragglers 8 times slower than the median task.
    Dinda, The statistical properties of host load, Scientific Programming 7 (1999): load is correlated over time.
    Cox, Renewal Theory (1962), chapter 7 (alternating renewal processes).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Protocol

from fedsim.errors import ScenarioError
from fedsim.sim import streams
from fedsim.sim.ar1 import AR1, slot_at
from fedsim.sim.devices.session_lengths import Exponential
from fedsim.sim.devices.sessions import Renewal
from fedsim.sim.devices.slowdown_config import (
    BackgroundConfig,
    FixedConfig,
    LognormalConfig,
    OnOffConfig,
    ParetoConfig,
    SlowdownConfig,
)

_NORMAL = NormalDist()
_Key = tuple[streams.Part, ...]


class Hangs(Protocol):
    """When a device hangs: it is there and keeps its connections, but computes nothing."""

    def is_hung(self, client_id: int, at_s: float) -> bool:
        """Whether the client hangs at this instant."""

    def next_hang_change(self, client_id: int, at_s: float) -> float:
        """The first instant after ``at_s`` at which it begins or ceases to hang; infinity if it never does."""


class _TaskLaw(Protocol):
    """A factor that a task's duration carries from its start to its end."""

    def factor(self, client_id: int, key: _Key) -> float:
        """How many times longer this task takes on this client."""

    def mean_of(self, client_id: int) -> float:
        """The mean of the factor over the client's tasks."""


class _SpeedLaw(Protocol):
    """A speed that changes over time, whatever the device computes."""

    mean: float

    def speed(self, client_id: int, at_s: float) -> float:
        """The speed at an instant, in [0, 1] of the device's own."""

    def next_change(self, client_id: int, at_s: float) -> float:
        """The first instant after ``at_s`` at which the speed may be another."""


class Slowdowns:
    """All slow-downs of a scenario (see the module's docstring).

    Args:
        configs: the laws; they multiply.
        seed: the scenario's seed.
        classes_of_clients: the device class of every client, by id.
        hangs: when devices hang; None = never.
        horizon_s: nobody needs to know exactly what happens after this instant: a device has its own speed from then on,
            or else the end of a computation of years would be looked for spell by spell.

    Raises:
        ScenarioError: a law is for a device class of which there is no client.
    """

    def __init__(
        self,
        configs: Sequence[SlowdownConfig],
        seed: int,
        classes_of_clients: Sequence[str],
        hangs: Hangs | None = None,
        horizon_s: float = math.inf,
    ) -> None:
        _check_classes(configs, classes_of_clients)
        places: Counter[str] = Counter()
        self._hangs = hangs
        self._horizon_s = horizon_s
        self._class_of = classes_of_clients
        self._task_laws: dict[str, list[_TaskLaw]] = {name: [] for name in classes_of_clients}
        self._speed_laws: dict[str, list[_SpeedLaw]] = {name: [] for name in classes_of_clients}
        for config in configs:
            place = places[config.kind]
            places[config.kind] += 1
            concerned = config.classes or self._task_laws
            if isinstance(config, OnOffConfig | BackgroundConfig):
                speed_law = _speed_law(config, seed, place)
                for name in concerned:
                    self._speed_laws[name].append(speed_law)
            else:
                task_law = _task_law(config, (seed, "slowdown", config.kind, place))
                for name in concerned:
                    self._task_laws[name].append(task_law)

    def finish_at_s(self, client_id: int, key: _Key, start_at_s: float, nominal_s: float) -> float:
        """When a computation of so many nominal seconds ends if it starts now; infinity if it never does.

        Args:
            client_id: who computes.
            key: what tells the task from every other (``request.Request.key``); its luck is a function of it.
            start_at_s: when it starts, or goes on after a pause.
            nominal_s: seconds it would take, or that are left of it, without slow-downs.
        """
        left_s = nominal_s * self.task_factor(client_id, key)
        for from_s, until_s, speed in self._pieces(client_id, start_at_s):
            if speed and left_s <= (until_s - from_s) * speed:
                return from_s + left_s / speed
            left_s -= (until_s - from_s) * speed if speed else 0.0
        return math.inf

    def progress_s(self, client_id: int, key: _Key, start_at_s: float, end_at_s: float) -> float:
        """Nominal seconds that are done between two instants: the inverse of `finish_at_s`, up to rounding.

        Raises:
            ValueError: the end lies before the start, or is infinite.
        """
        if not start_at_s <= end_at_s < math.inf:
            raise ValueError(
                f"progress from {start_at_s} to {end_at_s} s: must end later, at a finite instant"
            )
        done_s = 0.0
        for from_s, until_s, speed in self._pieces(client_id, start_at_s):
            done_s += (min(until_s, end_at_s) - from_s) * speed
            if until_s >= end_at_s:
                break
        return done_s / self.task_factor(client_id, key)

    def task_factor(self, client_id: int, key: _Key) -> float:
        """F: how many times longer this task takes, by the laws that hold for all of it."""
        factor = 1.0
        for law in self._task_laws[self._class_of[client_id]]:
            factor *= law.factor(client_id, key)
        return factor

    def speed(self, client_id: int, at_s: float) -> float:
        """v: the speed of a device at an instant, as a share of its own; 0 while it hangs."""
        if self._hangs is not None and self._hangs.is_hung(client_id, at_s):
            return 0.0
        speed = 1.0
        for law in self._speed_laws[self._class_of[client_id]]:
            speed *= law.speed(client_id, at_s)
        return speed

    def next_change(self, client_id: int, at_s: float) -> float:
        """The first instant after ``at_s`` at which the device's speed may be another; infinity if there is none."""
        change_s = math.inf
        if self._hangs is not None:
            change_s = self._hangs.next_hang_change(client_id, at_s)
            if self._hangs.is_hung(client_id, at_s):
                return change_s  # whatever else changes meanwhile, the speed stays 0
        for law in self._speed_laws[self._class_of[client_id]]:
            change_s = min(change_s, law.next_change(client_id, at_s))
        return change_s

    def mean_factor(self, client_id: int) -> float:
        """How many times longer this device's tasks take in the long run: E[F] / E[v], without hangs.

        That is the ratio of time to nominal time when the device always computes, since the laws are independent. A task
        that is short against the spells takes E[F] E[1 / v] on average, which is more. Infinite for a Pareto shape of 1.
        """
        name = self._class_of[client_id]
        factor = math.prod(law.mean_of(client_id) for law in self._task_laws[name])
        return factor / math.prod(law.mean for law in self._speed_laws[name])

    def _pieces(self, client_id: int, start_at_s: float) -> Iterator[tuple[float, float, float]]:
        """Spans (start, end, speed) of constant speed, from an instant on; the last of them may never end."""
        from_s = start_at_s
        while from_s < math.inf:
            if from_s > self._horizon_s:
                yield from_s, math.inf, 1.0
                return
            until_s = self.next_change(client_id, from_s)
            yield from_s, until_s, self.speed(client_id, from_s)
            from_s = until_s


def _check_classes(configs: Sequence[SlowdownConfig], classes_of_clients: Sequence[str]) -> None:
    known = dict.fromkeys(classes_of_clients)
    for index, config in enumerate(configs):
        for name in config.classes:
            if name not in known:
                raise ScenarioError(
                    f"slowdowns.{index}.classes names {name!r}, of which there is no client (there are: {', '.join(known)})"
                ).at("slowdowns", index, "classes")


def _task_law(config: FixedConfig | ParetoConfig | LognormalConfig, key: _Key) -> _TaskLaw:
    if isinstance(config, FixedConfig):
        return _Fixed(config, key)
    return _Pareto(config, key) if isinstance(config, ParetoConfig) else _Lognormal(config, key)


def _speed_law(config: OnOffConfig | BackgroundConfig, seed: int, place: int) -> _SpeedLaw:
    if isinstance(config, OnOffConfig):
        return _OnOff(config, seed, place)
    return _Background(config, (seed, "slowdown", config.kind, place))


class _Fixed:
    """Slow for good: a client's own draw decides, so that a higher share only adds clients."""

    def __init__(self, config: FixedConfig, key: _Key) -> None:
        self._config = config
        self._key = key

    def factor(self, client_id: int, key: _Key) -> float:
        return self.mean_of(client_id)

    def mean_of(self, client_id: int) -> float:
        return self._config.factor if streams.uniform(*self._key, client_id) < self._config.share else 1.0


class _Pareto:
    """``F = U^(-1 / shape)``, so that ``P(F > x) = x^-shape``."""

    def __init__(self, config: ParetoConfig, key: _Key) -> None:
        self._shape = config.shape
        self._key = key

    def factor(self, client_id: int, key: _Key) -> float:
        return float(streams.uniform(*self._key, client_id, *key) ** (-1 / self._shape))

    def mean_of(self, client_id: int) -> float:
        return math.inf if self._shape == 1 else self._shape / (self._shape - 1)


class _Lognormal:
    """``F = exp(sigma z - sigma^2 / 2)``: more spread, the same amount of work."""

    def __init__(self, config: LognormalConfig, key: _Key) -> None:
        self._sigma = config.sigma
        self._key = key

    def factor(self, client_id: int, key: _Key) -> float:
        return streams.lognormal(self._sigma, *self._key, client_id, *key)

    def mean_of(self, client_id: int) -> float:
        return 1.0


class _OnOff:
    """Slow spells of a client are the sessions of a renewal process, fast ones its gaps."""

    def __init__(self, config: OnOffConfig, seed: int, place: int) -> None:
        means_s = (config.mean_slow, config.mean_fast)
        self._spells = Renewal(seed, f"slow-{place}", lambda _: means_s, Exponential(), Exponential())
        self._slow_speed = 1 / config.factor
        slow_share = config.mean_slow / (config.mean_fast + config.mean_slow)
        self.mean = 1 - slow_share * (1 - self._slow_speed)

    def speed(self, client_id: int, at_s: float) -> float:
        return self._slow_speed if self._spells.is_on(client_id, at_s) else 1.0

    def next_change(self, client_id: int, at_s: float) -> float:
        return self._spells.next_change(client_id, at_s)


class _Background:
    """Load that keeps its level for a period and remembers it: ``1 - load = Phi(z)^(m / (1 - m))``."""

    def __init__(self, config: BackgroundConfig, key: _Key) -> None:
        self._period_s = config.period
        self._exponent = config.mean_load / (1 - config.mean_load)
        self._key = key
        self._levels = AR1(config.memory)
        self.mean = 1 - config.mean_load

    def speed(self, client_id: int, at_s: float) -> float:
        level = self._levels.level((*self._key, client_id), slot_at(at_s, self._period_s))
        return float(_NORMAL.cdf(level) ** self._exponent)

    def next_change(self, client_id: int, at_s: float) -> float:
        return (slot_at(at_s, self._period_s) + 1) * self._period_s
