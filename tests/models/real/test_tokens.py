"""How questions are asked, what answers begin with, and where they end."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from fedsim.models.config import PolicyConfig
from fedsim.models.real.language import LanguageModel, Shapes, prefill
from fedsim.models.real.sampling import decode
from fedsim.models.real.tokens import Tokens, end_ids
from fedsim.models.real.training import encode_rows
from fedsim.tasks.questions import Question, TextFormat
from tests.samples.tiny_models import language, policy, questions, tokenizer, trained_network

CHAT = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %} = {% endif %}"


def test_answers_are_taught_and_scored_with_their_prefix_and_read_without_it():
    tokens = Tokens(tokenizer(), TextFormat(answer_prefix=" "))
    ids = tokens.answer_ids("12")
    assert tokenizer().decode(list(ids)) == " 12"
    assert tokens.text(ids) == "12"
    assert tokens.plain_ids("12") == ids[1:]  # what is counted is the text
    (row,) = encode_rows(tokenizer(), [Question(0, "sums", "What is 5 + 7? Answer:", "12")], TextFormat(" "))
    assert tokenizer().decode(list(row.ids[row.num_prompt : -1])) == " 12"


def test_a_solution_is_what_is_taught():
    worked = Question(0, "sums", "What is 5 + 7? Answer:", "12", solution="5 + 7 is 12")
    (row,) = encode_rows(tokenizer(), [worked])
    assert tokenizer().decode(list(row.ids[row.num_prompt : -1])) == "5 + 7 is 12"


def test_a_question_stands_in_the_chat_template_once_for_many_and_for_one():
    chatting = deepcopy(tokenizer())
    chatting.chat_template = CHAT
    tokens = Tokens(chatting, chat=True)
    texts = [question.text for question in questions()[:3]]
    tokens.read(texts)
    for text in texts:
        assert chatting.decode(list(tokens.prompt_ids(text))) == f"[{text}] = "
        assert Tokens(chatting, chat=True).prompt_ids(text) == tokens.prompt_ids(text)


def test_sampling_ends_at_every_end_token_of_the_model():
    network = deepcopy(trained_network())
    other = tokenizer()("7", add_special_tokens=False)["input_ids"][0]
    network.generation_config.eos_token_id = [tokenizer().eos_token_id, other]
    assert end_ids(network, tokenizer()) == (tokenizer().eos_token_id, other)
    model = language(network)
    prompts = [model.prompt_ids("What is 3 + 4? Answer:")]
    ((answer,),) = decode(model, prefill(model, prompts, 8), 1, 6, None)
    assert answer.ids[-1] == other and not answer.truncated
    plain = language()
    ((whole,),) = decode(plain, prefill(plain, prompts, 8), 1, 6, None)
    assert whole.ids == (other, tokenizer().eos_token_id)


def test_an_answer_ends_at_a_stop_text_and_is_read_up_to_it():
    model = LanguageModel(
        deepcopy(trained_network()),
        tokenizer(),
        Shapes(8, 8, 16, 32),
        Tokens(tokenizer(), TextFormat(stop=("1",))),
    )
    prompts = [model.prompt_ids("What is 9 + 8? Answer:"), model.prompt_ids("What is 2 + 2? Answer:")]
    (first,), (second,) = decode(model, prefill(model, prompts, 8), 1, 6, None)
    assert "1" in tokenizer().decode(list(first.ids)) and not first.truncated
    assert model.answer_text(first.ids) == ""
    assert model.answer_text(second.ids) == "4" and second.ids[-1] == model.end_id


def test_a_policy_that_stops_at_texts_samples_whole_candidates():
    live = policy(PolicyConfig(max_new_tokens=4))
    live.language.tokens = Tokens(tokenizer(), TextFormat(stop=("1", "0")))
    from fedsim.models.interfaces import Draw

    groups = live.sample([Draw(number, question) for number, question in enumerate(questions()[:12])])
    for group in groups:
        for candidate in group.candidates:
            assert "1" not in candidate.text and "0" not in candidate.text
    assert live.update(groups, [np.linspace(-1, 1, 8) for _ in groups]).grad_norm > 0


@pytest.mark.parametrize("gain", [float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(gain):
    from fedsim.errors import FederationError
    from fedsim.models.interfaces import Draw

    live = policy()
    groups = live.sample([Draw(0, questions()[0])])
    before = [weight.clone() for weight in live.language.network.parameters()]
    with pytest.raises(FederationError, match=r"update 1: the loss is .* lower the learning rate"):
        live.update(groups, [np.full(8, gain)])
    for weight, kept in zip(live.language.network.parameters(), before, strict=True):
        assert torch.equal(weight, kept)
