"""The policy's losses on a real network: gradients of the formulas written out, and ratios by staleness."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import Draw
from fedsim.models.real.gradients import parts_of
from fedsim.models.real.likelihood import answer_scores
from fedsim.models.real.objective import Totals
from fedsim.rl.advantages import discriminative_labels
from fedsim.rl.losses import clipped_surrogate, decoupled_surrogate
from tests.samples.tiny_models import policy, questions, trained_network

DRAWS = [Draw(index, question) for index, question in enumerate(questions()[:20])]


def _noisy(share=0.25, seed=0):
    """The tiny network with noise on its weights, so that it is often wrong."""
    network = deepcopy(trained_network())
    _shake(network, share, seed)
    return network


@torch.no_grad()
def _shake(network, share, seed):
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        if weight.ndim == 2:
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight += share * weight.std() * noise


def _sampled(config, share=0.05):
    """A double-precision policy, groups it sampled in full, and weights that have moved on since.

    How many of its groups are full is a matter of rounding: on one CPU 5 of the first 10, on another 6.
    """
    live = policy(config, network=_noisy())
    live.language.network.double()
    groups = [g for g in live.sample(DRAWS) if not any(c.truncated for c in g.candidates)][:6]
    assert len(groups) == 6
    live.take_down()
    _shake(live.language.network, share, seed=1)
    return live, groups


def _log_probs(live, groups):
    """Per group and candidate: differentiable log-probabilities of its tokens at the live weights, and when sampled."""
    found = []
    for group in groups:
        prompt = live.language.prompt_ids(group.draw.question.text)
        kept = live._behaviours[group.draw.index]
        for ids, behaviour in zip(kept.ids, kept.log_probs, strict=True):
            logits = live.language.network(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
            found.append((logits.log_softmax(-1)[range(len(ids)), list(ids)], behaviour.double()))
    return found


def _gradients(live, groups, gains):
    """The gradient that one pass makes."""
    weights = list(live.language.network.parameters())
    rows, count = live._rows(groups, gains)
    for weight in weights:
        weight.grad = None
    totals = Totals()
    live._backward(parts_of(live.language, rows, count, live.config.questions_per_pass), totals)
    return [weight.grad.clone() for weight in weights], totals


def _assert_gradient_of(live, groups, gains, naive_loss):
    found, totals = _gradients(live, groups, gains)
    expected = torch.autograd.grad(naive_loss, list(live.language.network.parameters()))
    assert any(float(part.abs().max()) > 1e-6 for part in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert totals.loss == pytest.approx(
        float(naive_loss.detach()), rel=1e-5, abs=1e-6
    )  # terms of order one, float32


@pytest.mark.parametrize("ratio", ["clipped", "decoupled"])
@pytest.mark.parametrize("loss", ["sequences", "tokens", "dr_grpo", "bnpo"])
def test_the_gradient_of_an_update_is_that_of_the_loss_written_out(loss, ratio):
    keys = {"loss_mean": loss} if loss in ("sequences", "tokens") else {"loss": loss}
    config = PolicyConfig(ratio=ratio, max_new_tokens=12, bnpo_groups=2, questions_per_pass=3, **keys)
    live, groups = _sampled(config)
    gains = [np.where(np.arange(8) % 3 == 0, 1.0, -0.5) for _ in groups]
    scored = _log_probs(live, groups)
    lengths = [len(now) for now, _ in scored]
    of_batch = [index // 8 // 2 for index in range(len(scored))]
    tokens = {b: sum(n for n, own in zip(lengths, of_batch, strict=True) if own == b) for b in of_batch}
    total = torch.zeros((), dtype=torch.float64)
    for index, ((now, behaviour), gain) in enumerate(zip(scored, np.concatenate(gains), strict=True)):
        gain_row, clip = torch.tensor([gain]), (config.clip_low, config.clip_high)
        row = (now[None], behaviour[None], gain_row)
        values = (
            clipped_surrogate(*row, *clip)
            if ratio == "clipped"
            else decoupled_surrogate(now[None], now.detach()[None], *row[1:], *clip, 2.0)
        )
        divisor = {
            "sequences": lengths[index] * len(scored),
            "tokens": sum(lengths),
            "dr_grpo": len(scored) * 12,
            "bnpo": tokens[of_batch[index]] * len(tokens),
        }[loss]
        total = total - values.sum() / divisor
    _assert_gradient_of(live, groups, gains, total)


@pytest.mark.parametrize("score", ["log_likelihood", "likelihood_ratio"])
@pytest.mark.parametrize("max_kl", [1e-6, 1e3], ids=["hinge active", "hinge idle"])
def test_the_gradient_of_disco_is_that_of_its_objective_with_the_squared_hinge_written_out(score, max_kl):
    disco = {"score": score, "tau": 2.0, "max_kl": max_kl, "penalty": 30.0}
    config = PolicyConfig(loss="disco_constrained", disco=disco, max_new_tokens=12, questions_per_pass=3)
    live, groups = _sampled(config)
    labels = [np.where(np.arange(8) % 3 == 0, 1.0, -1.0) for _ in groups]
    labels[0] = np.zeros(8)  # of one kind: adds nothing, but is counted, and its tokens are in the divergence
    scored = _log_probs(live, groups)
    total, divergence = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for place, label in enumerate(labels):
        rows = scored[8 * place : 8 * place + 8]
        values = [
            now.mean() if score == "log_likelihood" else (now - behaviour).exp().mean()
            for now, behaviour in rows
        ]
        divergence = divergence + sum((behaviour - now).sum() for now, behaviour in rows)
        right = [value for value, one in zip(values, label, strict=True) if one > 0]
        wrong = [value for value, one in zip(values, label, strict=True) if one < 0]
        for good in right:
            inner = sum(((bad - good) / 2.0).exp() for bad in wrong) / len(wrong)
            total = total + 2.0 * inner.log() / len(right) / len(groups)
    mean_kl = divergence / sum(len(now) for now, _ in scored)
    assert (float(mean_kl.detach()) > max_kl) == (max_kl < 1)
    _assert_gradient_of(live, groups, labels, total + 30.0 * (mean_kl - max_kl).clamp(min=0.0) ** 2)


def test_bnpo_with_one_batch_and_grpo_over_tokens_learn_the_same():
    one = policy(PolicyConfig(loss="bnpo", bnpo_groups=100), network=_noisy())
    other = policy(PolicyConfig(), network=_noisy())
    found = []
    for live in (one, other):
        groups = live.sample(DRAWS)
        found.append(live.update(groups, _labels(groups)))
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-5)
    assert found[0].grad_norm == pytest.approx(found[1].grad_norm, rel=1e-4)


def _disco(penalty, passes):
    disco = {"penalty": penalty, "max_kl": 1e-4}
    keys = {"learning_rate": 2e-3, "warmup_updates": 0, "inner_passes": passes}
    return policy(PolicyConfig(loss="disco_constrained", disco=disco, **keys), network=_noisy())


def test_disco_constrained_learns():
    live = _disco(1e3, passes=1)
    before = live.evaluate(questions(), 8).pass_at_1
    for step in range(8):
        groups = live.sample([Draw(100 * step + i, question) for i, question in enumerate(questions()[::2])])
        live.update(groups, _labels(groups))
    assert live.evaluate(questions(), 8).pass_at_1 > before + 0.05


def test_the_constraint_keeps_the_passes_of_one_update_close_to_the_policy_that_sampled(tmp_path):
    def drift(penalty):
        """Token mean of log pi_old - log pi over the update's candidates, which is what the constraint bounds."""
        live = _disco(penalty, passes=10)
        groups = live.sample(DRAWS)
        live.save_state(tmp_path / f"{penalty}")
        memory = json.loads((tmp_path / f"{penalty}" / "learning.json").read_text())["behaviours"]
        live.update(groups, _labels(groups))
        prompts = [live.language.prompt_ids(group.draw.question.text) for group in groups]
        kept = [memory[str(group.draw.index)] for group in groups]
        owners = [owner for owner, one in enumerate(kept) for _ in one["ids"]]
        answers = [tuple(ids) for one in kept for ids in one["ids"]]
        with torch.no_grad():
            scores = answer_scores(live.language, prompts, owners, answers, live.config.temperature)
        old = [row for one in kept for row in one["log_probs"]]
        moved = [
            sum(row) - float(now[: len(row)].sum()) for row, now in zip(old, scores.log_probs, strict=True)
        ]
        return sum(moved) / sum(map(len, old))

    assert drift(1e4) < 0.5 * drift(0.0)


