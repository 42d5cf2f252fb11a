"""Attacks on weights: the module that a client sends back, and the final policy, which the server of every protocol has.

References:
    Nasr, Shokri, Houmansadr, Comprehensive Privacy Analysis of Deep Learning, IEEE S&P 2019, section II-C: the active global
    attacker, who goes up the gradient of the suspects' loss before it sends the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.experiment.leakage.suspects import (
    FIRST_DRAW,
    Attack,
    Suspect,
    attack_on_rows,
    gains,
    log_likelihoods,
)
from fedsim.models.interfaces import Components, LocalTrainer, Weights
from fedsim.protocols.shared.weights_on_the_wire import packed, unpacked

if TYPE_CHECKING:
    from fedsim.records.run import Run
    from fedsim.scenario.schema import Scenario

ASCENT = 0.1
"""How far a choosing server goes up the suspects' loss before it sends: this share of a local training on them, backwards.

A longer way pushes all rows so far down that the local training brings all of them back alike.
"""


def by_adapters(scenario: Scenario, components: Components, rows: Sequence[Suspect]) -> list[Attack]:
    """Whether a row was trained on, from the client's first upload: how much likelier it is there than at the run's own start.

    The upload is made again, a pure function of what the client was sent: the run's own start (honest), or that start after
    ascent on this client's suspects (choosing).
    """
    from fedsim.models.real.evaluator import ModelEvaluator

    trainer, settings = components.trainer, scenario.protocol
    live: Any = components.policy
    assert trainer is not None

    def sent(weights: Weights) -> Weights:
        return unpacked(packed(weights, settings.number_type), settings.number_type)

    def scored(weights: Weights, own: Sequence[Suspect]) -> list[float]:
        trainer.install(weights)
        return log_likelihoods(ModelEvaluator(live.language, settings.max_new_tokens), own)

    start = sent(trainer.start())
    ordered: list[Suspect] = []
    honest: list[float] = []
    choosing: list[float] = []
    for client_id in sorted({one.client_id for one in rows}):
        own = [one for one in rows if one.client_id == client_id]
        ordered += own
        before = scored(start, own)
        for found, module in ((honest, start), (choosing, sent(ascended(trainer, start, own)))):
            upload = trainer.tune(client_id, 0, module, components.data.private[client_id]).weights
            found += gains(scored(sent(upload), own), before)
    how = "gain in log-likelihood by the first upload"
    return [
        attack_on_rows("adapters", "honest", how, ordered, honest, scenario.seed),
        attack_on_rows("adapters", "choosing", f"{how}, after ascent", ordered, choosing, scenario.seed),
    ]


def ascended(trainer: LocalTrainer, start: Weights, own: Sequence[Suspect]) -> Weights:
    """A module that makes one client's suspects less likely: w - ``ASCENT`` (w' - w), where w' was trained on them from w."""
    learnt = trainer.tune(own[0].client_id, FIRST_DRAW, start, [one.row for one in own]).weights
    return {name: array - np.float32(ASCENT) * (learnt[name] - array) for name, array in start.items()}


def by_final_policy(run: Run, components: Components, rows: Sequence[Suspect], seed: int) -> Attack:
    """Whether a row was trained on, from how much likelier the run made it."""
    from fedsim.models.real.evaluator import ModelEvaluator
    from fedsim.models.real.language import LanguageModel
    from fedsim.models.real.zoo import load_folder

    network, tokenizer = load_folder(run.folder / "policy")
    live: Any = components.policy
    language = LanguageModel(network, tokenizer, live.language.shapes, live.language.tokens)
    final = log_likelihoods(ModelEvaluator(language, live.config.max_new_tokens), rows)
    gained = gains(final, log_likelihoods(components.frozen, rows))
    return attack_on_rows("policy", "honest", "final policy against the initial one", rows, gained, seed)
