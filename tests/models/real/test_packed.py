"""Packed scores: the same numbers as the ordinary form, in bits that do not depend on company or on remembered layers."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fedsim.models.real import packed
from fedsim.models.real.adapters import shared_copy, with_lora
from fedsim.models.real.embedding import Encoder
from fedsim.models.real.language import LanguageModel, Shapes, prefill
from fedsim.models.real.likelihood import answer_scores
from fedsim.models.real.packed import Pack, SharedLayers, rows_are_independent
from fedsim.models.real.sampling import decode
from fedsim.models.sources import LoraConfig
from tests.samples.tiny_models import questions, tokenizer

LORA = LoraConfig(rank=4, targets=("q_proj", "v_proj", "o_proj", "down_proj"), layers=(2, 3))
SHAPES = Shapes(prompt_tokens=8, prompt_rows=8, answer_rows=16, decode_rows=32)
ANSWERS = ["5", "12", "17", "tac", "dlo", "7"]


def base():
    """A Llama of four layers whose heads share keys, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = LlamaConfig(
            vocab_size=len(tokenizer()), hidden_size=48, intermediate_size=64, num_hidden_layers=4,
            num_attention_heads=6, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval().requires_grad_(False)


def adapted(network, seed=5):
    """Adapters that do something: a fresh B is zero."""
    network = with_lora(shared_copy(network), LORA, 1)
    draws = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        if weight.requires_grad:
            weight.data.copy_(torch.randn(weight.shape, generator=draws) / 8)
    return network


def model(network, packs=True, shared=None):
    return LanguageModel(network, tokenizer(), replace(SHAPES, packs=packs), None, shared)


def asked(language, count=7):
    prompts = [language.prompt_ids(question.text) for question in questions()[:100:15]][:count]
    owners = [place % len(prompts) for place in range(3 * len(prompts))]
    answers = [language.answer_ids(ANSWERS[place % len(ANSWERS)]) for place in range(len(owners))]
    return prompts, owners, answers


def scores(language, **options):
    found = answer_scores(language, *asked(language), entropy=True, **options)
    return found.log_probs, found.entropy, found.mask


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_scores_and_gradients_are_those_of_the_ordinary_form(temperature):
    network = adapted(base())
    slopes, values = [], []
    for packs in (True, False):
        language = model(network, packs)
        assert language.packs == packs
        found = scores(language, temperature=temperature)
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        slopes.append(
            torch.autograd.grad(
                (found[0] * torch.linspace(0, 1, found[0].numel()).view_as(found[0])).sum(), weights
            )
        )
        values.append(found)
    for ours, theirs in zip(*values, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_the_bits_of_a_score_do_not_depend_on_company_or_on_shared_layers():
    network = base()
    own = adapted(network)
    plain = model(own)
    prompts, owners, answers = asked(plain)
    together = answer_scores(plain, prompts, owners, answers).log_probs
    shared = SharedLayers(network, 2)
    for language in (plain, model(own, shared=shared), model(own, shared=shared)):
        for row, (owner, ids) in enumerate(zip(owners, answers, strict=True)):
            alone = answer_scores(language, [prompts[owner]], [0], [ids]).log_probs[0]
            assert torch.equal(alone, together[row, : len(ids)])


@torch.no_grad()
def test_models_of_one_base_share_its_lower_layers_and_keep_their_own_scores():
    network = base()
    first, second = adapted(network, 5), adapted(network, 6)
    shared = SharedLayers(network, 2)
    apart = [scores(model(one))[0] for one in (first, second)]
    together = [scores(model(one, shared=shared))[0] for one in (first, second)]
    assert not torch.equal(*apart)
    for ours, theirs in zip(together, apart, strict=True):
        assert torch.equal(ours, theirs)


@torch.no_grad()
def test_what_the_shared_layers_remember_is_bounded(monkeypatch):
    monkeypatch.setattr(packed, "_MOST_REMEMBERED", 60)
    network = base()
    shared = SharedLayers(network, 2)
    bounded, free = model(adapted(network), shared=shared), model(adapted(network))
    for question in questions()[:40]:
        prompt, answer = bounded.prompt_ids(question.text), bounded.answer_ids("12")
        ours, theirs = (answer_scores(one, [prompt], [0], [answer]).log_probs for one in (bounded, free))
        assert torch.equal(ours, theirs)
    assert len(shared._known) <= 60


def test_a_pack_has_one_row_for_each_distinct_beginning():
    pack = Pack(((1, 2, 3), (1, 2, 5)), (1, 0, 1, 1), ((6, 7), (), (8,), (6, 9)))
    assert pack.ids.tolist() == [1, 2, 3, 5, 6, 7, 8, 9]
    assert pack.positions.tolist() == [0, 1, 2, 2, 3, 4, 3, 4]
    assert pack.prompt_rows == [[0, 1, 2], [0, 1, 3]]
    assert pack.answer_rows == [[4, 5], [], [6], [4, 7]]
    asked = torch.cat([group.asked.flatten() for group in pack.groups])
    assert asked[pack.order].tolist() == list(range(8))


def test_fewer_rows_are_run_where_texts_begin_alike():
    language = model(base())
    prompts = [language.prompt_ids(question.text) for question in questions()[:20]]
    assert len(Pack.of(prompts, [], []).rows) < sum(map(len, prompts)) / 1.5


def test_where_rows_depend_on_their_number_nothing_is_packed(monkeypatch):
    monkeypatch.setattr(packed, "_INDEPENDENT", {})
    monkeypatch.setattr(packed, "_has_independent_rows", lambda shape, draws: shape[0] != 64)
    network = base()
    assert not rows_are_independent(network)
    language = model(adapted(network))
    assert not language.packs
    assert language.rows(3, 8) == 8


def test_small_models_are_not_packed_and_big_ones_are():
    network = base()
    assert not Shapes.of(network, 8).packs
    big = deepcopy(network)
    big.weight = torch.nn.Parameter(torch.zeros(20_000_000))
    assert Shapes.of(big, 8).packs


def test_embeddings_by_shared_layers_put_like_questions_together():
    network = base()
    language = model(network, shared=SharedLayers(network, 2))
    texts = [question.text for question in (*questions()[:5], *questions()[100:105])]
    found = Encoder(language, texts).embed(texts)
    assert found.shape == (10, 96)
    alike = found @ found.T
    assert alike[:5, :5].mean() > alike[:5, 5:].mean()
    again = Encoder(language, texts).embed(texts[::-1])[::-1]
    assert (again == found).all()


def _tensors(prefix):
    return [*prefix.keys, *prefix.values, prefix.logits]


@torch.no_grad()
def test_a_prefix_has_the_same_bits_whoever_ran_the_shared_layers(monkeypatch):
    network = base()
    shared = SharedLayers(network, 2)
    own, other = adapted(network, 5), adapted(network, 6)
    plain = model(own)
    prompts = [plain.prompt_ids(question.text) for question in questions()[:9]]
    wanted = prefill(plain, prompts, 8)
    prefill(model(other, shared=shared), prompts[:6], 8)
    monkeypatch.setattr(packed, "_MOST_ATTENDED", 8)
    for _ in range(2):
        found = prefill(model(own, shared=shared), prompts, 8)
        for ours, theirs in zip(_tensors(found), _tensors(wanted), strict=True):
            assert torch.equal(ours, theirs)
    assert len(shared._attended) <= 20


@pytest.mark.parametrize("copies", [1, 6])
def test_copies_that_begin_alike_are_computed_once_and_sampled_the_same(copies):
    network = adapted(base())
    draws = np.random.default_rng(7).random((5 * copies, 6))
    found = []
    for packs in (True, False):
        language = model(network, packs)
        prompts = [language.prompt_ids(question.text) for question in questions()[:5]]
        prefix = prefill(language, prompts, 8)
        uniforms = None if copies == 1 else draws
        found.append(decode(language, prefix, copies, 6, uniforms))
    for ours, theirs in zip(*found, strict=True):
        assert [one.ids for one in ours] == [one.ids for one in theirs]
        assert [one.entropy_sum for one in ours] == pytest.approx(
            [one.entropy_sum for one in theirs], rel=1e-4
        )


def test_equal_beginnings_share_a_row(monkeypatch):
    network = adapted(base())
    language = model(network)
    prompts = [language.prompt_ids(question.text) for question in questions()[:3]]
    widths = []
    ordinary = language.logits
    monkeypatch.setattr(
        language, "logits", lambda ids, *rest: widths.append(len(ids)) or ordinary(ids, *rest)
    )
    same = np.full((12, 4), 0.5)
    decode(language, prefill(language, prompts, 8), 4, 4, same)
    assert widths[1:] and max(widths[1:]) == 4  # three questions, filled up to four rows