# ------------------------------------------------------------------------------------------------------- ratios on record


def _labels(groups):
    return [
        discriminative_labels(np.array([[float(t == g.draw.question.answer) for t in g.texts]]))
        for g in groups
    ]


def _gains(groups):
    return [np.linspace(-1, 1, 8) for _ in groups]


def _two_ages(**keys):
    """A policy, and groups of which half were sampled before its last step."""
    live = policy(
        PolicyConfig(learning_rate=5e-3, warmup_updates=0, record_ratios=True, **keys), network=_noisy()
    )
    old = live.sample(DRAWS[:10])
    first = live.sample([Draw(50 + i, draw.question) for i, draw in enumerate(DRAWS)])
    live.update(first, _gains(first))
    fresh = live.sample(DRAWS[10:])
    return live, [*old, *fresh]


def test_ratios_by_staleness_are_those_of_the_sampled_tokens():
    live, groups = _two_ages()
    live.take_down()
    with torch.no_grad():
        scored = _log_probs(live, groups)
    stats = live.update(groups, _gains(groups))
    fresh, stale = stats.by_staleness
    assert (fresh.staleness, stale.staleness) == (0, 1)
    assert (fresh.mean_ratio, fresh.effective_share, fresh.clip_fraction, fresh.divergence) == (1, 1, 0, 0)
    ended = [not c.truncated for g in groups for c in g.candidates]
    kept = [row for row, keep in list(zip(scored, ended, strict=True))[:80] if keep]
    weights = torch.cat([(now.double() - behaviour).exp() for now, behaviour in kept])
    assert stale.num_tokens == len(weights)
    assert stale.mean_ratio == pytest.approx(float(weights.mean()), rel=1e-4)
    share = float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))
    assert stale.effective_share == pytest.approx(share, rel=1e-4)
    assert 0 < stale.effective_share < 1
    assert stale.divergence == pytest.approx(-float(weights.log().mean()), rel=1e-3)
    assert stale.truncated_share == pytest.approx(float((weights > 2.0).double().mean()))
    assert stats.clip_fraction == pytest.approx(
        sum(part.clip_fraction * part.num_tokens for part in stats.by_staleness)
        / sum(part.num_tokens for part in stats.by_staleness)
    )


