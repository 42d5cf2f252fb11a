"""DP-SGD: row gradients against a plain loop, clipping, noise of the stated size, Poisson sampling."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedsim.errors import ModelFileError
from fedsim.models.real.dp_sgd import (
    Protection,
    clipped_sum,
    poisson_draws,
    row_gradients,
    sampling_rate,
    tune,
)
from fedsim.models.real.row_generator import whole_row
from fedsim.models.real.training import answer_loss, encode_rows
from fedsim.models.real.weights import weights_sha256
from fedsim.privacy.config import TuningConfig
from tests.samples.tiny_models import questions, tokenizer, trained_network

SETTINGS = TuningConfig(steps=5, batch_size=8, learning_rate=1e-3)


class SharedTwice(torch.nn.Module):
    """An untied head after two linear layers of one weight, or one layer that is called twice."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        size = len(tokenizer())
        self.embed = torch.nn.Embedding(size, 8)
        self.first = torch.nn.Linear(8, 8, bias=False)
        self.second = torch.nn.Linear(8, 8, bias=False)
        if calls == 1:
            self.second.weight = self.first.weight
        self.head = torch.nn.Linear(8, size, bias=False)
        self.calls = calls

    def forward(self, input_ids, use_cache):
        hidden = self.embed(input_ids)
        for _ in range(self.calls):
            hidden = self.first(hidden)
        return SimpleNamespace(logits=self.head(self.second(hidden)))


@pytest.fixture(scope="module")
def encoded():
    # Long and short rows, and one whose tokens repeat: the embedding's gradient then has terms of equal tokens.
    rows = [*questions()[:12], *questions()[-4:]]
    return encode_rows(tokenizer(), [*map(whole_row, rows), *rows[:2]])


def one_by_one(network, rows):
    """Gradients of the rows' own mean token losses, each by a backward pass of its own: ``[B][weights]``."""
    gradients = []
    for row in rows:
        ids = torch.tensor([row.ids])
        labels = torch.tensor([[*([-100] * row.num_prompt), *row.ids[row.num_prompt :]]])
        loss = answer_loss(network, ids, labels)
        gradients.append(torch.autograd.grad(loss, list(network.parameters())))
    return gradients


def norms(gradients):
    return torch.tensor([math.sqrt(sum(float(g.double().square().sum()) for g in row)) for row in gradients])


def test_norms_and_sums_of_row_gradients_are_those_of_a_plain_loop(encoded):
    network = deepcopy(trained_network())
    loop = one_by_one(network, encoded)
    found = row_gradients(network, encoded)
    assert torch.allclose(found.norms, norms(loop), rtol=1e-4, atol=1e-6)
    factors = torch.linspace(0.1, 2.0, len(encoded))
    for weight, total in enumerate(found.weighted_sum(factors)):
        expected = sum(factor * row[weight] for factor, row in zip(factors, loop, strict=True))
        assert torch.allclose(total, expected, rtol=1e-3, atol=1e-5)


def test_clipping_bounds_what_any_row_adds(encoded):
    network = deepcopy(trained_network())
    loop = one_by_one(network, encoded)
    clip_norm = float(norms(loop).median())
    assert norms(loop).min() < clip_norm < norms(loop).max()
    expected = [
        sum(
            row[weight] * min(1.0, clip_norm / float(norm))
            for row, norm in zip(loop, norms(loop), strict=True)
        )
        for weight in range(len(loop[0]))
    ]
    for total, wanted in zip(clipped_sum(network, encoded, clip_norm), expected, strict=True):
        assert torch.allclose(total, wanted, rtol=1e-3, atol=1e-5)
    # The sensitivity that the accountant assumes: without one row the sum moves by at most C.
    whole = clipped_sum(network, encoded, clip_norm)
    for left_out in range(len(encoded)):
        rest = clipped_sum(network, [*encoded[:left_out], *encoded[left_out + 1 :]], clip_norm)
        moved = math.sqrt(
            sum(float((a - b).double().square().sum()) for a, b in zip(whole, rest, strict=True))
        )
        assert moved <= clip_norm * (1 + 1e-4)


def test_the_padding_of_longer_neighbours_changes_no_row(encoded):
    network = deepcopy(trained_network())
    short = min(encoded, key=lambda row: len(row.ids))
    alone = row_gradients(network, [short]).norms[0]
    among = row_gradients(network, [short, max(encoded, key=lambda row: len(row.ids))]).norms[0]
    assert float(among) == pytest.approx(float(alone), rel=1e-4)


def test_row_gradients_leave_the_network_as_it_was(encoded):
    network = deepcopy(trained_network())
    before = weights_sha256(network)
    row_gradients(network, encoded)
    assert weights_sha256(network) == before
    assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_with_other_weights_is_refused(encoded):
    network = deepcopy(trained_network())
    network.register_parameter("extra", torch.nn.Parameter(torch.zeros(3)))
    with pytest.raises(ModelFileError, match="row gradients are not known"):
        row_gradients(network, encoded)


