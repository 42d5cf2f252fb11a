"""Devices that give a task up although they stay available: keyed draws, asked once per request.

A key tells a request from every other one: client, purpose, question, round and attempt; the client's id comes first. Luck is
nested: the draws do not depend on the settings, so a higher probability or hazard only adds requests that are lost (and
loses those that were lost before no later).

Give-ups (``per_task``): client k gives a task up with probability p_k, after a uniform share of its computation. p_k is the
same for all devices, or differs with a spread of log-odds (`fedsim.sim.devices.odds`).

Hazard: a request has one endurance E ~ Exp(1), which is spent at the rate h(phase) while it goes through its phases; it fails
when the accumulated hazard ``integral of h(phase(t)) dt`` reaches E. So it survives phases of d_i seconds with probability
``exp(-sum of h_i d_i)``, and with one rate for all phases its time to failure is exponential.

References:
    Cox and Oakes, Analysis of Survival Data (1984), section 2.2 (a failure time is where the cumulative hazard meets a
    unit exponential).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedsim.sim import streams
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.odds import Odds
from fedsim.sim.timeline import Scheduled, Timeline


class Dropout:
    """Which requests are given up, and when.

    Args:
        config: the scenario's ``dropout``.
        seed: root of the draws.
        scores: one standard normal score per client where ``correlate`` deals the risk; the highest gives up most.

    Attributes:
        has_hazard: whether a request can fail in some phase by the hazard at all.
    """

    def __init__(self, config: DropoutConfig, seed: int, scores: Sequence[float] | None = None) -> None:
        self.config = config
        self._seed = seed
        self._odds = Odds(config.per_task, config.spread, seed, "dropout", scores)
        self._per_task: dict[int, float] = {}
        hazard = config.hazard
        self._give_up, self._failure = streams.joined(seed, "give-up"), streams.joined(seed, "failure")
        self._hazard_of = {
            "down": hazard.download,
            "queue": hazard.compute,
            "compute": hazard.compute,
            "up": hazard.upload,
            "done": 0.0,
        }
        self.has_hazard = any(self._hazard_of.values())

    def per_task_of(self, client_id: int) -> float:
        """The probability that this client gives a task up."""
        if not self.config.spread:
            return self.config.per_task
        if client_id not in self._per_task:
            self._per_task[client_id] = self._odds.of(client_id)
        return self._per_task[client_id]

    def gives_up_at(self, key: tuple[streams.Part, ...]) -> float | None:
        """The share of this task's computation after which the device gives it up, in (0, 1); None = it does not."""
        if not self.config.per_task:
            return None
        client_id = key[0]
        assert isinstance(client_id, int)
        if streams.uniform(self._give_up, *key) >= self.per_task_of(client_id):
            return None
        return streams.uniform(self._seed, "give-up-at", *key)

    def endurance(self, key: tuple[streams.Part, ...]) -> float:
        """How much accumulated hazard this request bears: one Exp(1) draw."""
        return streams.exponential(1.0, self._failure, *key)

    def hazard_per_s(self, phase: str) -> float:
        """Failures per second while a request is in this phase; a queue counts as computation, a finished request has none."""
        return self._hazard_of[phase]


class Hazard:
    """One request's endurance, spent at the rate of the phase it is in: ``fail`` is called when nothing is left of it."""

    __slots__ = ("_at", "_endurance", "_fail", "_rate_per_s", "_since_s", "_timeline")

    def __init__(self, timeline: Timeline, endurance: float, fail: Callable[[], None]) -> None:
        self._timeline = timeline
        self._endurance = endurance
        self._fail = fail
        self._rate_per_s = 0.0
        self._since_s = timeline.now_s
        self._at: Scheduled | None = None

    def set_rate(self, rate_per_s: float) -> None:
        """From now on it is spent at this rate; 0: not at all."""
        if rate_per_s == self._rate_per_s:
            return
        now_s = self._timeline.now_s
        self._endurance = max(self._endurance - self._rate_per_s * (now_s - self._since_s), 0.0)
        self._rate_per_s, self._since_s = rate_per_s, now_s
        if self._at is not None:
            self._at.cancel()
        self._at = self._timeline.at(now_s + self._endurance / rate_per_s, self._fail) if rate_per_s else None