def test_clipping_around_the_behaviour_policy_silences_stale_tokens_and_decoupling_does_not():
    clipped, decoupled = ({}, {})
    for ratio, into in (("clipped", clipped), ("decoupled", decoupled)):
        live, groups = _two_ages(ratio=ratio)
        into["stats"] = live.update(groups, _gains(groups)).by_staleness
    assert clipped["stats"][1].clip_fraction > 0.02
    assert decoupled["stats"][1].clip_fraction == 0.0  # one pass: nobody has moved since the update began
    assert decoupled["stats"][1].effective_share == clipped["stats"][1].effective_share


def test_later_passes_are_clipped_around_the_start_of_the_update():
    keys = {"inner_passes": 3, "clip_low": 0.05, "clip_high": 0.05}
    live, groups = _two_ages(ratio="decoupled", **keys)
    fresh, stale = live.update(groups, _gains(groups)).by_staleness
    assert 0 < fresh.clip_fraction < 1 and 0 < stale.clip_fraction < 1


def test_on_policy_one_pass_of_decoupled_learns_the_bits_of_clipped():
    hashes = set()
    for ratio in ("clipped", "decoupled"):
        live = policy(PolicyConfig(ratio=ratio), network=_noisy())
        groups = live.sample(DRAWS)
        live.update(groups, _gains(groups))
        hashes.add(live.weights_sha256())
    assert len(hashes) == 1


def test_putting_ratios_on_record_changes_no_weight_and_without_it_there_are_none():
    found = {}
    for recorded in (False, True):
        live = policy(PolicyConfig(record_ratios=recorded, inner_passes=2), network=_noisy())
        groups = live.sample(DRAWS)
        stats = live.update(groups, _gains(groups))
        found[recorded] = live.weights_sha256(), replace(stats, by_staleness=())
        assert bool(stats.by_staleness) == recorded
    assert found[False] == found[True]


def test_the_labels_of_a_group_without_scores_train_nothing():
    live = policy(PolicyConfig(loss="disco_constrained", record_ratios=True))
    groups = live.sample(DRAWS[:2])
    before = live.weights_sha256()
    stats = live.update(groups, [np.full(8, math.nan) for _ in groups])
    assert live.weights_sha256() == before
    assert (stats.loss, stats.by_staleness) == (0.0, ())
