"""The privacy ledger of a reward-based run: what every client's numbers reveal about one of its records, whole run.

Records belong to one client each, so the run's epsilon is that of its worst client (parallel composition). A client's is the
worse of its two kinds of record (`fedsim.privacy.rewards`). A promise from ``VACUOUS_EPSILON`` on is reported, and called
vacuous.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedsim.privacy.composition import VACUOUS_EPSILON, best_guess, composed_epsilon
from fedsim.privacy.rewards import RewardNoise

TRUST_MODEL = (
    "each client adds the noise on its own device and trusts itself; the server and the other clients are honest but curious, "
    "or choose what they ask, and see only the numbers sent; not covered: when and how fast a client answers (a trusted answer "
    "needs no model, and shows by its speed), that it is asked at all, settings chosen by looking at results; the number of "
    "releases is counted afterwards; the simulator's randomness is keyed and reproducible: a simulated release protects nobody"
)

_NOISE_UNITS = {
    "randomised_response": "probability of a flip",
    "gaussian": "standard deviation",
    "laplace": "scale",
}
_ACCOUNTANTS = {
    "randomised_response": "Renyi (dp-accounting), or linear",
    "gaussian": "analytic Gaussian",
    "laplace": "Renyi (dp-accounting), or linear",
}


@dataclass(frozen=True, slots=True)
class Promise:
    """An (epsilon, delta) for one record."""

    epsilon: float
    delta: float

    @property
    def is_vacuous(self) -> bool:
        """Whether it says next to nothing."""
        return self.epsilon >= VACUOUS_EPSILON


def answers_promise(noise: RewardNoise, *, replaced: bool = False) -> Promise:
    """About a trusted answer, the one of which most was said: added or removed, or (``replaced``) exchanged for another."""
    answers = noise.released.answers.values()
    count = max((said.replaceable if replaced else said.scores for said in answers), default=0)
    return _promise(noise, count)


def rows_promise(noise: RewardNoise, evaluator: Promise | None = None) -> Promise:
    """About a training row of the client's model: over all it said, or the model's own promise if that is less.

    Args:
        noise: the client's noise and what it was spent on.
        evaluator: what DP-SGD promises for its model; None if it was trained plainly.
    """
    released = noise.released
    spent = _promise(noise, released.model_rewards + released.probe_bits)
    return evaluator if evaluator is not None and evaluator.epsilon < spent.epsilon else spent


def ledger(noises: Sequence[RewardNoise], evaluator: Promise | None = None) -> list[dict[str, Any]]:
    """One entry per client for ``privacy.json``; ``epsilon`` is the run's, ``own_epsilon`` the client's.

    Args:
        noises: every client's noise.
        evaluator: what DP-SGD promises for every client's model; None if they were trained plainly.
    """
    whole = run_promise(noises, evaluator)
    return [_entry(noise, evaluator, whole) for noise in noises]


def run_promise(noises: Sequence[RewardNoise], evaluator: Promise | None = None) -> Promise:
    """The worst promise over clients and kinds of record."""
    promises = [_own(noise, evaluator) for noise in noises]
    return max(promises, key=lambda promise: promise.epsilon, default=Promise(0.0, 0.0))


def statement(
    wire: str,
    is_private: bool,
    description: str,
    noises: Sequence[RewardNoise],
    evaluator: Promise | None = None,
    has_answers: bool = True,
) -> dict[str, Any]:
    """What a run's wire variant lets out and what that promises for the whole run: ``privacy`` in the summary.

    ``epsilon`` is ``inf`` as a word where nothing is promised, and ``in_words`` is a line for people.

    Args:
        wire: the variant's name.
        is_private: whether it lets out registered scalars alone.
        description: the same for people.
        noises: every client's noise; empty without.
        evaluator: what DP-SGD promises for every client's model; None if they were trained plainly.
        has_answers: whether some client owns a trusted answer, which a model's training does not protect.
    """
    said: dict[str, Any] = {"wire": wire, "is_private": is_private, "leaves": description}
    if noises:
        whole, by = run_promise(noises, evaluator), noises[0].config.mechanism
        how = f"with {by} {noises[0].config.noise:g}" + (" and DP-SGD models" if evaluator else "")
        said |= {"mechanism": by, "noise": noises[0].config.noise}
    elif is_private and evaluator is not None and not has_answers:
        whole, how = evaluator, "with DP-SGD models, whose rewards are post-processing"
        said |= {"mechanism": "dp_sgd", "noise": None}
    else:
        why = (
            f"{description}; no noise, so epsilon is inf and nothing is promised"
            if is_private
            else description
        )
        nothing = {"mechanism": "none", "noise": None, "epsilon": "inf", "delta": None, "is_vacuous": True}
        return said | nothing | {"in_words": f"{wire} is {why}"}
    vacuous = " (VACUOUS)" if whole.is_vacuous else ""
    return said | {
        "epsilon": _number(whole.epsilon),
        "delta": whole.delta,
        "is_vacuous": whole.is_vacuous,
        "in_words": f"{wire} {how}: epsilon {whole.epsilon:.4g}{vacuous} at delta {whole.delta:g} for one record of "
        "one client over the whole run",
    }


def _entry(noise: RewardNoise, evaluator: Promise | None, whole: Promise) -> dict[str, Any]:
    config, released = noise.config, noise.released
    own, rows = _own(noise, evaluator), rows_promise(noise, evaluator)
    said = released.answers.values()
    return {
        "client_id": noise.client_id,
        "mechanism": config.mechanism,
        "epsilon": _number(whole.epsilon),
        "own_epsilon": _number(own.epsilon),
        "is_vacuous": own.is_vacuous,
        "best_guess": best_guess(own.epsilon),
        "delta": config.delta,
        "neighbours": "one record added or removed: a trusted answer, or a training row of the client's model",
        "noise": config.noise,
        "noise_unit": _NOISE_UNITS[config.mechanism],
        "sensitivity": 1.0,
        "clip_norm": None,
        "releases": released.model_rewards + released.probe_bits + sum(one.scores for one in said),
        "sampling_rate": None,
        "accountant": _ACCOUNTANTS[config.mechanism],
        "trusted_answer": {
            "epsilon": _number(answers_promise(noise).epsilon),
            "epsilon_if_replaced": _number(answers_promise(noise, replaced=True).epsilon),
            "answers_used": len(released.answers),
            "most_replies": max((one.replies for one in said), default=0),
            "most_scores": max((one.scores for one in said), default=0),
        },
        "training_row": {
            "epsilon": _number(rows.epsilon),
            "by": "DP-SGD of the model (post-processing)" if rows is evaluator else "noise on what it says",
            "model_rewards": released.model_rewards,
            "probe_bits": released.probe_bits,
            "evaluator_epsilon": None if evaluator is None else _number(evaluator.epsilon),
        },
        "rows_sent": 0,
        "rows_malformed": 0,
        "trust_model": TRUST_MODEL,
    }


def _own(noise: RewardNoise, evaluator: Promise | None) -> Promise:
    return max((answers_promise(noise), rows_promise(noise, evaluator)), key=lambda promise: promise.epsilon)


def _promise(noise: RewardNoise, count: int) -> Promise:
    config = noise.config
    return Promise(composed_epsilon(config.mechanism, config.noise, count, config.delta), config.delta)


def _number(epsilon: float) -> float | str:
    return epsilon if math.isfinite(epsilon) else "inf"
