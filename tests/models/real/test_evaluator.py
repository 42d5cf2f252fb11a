"""What counts in a candidate's likelihood: all of it, or the final answer alone, given the candidate's own steps."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from fedsim.models.config import PolicyConfig
from fedsim.models.real.evaluator import ModelEvaluator, in_company
from fedsim.models.real.language import LanguageModel, Shapes
from fedsim.models.real.likelihood import answer_scores
from fedsim.models.real.tokens import Tokens
from fedsim.models.real.zoo import scratch_network
from fedsim.tasks.matching import AnswerRule
from fedsim.tasks.questions import TextFormat
from tests.samples.tiny_models import TINY, language, questions, tokenizer

QUESTION = questions()[23].text
RULE = AnswerRule(pattern="#### ([0-9]+)")
STEPS = "2 + 3 = 5 ; #### 105"


@cache
def model() -> LanguageModel:
    return language(scratch_network(TINY, tokenizer(), 3))


@torch.no_grad()
def log_probs(text: str) -> list[float]:
    one = model()
    scores = answer_scores(one, [one.prompt_ids(QUESTION)], [0], [one.answer_ids(text)])
    return scores.log_probs[0].double().tolist()


def score(text: str, rule: AnswerRule | None) -> float:
    return ModelEvaluator(model(), 8, rule).likelihood(QUESTION, [text])[0]


def test_without_a_rule_all_tokens_and_the_end_token_count():
    assert score(STEPS, None) == math.exp(sum(log_probs(STEPS)))
    assert score("", None) == math.exp(log_probs("")[0])


def test_of_an_answer_its_own_tokens_and_the_end_token_count_given_the_steps_before_it():
    every = log_probs(STEPS)  # ... 1, 05, end
    assert model().answer_text(model().answer_ids(STEPS)[-3:-1]) == "105"
    assert score(STEPS, RULE) == pytest.approx(math.exp(sum(every[-3:])), rel=1e-12)
    assert score(STEPS, RULE) > score(STEPS, None)
    other = STEPS.replace("= 5", "= 6")
    assert score(other, RULE) == pytest.approx(math.exp(sum(log_probs(other)[-3:])), rel=1e-12)
    assert score(other, RULE) != score(STEPS, RULE), "the steps are given, not counted"


def test_what_stands_after_the_answer_does_not_count_and_of_several_answers_the_last_one_does():
    for text, places in (("#### 7 or so", [-8, -1]), ("#### 7 #### 8", [-2, -1])):
        every = log_probs(text)
        ids = model().answer_ids(text)
        assert model().answer_text((ids[places[0]],)) == RULE.extract(text)
        assert score(text, RULE) == pytest.approx(math.exp(sum(every[place] for place in places)), rel=1e-12)


def test_a_candidate_without_an_answer_scores_nothing():
    assert [score(text, RULE) for text in ("2 + 3 = 5", "#### ", "")] == [0.0, 0.0, 0.0]


def test_without_a_pattern_the_whole_text_is_the_answer():
    assert score(STEPS, AnswerRule()) == score(STEPS, None)
    assert score("", AnswerRule()) == score("", None)


def test_evaluators_in_company_count_what_each_was_told_to():
    tokens = Tokens(tokenizer())
    shapes = Shapes(prompt_tokens=8, prompt_rows=8, answer_rows=16, decode_rows=32)
    models = [
        LanguageModel(scratch_network(TINY, tokenizer(), s), tokenizer(), shapes, tokens) for s in (1, 2)
    ]
    rules = (None, RULE)
    together = in_company([ModelEvaluator(one, 4, rule) for one, rule in zip(models, rules, strict=True)])
    texts = [STEPS, "no answer", "#### 5"]
    for evaluator in together:
        evaluator.expect(QUESTION, texts)
    for evaluator, one, rule in zip(together, models, rules, strict=True):
        assert evaluator.likelihood(QUESTION, texts) == ModelEvaluator(one, 4, rule).likelihood(
            QUESTION, texts
        )


def test_the_answer_is_found_behind_a_prefix_that_every_answer_has():
    tokens = Tokens(tokenizer(), TextFormat(answer_prefix=" so "))
    place = RULE.span(STEPS)
    assert place is not None
    ids = tokens.answer_ids(STEPS)
    assert "".join(tokens.text((ids[at],)) for at in tokens.covering(STEPS, *place)) == "105"
    assert list(tokens.covering("", 0, 0)) == []


def test_own_answers_may_be_as_long_as_a_solution():
    assert PolicyConfig(max_new_tokens=96).max_new_tokens == 96
    (text,) = ModelEvaluator(model(), 96).answers([QUESTION])
    assert model().count_tokens(text) <= 96
