"""Attacks on modules (leakage/weights.py), with networks of a few thousand weights that learn a dozen rows by heart."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch

from fedsim.experiment.leakage.suspects import Suspect, log_likelihoods
from fedsim.experiment.leakage.weights import ascended, by_adapters
from fedsim.models.real.client_training import PolicyTrainer
from fedsim.models.real.evaluator import ModelEvaluator
from fedsim.models.real.policy import LanguagePolicy
from fedsim.models.real.zoo import scratch_network
from fedsim.protocols.fedpetuning import Config
from fedsim.sim import streams
from tests.samples.tiny_models import TINY, language, questions, tokenizer

CONFIG = Config(
    module="full", local_epochs=40, local_batch_size=8, local_learning_rate=3e-3, max_new_tokens=4
)
SUMS = [
    questions()[int(place)] for place in streams.generator("sums").permutation(100)
]  # of one kind, in no order
MEMBERS, OTHERS, STRANGERS = SUMS[:16], SUMS[16:32], SUMS[32:48]
SUSPECTS = [Suspect(0, row, True) for row in MEMBERS] + [Suspect(0, row, False) for row in OTHERS]


def staged():
    """A live policy that has learnt nothing, and its trainer."""
    torch.set_num_threads(1)
    network = scratch_network(TINY, tokenizer(), 3)
    live = LanguagePolicy(
        language(network), language(deepcopy(network).requires_grad_(False)), CONFIG, str.__eq__, 7, ()
    )
    return SimpleNamespace(
        policy=live, trainer=PolicyTrainer(live, CONFIG, str.__eq__, 7), data=SimpleNamespace()
    )


def attacked(trained_on):
    """AUC of the honest and of the choosing server, of one client that trains on these rows."""
    components = staged()
    components.data.private = [tuple(trained_on)]
    found = by_adapters(SimpleNamespace(protocol=CONFIG, seed=0), components, SUSPECTS)
    assert [(one.source, one.server) for one in found] == [("adapters", "honest"), ("adapters", "choosing")]
    return [one.result.auc.value for one in found]


def test_a_client_that_learns_its_rows_by_heart_gives_them_away_to_both_servers():
    assert min(attacked(MEMBERS)) > 0.9


def test_a_client_that_trains_on_other_rows_gives_nothing_away():
    assert attacked(STRANGERS) == pytest.approx([0.5, 0.5], abs=0.2)


def test_what_a_choosing_server_sends_makes_the_suspects_less_likely():
    components = staged()
    start = components.trainer.start()
    found = []
    for weights in (start, ascended(components.trainer, start, SUSPECTS)):
        components.trainer.install(weights)
        found.append(sum(log_likelihoods(ModelEvaluator(components.policy.language, 4), SUSPECTS)))
    assert found[1] < found[0] - len(SUSPECTS) / 10  # a tenth of a nat each, at least
