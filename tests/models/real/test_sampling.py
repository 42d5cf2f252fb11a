"""Sampling and scoring: a row's bits depend on itself alone, and the frequencies are the model's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import Draw
from fedsim.models.real.evaluator import ModelEvaluator
from fedsim.models.real.language import Prefix, prefill
from fedsim.models.real.likelihood import answer_scores
from fedsim.models.real.sampling import decode
from tests.samples.tiny_models import language, policy, questions


def _prefix(model, texts) -> tuple[list, Prefix]:
    prompts = [model.prompt_ids(text) for text in texts]
    return prompts, prefill(model, prompts, model.width(prompts[0]))


def test_a_draw_has_the_same_candidates_alone_and_in_batches_of_7_and_of_96():
    draws = [Draw(index, questions()[index]) for index in range(96)]
    many = {group.draw.index: group for group in policy().sample(draws)}
    few = {group.draw.index: group for group in policy().sample(draws[40:47][::-1])}
    for index in (40, 43, 46):
        alone = policy().sample([draws[index]])[0]
        assert alone.candidates == many[index].candidates == few[index].candidates


def test_behaviour_log_probabilities_have_the_same_bits_in_any_batch():
    draws = [Draw(index, questions()[index]) for index in range(60)]
    together, alone = policy(), policy()
    together.sample(draws)
    for index in (0, 17, 59):
        alone.sample([draws[index]])
        together.take_down()
        alone.take_down()
        pairs = zip(together._behaviours[index].log_probs, alone._behaviours[index].log_probs, strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_likelihoods_have_the_same_bits_early_or_late_alone_or_together():
    asked = [(question.text, [question.answer, "9", "12", "tac"]) for question in questions()[::3]]
    early, late = ModelEvaluator(language(), 8), ModelEvaluator(language(), 8)
    for question, candidates in asked:
        early.expect(question, candidates)
    for question, candidates in reversed(asked):
        assert early.likelihood(question, candidates) == late.likelihood(question, candidates)


def test_an_announced_answer_is_computed_with_the_first_that_is_due_and_is_the_same():
    texts = [f"{n} + {n + 3} =" for n in range(4)]
    evaluator = ModelEvaluator(language(), 8)
    for text in texts:
        evaluator.expect_answer(text)
    first = evaluator.answers(texts[2:3])
    assert set(evaluator._answers) == set(texts)
    together = ModelEvaluator(language(), 8).answers(texts)
    assert [evaluator.answers([text])[0] for text in texts] == together and first == together[2:3]


def test_greedy_answers_are_the_same_alone_and_together():
    texts = [question.text for question in questions()]
    together = ModelEvaluator(language(), 8).answers(texts)
    assert [ModelEvaluator(language(), 8).answers([text])[0] for text in texts[::20]] == together[::20]


def test_log_probabilities_equal_those_of_one_plain_forward_pass():
    model = language()
    texts = [questions()[3].text, questions()[-2].text]
    answers = [model.answer_ids("13"), model.answer_ids("reab")]
    with torch.no_grad():
        prompts, prefix = _prefix(model, texts)
        scores = answer_scores(model, prompts, [0, 1], answers, temperature=0.7, prefix=prefix)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            logits = model.network(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1] / 0.7
            plain = logits.log_softmax(-1)[range(len(answer)), list(answer)]
            torch.testing.assert_close(scores.log_probs[row, : len(answer)], plain, rtol=1e-4, atol=1e-5)
            assert scores.mask[row].sum() == len(answer)


def test_gradients_equal_those_of_one_plain_forward_pass():
    model = language()
    prompt, answer = model.prompt_ids(questions()[0].text), model.answer_ids("75")
    weights = list(model.network.parameters())
    ours = torch.autograd.grad(answer_scores(model, [prompt], [0], [answer]).log_probs.sum(), weights)
    logits = model.network(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    plain = torch.autograd.grad(logits.log_softmax(-1)[range(len(answer)), list(answer)].sum(), weights)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_sampled_frequencies_agree_with_the_models_probabilities():
    model = language()
    text = questions()[57].text
    prompts, prefix = _prefix(model, [text])
    num = 4000
    uniforms = np.random.default_rng(0).random((num, 6))
    sampled = decode(model, prefix, num, 6, uniforms, temperature=1.5)[0]
    counts: dict[tuple[int, ...], int] = {}
    for answer in sampled:
        counts[answer.ids] = counts.get(answer.ids, 0) + 1
    common = sorted(counts, key=counts.__getitem__)[-5:]
    with torch.no_grad():
        scores = answer_scores(model, prompts, [0] * 5, common, temperature=1.5)
    for ids, total in zip(common, scores.log_probs.sum(-1).exp().tolist(), strict=True):
        error = (total * (1 - total) / num) ** 0.5
        assert abs(counts[ids] / num - total) < 4.5 * error


def test_a_lower_temperature_samples_the_greedy_answer_more_often():
    model = language()
    _, prefix = _prefix(model, [questions()[57].text])
    greedy = decode(model, prefix, 1, 6, None)[0][0].ids
    uniforms = np.random.default_rng(1).random((500, 6))

    def share(temperature: float) -> float:
        return float(
            np.mean([a.ids == greedy for a in decode(model, prefix, 500, 6, uniforms, temperature)[0]])
        )

    assert share(0.3) > share(1.0) > share(3.0)


def test_a_batch_that_ends_early_stays_behind_when_the_others_move_together():
    """One batch of short answers, nine of long ones: it has ended while nine tenths of the rows still fill their batches."""
    model = language()
    _, prefix = _prefix(model, [questions()[57].text])
    full, num = model.shapes.decode_rows, 20 * model.shapes.decode_rows
    uniforms = np.random.default_rng(2).random((num, 12))
    mixed = decode(model, prefix, num, 12, uniforms, temperature=2.0)[0]
    order = sorted(range(num), key=lambda row: len(mixed[row].ids))
    order = [*order[:full], *order[-9 * full :]]
    lengths = [len(mixed[row].ids) for row in order]
    assert lengths[full - 1] + 1 < lengths[full] < lengths[-1]
    ordered = decode(model, prefix, len(order), 12, uniforms[order], temperature=2.0)[0]
    assert [answer.ids for answer in ordered] == [mixed[row].ids for row in order]


def test_an_answer_without_end_token_within_the_limit_is_truncated():
    model = language()
    _, prefix = _prefix(model, [questions()[-1].text])
    whole = decode(model, prefix, 1, 12, None)[0][0]
    assert whole.ids[-1] == model.end_id and not whole.truncated
    cut = decode(model, prefix, 1, len(whole.ids) - 1, None)[0][0]
    assert cut.truncated and cut.ids == whole.ids[:-1]


def test_a_question_longer_than_the_canonical_width_is_scored_like_any_other():
    wide, narrow = language(prompt_tokens=20), language(prompt_tokens=3)
    for text, answer in ((q.text, q.answer) for q in questions()[::30]):
        one = ModelEvaluator(wide, 8).likelihood(text, [answer])[0]
        assert ModelEvaluator(narrow, 8).likelihood(text, [answer])[0] == pytest.approx(one, rel=1e-4)


def test_likelihood_is_the_product_of_the_token_probabilities_and_at_most_one():
    model = language()
    text = questions()[4].text
    values = ModelEvaluator(model, 8).likelihood(text, ["4", "5", ""])
    with torch.no_grad():
        scores = answer_scores(
            model, [model.prompt_ids(text)], [0, 0, 0], [model.answer_ids(a) for a in ("4", "5", "")]
        )
    assert values == pytest.approx(scores.log_probs.sum(-1).exp().tolist(), rel=1e-5)
    assert all(0.0 <= value <= 1.0 for value in values)


def test_groups_do_not_depend_on_how_many_questions_a_pass_takes():
    draws = [Draw(index, questions()[index]) for index in range(20)]
    small = policy(PolicyConfig(questions_per_pass=3)).sample(draws)
    assert small == policy(PolicyConfig(questions_per_pass=100)).sample(draws)
