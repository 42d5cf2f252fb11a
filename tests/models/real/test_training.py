"""Training: the same weights every time, budgets in steps, empty clients, and Muon's mathematics."""

from __future__ import annotations

import math

import pytest
import torch

from fedsim.models.config import StartTuning
from fedsim.models.real.muon import Muon, orthogonalised
from fedsim.models.real.training import batches, encode_rows, fine_tune, train_from_scratch
from fedsim.models.real.weights import weights_sha256
from fedsim.models.real.zoo import scratch_network
from tests.samples.tiny_models import TINY, questions, tokenizer


def _train(rows, seed=3, told=lambda loss: None, **changes):
    torch.set_num_threads(1)
    settings = TINY.model_copy(update={"steps": 6, **changes})
    return train_from_scratch(settings, tokenizer(), rows, seed, lambda step, total, loss: told(loss))


def test_the_same_rows_and_seed_give_the_same_weights_whatever_the_global_generator():
    torch.manual_seed(1)
    first = weights_sha256(_train(questions())[0])
    torch.manual_seed(2)
    assert weights_sha256(_train(questions())[0]) == first
    assert weights_sha256(_train(questions(), seed=4)[0]) != first
    assert weights_sha256(_train(questions()[1:])[0]) != first


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    _train(questions())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_learns_its_rows():
    losses = []
    _train(questions(), 1, losses.append, steps=100)
    assert len(losses) == 100
    assert losses[-1] < 0.5 * losses[0]


def test_training_stops_early_once_the_loss_is_low_enough():
    network, done = _train(questions()[:2], steps=200, stop_loss=0.5)
    assert 0 < done.steps < 200
    assert done.loss < 0.5
    assert not network.training


def test_a_client_without_rows_has_an_untrained_model():
    network, done = _train([])
    assert done.steps == 0 and math.isnan(done.loss)
    assert weights_sha256(network) == weights_sha256(_train([])[0])


def test_a_client_with_one_row_can_be_trained():
    assert _train(questions()[:1])[1].steps == 6


def test_an_epoch_of_batches_holds_every_row_once():
    encoded = encode_rows(tokenizer(), questions())
    stream = batches(encoded, 10, seed=1)
    seen = sorted(
        tuple(i for i, label in zip(ids, labels, strict=True) if label != -100)
        for batch in (next(stream) for _ in range(-(-len(encoded) // 10)))
        for ids, labels in zip(batch[0].tolist(), batch[1].tolist(), strict=True)
    )
    assert seen == sorted(row.ids[row.num_prompt :] for row in encoded)


def test_the_loss_counts_answer_and_end_tokens_only():
    (row,) = encode_rows(tokenizer(), questions()[:1])
    ids, labels = next(batches([row], 4, seed=1))
    assert ids.tolist() == [list(row.ids)]
    assert labels.tolist() == [[-100] * row.num_prompt + list(row.ids[row.num_prompt :])]
    assert row.ids[-1] == tokenizer().eos_token_id


def test_fine_tuning_lowers_the_loss_on_its_rows_and_repeats_exactly():
    def tuned():
        network = scratch_network(TINY, tokenizer(), 2)
        done = fine_tune(network, tokenizer(), questions()[:20], StartTuning(steps=20, learning_rate=3e-3), 5)
        return weights_sha256(network), done.loss

    assert tuned() == tuned()
    assert tuned()[1] < math.log(len(tokenizer()))


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((3, 16, 16), (2, 8, 24), (2, 24, 8)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert float(values.min()) > 0.3 and float(values.max()) < 1.3


def test_muon_steps_like_torchs_own_up_to_bfloat16():
    torch.manual_seed(0)
    start = [0.1 * torch.randn(shape) for shape in ((16, 16), (48, 16), (16, 48), (16, 16))]
    ours = [torch.nn.Parameter(weight.clone()) for weight in start]
    theirs = [torch.nn.Parameter(weight.clone()) for weight in start]
    optimizers = (
        Muon(ours, lr=0.02, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.02, momentum=0.95, weight_decay=0.1),
    )
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    with torch.no_grad():
        for one, other, first in zip(ours, theirs, start, strict=True):
            assert float((one - other).norm() / (other - first).norm()) < 0.05


@pytest.mark.parametrize("steps", [0, 1])
def test_a_budget_of_zero_steps_leaves_the_random_weights(steps):
    network, done = _train(questions(), steps=steps)
    assert done.steps == steps
    untouched = weights_sha256(_train([])[0])
    assert (weights_sha256(network) == untouched) == (steps == 0)