@pytest.mark.parametrize("calls", [1, 2])
def test_a_weight_that_is_used_twice_is_refused_and_the_network_left_as_it_was(encoded, calls):
    network = SharedTwice(calls)
    with pytest.raises(ModelFileError, match=r"first\.weight of SharedTwice is used 2 times"):
        row_gradients(network, encoded)
    assert all(weight.requires_grad for weight in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_an_untied_network_has_the_norms_of_a_plain_loop(encoded):
    torch.manual_seed(1)
    network = SharedTwice(calls=1)
    network.second.weight = torch.nn.Parameter(torch.randn(8, 8))
    loop = one_by_one(network, encoded)
    assert torch.allclose(row_gradients(network, encoded).norms, norms(loop), rtol=1e-4, atol=1e-6)


def test_every_row_takes_part_by_a_coin_of_its_own():
    settings = SETTINGS.model_copy(update={"steps": 2000})
    draws = poisson_draws(40, settings, seed=3)
    assert sampling_rate(40, settings) == 0.2
    sizes = np.array([len(step) for step in draws])
    # Binomial(40, .2): mean 8, variance 6.4; five standard errors.
    assert sizes.mean() == pytest.approx(8.0, abs=5 * math.sqrt(6.4 / 2000))
    assert sizes.var() == pytest.approx(6.4, rel=0.2)
    counts = np.bincount([i for step in draws for i in step], minlength=40)
    assert np.abs(counts - 400).max() < 5 * math.sqrt(2000 * 0.2 * 0.8)
    assert draws == poisson_draws(40, settings, seed=3) != poisson_draws(40, settings, seed=4)


def test_fewer_rows_than_a_batch_all_take_part_in_every_step():
    assert sampling_rate(5, SETTINGS) == 1.0
    assert poisson_draws(5, SETTINGS, seed=1) == [[0, 1, 2, 3, 4]] * 5


def test_tuning_is_a_pure_function_of_its_arguments(encoded):
    def tuned(seed=1, noise=1.0):
        torch.manual_seed(seed + 7)
        network = deepcopy(trained_network())
        tune(network, encoded, SETTINGS, Protection(0.5, noise), seed)
        return weights_sha256(network)

    assert tuned() == tuned()
    assert len({tuned(), tuned(seed=2), tuned(noise=2.0), tuned(noise=0.0)}) == 4


def test_plain_tuning_learns_and_heavy_noise_does_not():
    rows = [replace(row, answer="7") for row in questions()[:40]]
    encoded = encode_rows(tokenizer(), rows)
    settings = SETTINGS.model_copy(update={"steps": 60, "batch_size": 16, "learning_rate": 5e-3})
    batch = torch.tensor([[*row.ids] for row in encoded if len(row.ids) == len(encoded[0].ids)])
    labels = batch.clone()
    labels[:, : encoded[0].num_prompt] = -100

    def loss_after(protection):
        network = deepcopy(trained_network())
        tune(network, encoded, settings, protection, seed=1)
        return float(answer_loss(network, batch, labels).detach())

    plain, clipped, noisy = (loss_after(p) for p in (None, Protection(0.5, 0.0), Protection(0.5, 50.0)))
    assert plain < 0.2
    assert clipped < 0.2
    assert noisy > 1.0


def noise_of_steps(monkeypatch, steps: int) -> list[list[torch.Tensor]]:
    """``[step][weight]``: with rate 1 and rows whose clipped sum is tiny, gradients are noise of deviation z C / B."""
    seen: list[list[torch.Tensor]] = []

    class Watching(torch.optim.AdamW):
        def step(self, closure=None):
            seen.append([weight.grad / (3.0 * 1e-6 / 4) for weight in self.param_groups[0]["params"]])

    monkeypatch.setattr(torch.optim, "AdamW", Watching)
    rows = encode_rows(tokenizer(), list(questions()[:4]))
    settings = TuningConfig(steps=steps, batch_size=4)
    tune(deepcopy(trained_network()), rows, settings, Protection(1e-6, 3.0), seed=9)
    return seen


def correlation(first: torch.Tensor, last: torch.Tensor) -> float:
    """Of the numbers that both have, in standard errors of independent ones."""
    size = min(first.numel(), last.numel())
    both = torch.stack([first.flatten()[:size], last.flatten()[:size]])
    return float(torch.corrcoef(both)[0, 1]) * math.sqrt(size)


def test_noise_has_the_stated_deviation(monkeypatch):
    (grads,) = noise_of_steps(monkeypatch, 1)
    noise = torch.cat([grad.flatten() for grad in grads])
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.03)


def test_noise_is_independent_from_step_to_step_and_from_weight_to_weight(monkeypatch):
    steps = noise_of_steps(monkeypatch, 3)
    for before, after in combinations(steps, 2):
        for one, other in zip(before, after, strict=True):
            assert abs(correlation(one, other)) < 5
    for one, other in combinations(steps[0], 2):
        assert abs(correlation(one, other)) < 5
