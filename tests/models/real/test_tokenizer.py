"""The tokenizer: templates are single tokens, numbers are right-aligned pairs of digits, nothing is lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fedsim.models.real.tokenizer import build_tokenizer, template_pieces
from fedsim.tasks.questions import Question
from tests.samples.tiny_models import questions, tokenizer


def _tokens(text: str, built=None) -> list[str]:
    built = built or tokenizer()
    return built.convert_ids_to_tokens(built(text)["input_ids"])


def test_every_question_and_answer_decodes_to_itself():
    built = tokenizer()
    for question in questions():
        assert built.decode(built(question.text)["input_ids"], skip_special_tokens=True) == question.text
        assert built.decode(built(question.answer, add_special_tokens=False)["input_ids"]) == question.answer


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_any_printable_text_decodes_to_itself(text):
    built = tokenizer()
    assert built.decode(built(text)["input_ids"], skip_special_tokens=True) == text


def test_constant_template_pieces_are_one_token_each_and_data_is_characters():
    assert _tokens("What is 3 + 4? Answer:") == ["What is ", "3", " + ", "4", "? Answer:", "<answer>"]
    assert _tokens("Spell this word backward: sun") == [
        "Spell this word backward: ",
        "s",
        "u",
        "n",
        "<answer>",
    ]


def test_numbers_are_chunks_of_two_digits_aligned_to_the_right():
    built = tokenizer()
    for text, chunks in {"7": ["7"], "42": ["42"], "104": ["1", "04"], "12345": ["1", "23", "45"]}.items():
        assert built.convert_ids_to_tokens(built(text, add_special_tokens=False)["input_ids"]) == chunks


def test_the_vocabulary_does_not_depend_on_the_order_of_the_questions():
    assert build_tokenizer(reversed(questions())).get_vocab() == tokenizer().get_vocab()


def test_a_word_that_varies_is_no_template_piece():
    pieces = template_pieces(questions())
    assert "Spell this word backward: " in pieces
    assert not any("sun" in piece for piece in pieces)


def test_questions_without_any_template_still_decode_to_themselves():
    rows = [Question(i, "free", f"{chr(97 + i)}é{i}?", "ü") for i in range(20)]
    built = build_tokenizer(rows)
    for row in rows:
        assert built.decode(built(row.text)["input_ids"], skip_special_tokens=True) == row.text


def test_saved_tokenizer_loads_with_auto_tokenizer_and_encodes_the_same(tmp_path):
    tokenizer().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.eos_token_id == tokenizer().eos_token_id
    for question in questions():
        assert loaded(question.text)["input_ids"] == tokenizer()(question.text)["input_ids"]
        assert loaded.decode(loaded(question.text)["input_ids"], skip_special_tokens=True) == question.text
