"""Models of one architecture that share passes: every score has the bits that its model gives it alone."""

from __future__ import annotations

from copy import deepcopy

import torch

from fedsim.models.real.evaluator import ModelEvaluator, in_company
from fedsim.models.real.language import LanguageModel, Shapes
from fedsim.models.real.stacked import can_stack
from fedsim.models.real.tokens import Tokens
from fedsim.models.real.zoo import scratch_network
from tests.samples.tiny_models import TINY, language, questions, tokenizer, trained_network

TEXTS = [question.text for question in questions()[:40]]
CANDIDATES = ["7", "12", "a longer one", "3", ""]
SHAPES = Shapes(prompt_tokens=8, prompt_rows=8, answer_rows=16, decode_rows=32)


def _languages(number: int = 3) -> list[LanguageModel]:
    """The trained model and others with random weights, with one memory of tokens."""
    tokens = Tokens(tokenizer())
    networks = [
        deepcopy(trained_network()),
        *(scratch_network(TINY, tokenizer(), s) for s in range(number - 1)),
    ]
    return [LanguageModel(network, tokenizer(), SHAPES, tokens) for network in networks]


def _evaluators(languages) -> list[ModelEvaluator]:
    return [ModelEvaluator(one, max_new_tokens=4) for one in languages]


def _load() -> list[tuple[int, str, list[str]]]:
    """Uneven: the first client scores most, the last one a single question that others score too."""
    return (
        [(0, text, CANDIDATES) for text in TEXTS]
        + [(1, t, CANDIDATES[:2]) for t in TEXTS[:5]]
        + [(2, TEXTS[0], ["7"])]
    )


def test_scores_of_a_company_have_the_bits_of_models_by_themselves():
    languages = _languages()
    together, alone = in_company(_evaluators(languages)), _evaluators(languages)
    for client, text, candidates in _load():
        together[client].expect(text, candidates)
    for client, text, candidates in _load():
        assert together[client].likelihood(text, candidates) == alone[client].likelihood(text, candidates)


def test_a_few_questions_that_several_models_score_fit_in_one_pass_and_keep_their_order():
    languages = _languages()
    together, alone = in_company(_evaluators(languages)), _evaluators(languages)
    load = [(client, text) for client in range(3) for text in TEXTS[: 3 - client]]  # questions of few, of all
    for client, text in load:
        together[client].expect(text, CANDIDATES[:3])
    for client, text in load:
        own, expected = (
            together[client].likelihood(text, CANDIDATES),
            alone[client].likelihood(text, CANDIDATES),
        )
        assert own == expected, (client, text)


def test_what_others_have_announced_is_computed_with_the_first_score_that_is_due():
    languages = _languages()
    evaluators = in_company(_evaluators(languages))
    for client, text, candidates in _load():
        evaluators[client].expect(text, candidates)
    evaluators[2].likelihood(TEXTS[0], ["7"])
    for one in languages:
        one.network.requires_grad_(False).model.norm.weight.zero_()  # whoever computes now gets it wrong
    expected = _evaluators(_languages())
    assert evaluators[0].likelihood(TEXTS[3], CANDIDATES) == expected[0].likelihood(TEXTS[3], CANDIDATES)


def test_questions_longer_than_the_canonical_width_are_scored_in_company_too():
    languages = _languages()
    longer = " ".join(TEXTS[:3])
    assert languages[0].width(languages[0].prompt_ids(longer)) > SHAPES.prompt_tokens
    together, alone = in_company(_evaluators(languages)), _evaluators(languages)
    for client in range(3):
        together[client].expect(longer, ["1"])
        together[client].expect(TEXTS[client], ["1"])
    for client in range(3):
        for text in (longer, TEXTS[client]):
            assert together[client].likelihood(text, ["1"]) == alone[client].likelihood(text, ["1"])


def test_models_of_another_vocabulary_width_or_kind_are_not_stacked():
    languages = _languages(2)
    assert can_stack(languages)
    assert not can_stack([languages[0], language()])  # a memory of tokens of its own
    wider = TINY.model_copy(update={"intermediate_size": 96})
    other = LanguageModel(scratch_network(wider, tokenizer(), 1), tokenizer(), SHAPES, languages[0].tokens)
    assert not can_stack([languages[0], other])
    double = LanguageModel(deepcopy(trained_network()).double(), tokenizer(), SHAPES, languages[0].tokens)
    assert not can_stack([languages[0], double])
    evaluators = _evaluators([languages[0], other])
    assert in_company(evaluators)[1].likelihood(TEXTS[0], ["7"]) == _evaluators([other])[0].likelihood(
        TEXTS[0], ["7"]
    )


def test_a_shared_model_is_scored_in_company_with_itself():
    shared = _languages(1)[0]
    together, alone = in_company(_evaluators([shared, shared])), _evaluators([shared])
    together[0].expect(TEXTS[0], CANDIDATES)
    with torch.no_grad():
        assert together[1].likelihood(TEXTS[0], CANDIDATES) == alone[0].likelihood(TEXTS[0], CANDIDATES)
    assert together[0].likelihood(TEXTS[0], CANDIDATES) == alone[0].likelihood(TEXTS[0], CANDIDATES)
