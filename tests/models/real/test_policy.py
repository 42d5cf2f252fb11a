"""The policy: one update is one version, masks are exact, merging changes nothing, and it can learn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedsim.errors import ModelFileError
from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import CandidateGroup, Draw
from fedsim.models.real.evaluation import pass_at_k
from fedsim.models.real.gradients import parts_of
from fedsim.models.real.likelihood import answer_scores
from fedsim.models.real.objective import Totals
from fedsim.models.real.weights import weights_sha256
from fedsim.rl.advantages import advantages
from tests.samples.tiny_models import language, policy, questions, trained_network

LONG = PolicyConfig(max_new_tokens=24)
DRAWS = [Draw(index, question) for index, question in enumerate(questions()[:24])]


def _truth(groups):
    """Group-relative advantages of the true answers."""
    return [
        advantages(np.array([[float(text == group.draw.question.answer) for text in group.texts]]))
        for group in groups
    ]


def _gradients(live, groups, gains) -> list[torch.Tensor]:
    rows, count = live._rows(groups, gains)
    weights = list(live.language.network.parameters())
    for weight in weights:
        weight.grad = None
    if rows:
        live._backward(parts_of(live.language, rows, count, 128), Totals())
    return [torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for weight in weights]


def _norm(gradients) -> float:
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))


def test_one_update_is_one_version_whatever_the_inner_passes():
    live = policy(PolicyConfig(inner_passes=3))
    groups = live.sample(DRAWS)
    assert {group.policy_version for group in groups} == {0}
    live.update(groups, _truth(groups))
    assert live.version == 1
    assert {group.policy_version for group in live.sample(DRAWS)} == {1}


def test_updates_with_the_truth_raise_accuracy():
    live = policy(PolicyConfig(learning_rate=2e-3, warmup_updates=1), network=_weakened())
    before = live.evaluate(questions(), 8)
    for step in range(12):
        groups = live.sample([Draw(100 * step + i, question) for i, question in enumerate(questions()[::2])])
        live.update(groups, _truth(groups))
    after = live.evaluate(questions(), 8)
    assert after.pass_at_1 > before.pass_at_1 + 0.05
    assert before.kl_to_initial == pytest.approx(0.0, abs=1e-6)
    assert after.kl_to_initial > 0.001


def test_two_policies_with_one_seed_learn_the_same_bits():
    def learned():
        live = policy(PolicyConfig(inner_passes=2, kl_weight=0.1))
        for step in range(2):
            groups = live.sample([Draw(24 * step + i, draw.question) for i, draw in enumerate(DRAWS)])
            stats = live.update(groups, _truth(groups))
        return live.weights_sha256(), stats

    assert learned() == learned()


def test_behaviour_log_probabilities_equal_those_of_the_loss_at_the_same_version():
    live = policy(network=_weakened())
    groups = live.sample(DRAWS)
    assert {row.behaviour for row in live._rows(groups, [np.arange(8.0) for _ in groups])[0]} == {None}
    live.take_down()
    rows, count = live._rows(groups, [np.arange(8.0) for _ in groups])
    for part in parts_of(live.language, rows, count, 128):
        answers = [row.ids for row in part.rows]
        scores = answer_scores(live.language, part.prompts, part.owners, answers, live.config.temperature)
        for row, log_probs in zip(part.rows, scores.log_probs, strict=True):
            assert torch.equal(log_probs[: len(row.ids)].detach(), row.behaviour)
    assert live.update(groups, [np.arange(8.0) for _ in groups]).clip_fraction == 0.0


@pytest.mark.parametrize("keys", [{}, {"ratio": "decoupled"}, {"inner_passes": 2}, {"record_ratios": True}])
def test_log_probabilities_that_the_pass_itself_computes_change_no_bit(keys):
    """Two updates: the second trains groups of both versions, so some are of the live policy and some are not."""
    config = PolicyConfig(warmup_updates=1, learning_rate=1e-3, **keys)

    def learned(takes_down):
        live = policy(config, network=_weakened())
        first, second = live.sample(DRAWS[:16]), []
        said = []
        for trained, sampled in ((slice(0, 8), DRAWS[16:]), (slice(8, 24), [])):
            if takes_down:
                live.take_down()
            groups = [*first, *second][trained]
            said.append(live.update(groups, [np.linspace(-1, 1, len(group.texts)) for group in groups]))
            second = live.sample(sampled) if sampled else second
        return live.weights_sha256(), said

    assert learned(takes_down=False) == learned(takes_down=True)


def test_a_state_that_is_kept_holds_the_log_probabilities_of_the_policy_that_sampled(tmp_path):
    live = policy(network=_weakened())
    groups = live.sample(DRAWS)
    live.save_state(tmp_path / "state")
    rows, _ = live._rows(groups, [np.arange(8.0) for _ in groups])
    assert all(row.behaviour is not None for row in rows)
    again = policy(network=_weakened())
    again.restore_state(tmp_path / "state")
    gains = [np.linspace(-1, 1, len(group.texts)) for group in groups]
    assert again.update(groups, gains) == live.update(groups, gains)
    assert again.weights_sha256() == live.weights_sha256()


def test_unscored_and_truncated_candidates_have_no_gradient_and_are_not_counted():
    live = policy(LONG, network=_weakened())
    groups = _all_ended(live.sample(DRAWS[:8]))
    gains = [np.linspace(-1, 1, 8) for _ in groups]
    masked = [np.where(np.arange(8) < 3, np.nan, row) for row in gains]
    cut = [
        replace(g, candidates=tuple(replace(c, truncated=i < 3) for i, c in enumerate(g.candidates)))
        for g in groups
    ]
    expected = _gradients(live, groups, masked)
    assert _norm(expected) > 0
    for one, other in zip(expected, _gradients(live, cut, gains), strict=True):
        assert torch.equal(one, other)
    tokens = sum(c.num_tokens for g in groups for c in g.candidates[3:])
    assert live._rows(groups, masked)[1] == tokens


def test_merged_duplicates_and_left_out_zeros_give_the_gradient_of_the_plain_sum():
    live = policy(LONG, network=_weakened())
    live.language.network.double()
    groups = _all_ended(live.sample(DRAWS[:8]))
    gains = [np.where(np.arange(8) % 3 == 0, 0.0, 1.0) - 0.5 * (np.arange(8) % 3 == 1) for _ in groups]
    merged = _gradients(live, groups, gains)
    rows, count = live._rows(groups, gains)
    assert len(rows) < 8 * len(groups)
    plain = torch.zeros((), dtype=torch.float64)
    for group, row in zip(groups, gains, strict=True):
        prompt = live.language.prompt_ids(group.draw.question.text)
        for ids, gain in zip(live._behaviours[group.draw.index].ids, row, strict=True):
            logits = live.language.network(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
            plain = plain - gain * logits.log_softmax(-1)[range(len(ids)), list(ids)].sum() / count
    expected = torch.autograd.grad(plain, list(live.language.network.parameters()))
    for one, other in zip(merged, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_mean_over_sequences_weighs_long_and_short_candidates_alike():
    live = policy(PolicyConfig(loss_mean="sequences", max_new_tokens=24), network=_weakened())
    groups = _all_ended(live.sample(DRAWS[:8]))
    rows, count = live._rows(groups, [np.arange(1.0, 9.0) for _ in groups])
    assert count == pytest.approx(8 * len(groups))
    assert sum(row.weight * len(row.ids) for row in rows) == pytest.approx(count)


def test_literal_grouping_has_no_gradient_where_candidates_has_one():
    live = policy(PolicyConfig(weight_decay=0.0, kl_weight=0.0), network=_weakened())
    live.language.network.double()
    groups = live.sample(DRAWS)
    rewards = [np.random.default_rng(i).random((2, 8)) for i, _ in enumerate(groups)]
    norms = {
        grouping: _norm(_gradients(live, groups, [advantages(r, grouping=grouping) for r in rewards]))
        for grouping in ("literal", "candidates")
    }
    assert norms["candidates"] > 0
    assert norms["literal"] < 1e-9 * norms["candidates"]


def test_the_kl_weight_pulls_back_to_the_initial_policy():
    def drift(kl_weight):
        live = policy(
            PolicyConfig(learning_rate=2e-3, warmup_updates=1, kl_weight=kl_weight), network=_weakened()
        )
        for step in range(6):
            groups = live.sample([Draw(24 * step + i, draw.question) for i, draw in enumerate(DRAWS)])
            live.update(groups, _truth(groups))
        return live.evaluate(questions(), 8).kl_to_initial

    assert drift(5.0) < 0.5 * drift(0.0)


def test_an_update_without_any_scored_candidate_leaves_the_weights():
    live = policy()
    groups = live.sample(DRAWS[:2])
    before = live.weights_sha256()
    stats = live.update(groups, [np.full(8, np.nan) for _ in groups])
    assert live.weights_sha256() == before and live.version == 1
    assert (stats.loss, stats.grad_norm) == (0.0, 0.0)


def test_a_group_that_was_forgotten_or_never_sampled_is_refused():
    live = policy()
    (group,) = live.sample(DRAWS[:1])
    live.forget([0])
    with pytest.raises(ValueError, match="draw 0 was not sampled"):
        live.update([group], [np.zeros(8)])
    with pytest.raises(ValueError, match="draw 9 was not sampled"):
        live.update([CandidateGroup(Draw(9, questions()[0]), 0, group.candidates)], [np.zeros(8)])


def test_the_rate_rises_over_the_warm_up():
    live = policy(PolicyConfig(learning_rate=1e-3, warmup_updates=4))
    rates = []
    for step in range(6):
        groups = live.sample([Draw(10 * step, questions()[0])])
        live.update(groups, [np.zeros(8)])
        rates.append(live._optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3])


def test_fitting_raises_accuracy_on_its_rows_and_makes_one_version():
    live = policy(PolicyConfig(fit_learning_rate=3e-3), network=_weakened())
    before = live.evaluate(questions()[:30], 0)
    live.fit(questions()[:30], 40)
    after = live.evaluate(questions()[:30], 0)
    assert live.version == 1
    assert after.greedy > before.greedy
    assert math.isnan(after.pass_at_1) and math.isnan(after.pass_at_8)


def test_measuring_changes_nothing_and_repeats_itself():
    live = policy()
    before = live.weights_sha256()
    first = live.evaluate(questions(), 8)
    assert live.evaluate(tuple(reversed(questions())), 8).greedy == first.greedy
    assert live.evaluate(questions(), 8) == first
    assert live.weights_sha256() == before
    assert live.sample(DRAWS) == policy().sample(DRAWS)


def test_greedy_accuracy_by_domain_adds_up():
    accuracy = policy().evaluate(questions(), 0)
    parts = accuracy.greedy_by_domain
    assert accuracy.greedy == pytest.approx((100 * parts["sums"] + 12 * parts["words"]) / 112)


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [(8, 0, 8, 0.0), (8, 1, 8, 1.0), (8, 2, 1, 0.25), (10, 1, 8, 0.8), (4, 2, 2, 5 / 6)],
)
def test_pass_at_k_has_the_values_worked_by_hand(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(expected)


def test_pass_at_k_from_fewer_than_k_samples_is_unknown():
    assert math.isnan(pass_at_k(4, 2, 8))


def test_embeddings_have_norm_one_come_from_the_initial_policy_and_know_the_domains():
    live = policy(PolicyConfig(learning_rate=1e-2, warmup_updates=1), network=_weakened())
    before = live.embed(questions())
    np.testing.assert_allclose(np.linalg.norm(before, axis=1), 1.0)
    groups = live.sample(DRAWS)
    live.update(groups, _truth(groups))
    assert np.array_equal(live.embed(questions()), before)
    assert np.array_equal(live.embed(questions()[5:6]), before[5:6])
    words = np.array([question.domain == "words" for question in questions()])
    nearest = np.argsort(-(before @ before.T), axis=1)[:, 1:6]
    assert (words[nearest] == words[:, None]).mean() > 0.95


def test_a_saved_policy_is_a_folder_that_transformers_loads_with_the_same_weights(tmp_path):
    live = policy()
    live.save(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert weights_sha256(loaded) == live.weights_sha256()
    text = questions()[12].text
    ids = AutoTokenizer.from_pretrained(tmp_path)(text, return_tensors="pt")["input_ids"]
    plain = loaded(ids).logits[0, -1].argmax()
    assert int(plain) == language().network(ids).logits[0, -1].argmax()
    assert not list(tmp_path.glob("*.bin"))


def test_a_restored_policy_goes_on_bit_for_bit(tmp_path):
    draws = [Draw(100 + i, draw.question) for i, draw in enumerate(DRAWS)]
    straight = policy(network=_weakened())
    groups = straight.sample(DRAWS)
    straight.update(groups, _truth(groups))
    waiting = straight.sample(draws)
    straight.save_state(tmp_path)
    resumed = policy(network=_weakened())
    resumed.restore_state(tmp_path)
    assert resumed.version == 1
    for live in (straight, resumed):
        live.update(waiting, _truth(waiting))
    assert resumed.weights_sha256() == straight.weights_sha256()


def test_a_torn_or_foreign_learning_state_is_refused(tmp_path):
    live = policy()
    with pytest.raises(ModelFileError, match="no learning state"):
        live.restore_state(tmp_path)
    live.save_state(tmp_path)
    (tmp_path / "learning.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelFileError, match="no learning state"):
        live.restore_state(tmp_path)


def _all_ended(groups):
    """Groups without a truncated candidate."""
    kept = [group for group in groups if not any(candidate.truncated for candidate in group.candidates)]
    assert len(kept) >= 3
    return kept


def _weakened():
    """The tiny network with noise on its weights, so that it is often wrong and has something to learn."""
    from copy import deepcopy

    network = deepcopy(trained_network())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight += (
                0.25 * weight.std() * torch.randn(weight.shape, generator=generator)
                if weight.ndim == 2
                else 0
            )
    return network
