"""Real synthetic rows: the full-text generator, the three mechanisms, the cache, and the ledger."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

from fedsim.errors import ScenarioError
from fedsim.models.real.row_generator import TextGenerator, whole_row
from fedsim.models.real.synthesis import load_synthesiser
from fedsim.models.real.tokenizer import ANSWER
from fedsim.models.real.zoo import load_folder
from fedsim.privacy.accounting import dp_sgd_noise_multiplier, gaussian_sigma
from fedsim.privacy.config import EvolutionConfig, GeneratorConfig, SynthesisConfig, TuningConfig
from fedsim.tasks.questions import TaskData
from tests.samples.tiny_models import TINY, questions

WORDS = questions()[-12:]
SUMS = questions()[:100]
GENERATOR = GeneratorConfig(steps=250, batch_size=64, max_tokens=24)
TUNING = TuningConfig(steps=60, batch_size=32, learning_rate=3e-3)


def config(mechanism="none", epsilon="inf", **keys) -> SynthesisConfig:
    return SynthesisConfig(
        mechanism=mechanism,
        epsilon=epsilon,
        generator=GENERATOR,
        tuning=TUNING,
        evolution=EvolutionConfig(iterations=3),
        **keys,
    )


def data(public=None) -> TaskData:
    return TaskData(
        domains=("sums", "words"),
        public=SUMS[:60] + WORDS[:6] * 5 if public is None else public,
        private=(SUMS[60:], WORDS),
        auxiliary=(),
        pool=(),
        validation=(),
        test=(),
        trusted=({}, {}),
        partition=np.zeros((2, 2), dtype=np.int64),
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("cache")


def synthesiser(settings, cache, **keys):
    return load_synthesiser(settings, TINY, data(**keys), seed=4, cache_dir=cache)


@pytest.fixture(scope="module")
def generator(cache) -> TextGenerator:
    folder = synthesiser(config(), cache)._folder
    return TextGenerator(*load_folder(folder), max_tokens=24, temperature=1.0)


def kinds(rows):
    return Counter("words" if question.startswith("Spell") else "sums" for question, _ in rows)


# ---------------------------------------------------------------------------------------------------------- generator


def test_a_row_is_learned_whole_as_the_answer_to_the_empty_question():
    row = whole_row(SUMS[12])
    assert (row.text, row.answer) == ("", f"What is 1 + 2? Answer:{ANSWER}3")


def test_the_public_generator_writes_rows_of_the_public_kinds(generator):
    rows = [row for row in generator.random(200, 1) if row is not None]
    assert len(rows) > 100
    assert sum(question.startswith(("What is", "Spell")) for question, _ in rows) > 0.9 * len(rows)
    assert min(kinds(rows).values()) > 10


def test_samples_depend_on_their_key_alone(generator):
    assert generator.random(20, 1) == generator.random(20, 1) != generator.random(20, 2)


def test_a_row_reads_back_as_it_was_written(generator):
    for row in ((SUMS[3].text, SUMS[3].answer), (WORDS[0].text, WORDS[0].answer)):
        assert generator.read(generator._ids(row)[1:]) == row


def test_anything_but_question_mark_answer_end_is_malformed(generator):
    ids = generator._ids((SUMS[3].text, SUMS[3].answer))[1:]
    mark, end = generator._mark, ids[-1]
    middle = ids.index(mark)
    for broken in (
        ids[:-1],  # no end
        tuple(i for i in ids if i != mark),  # no mark
        (*ids[:-1], mark, end),  # two marks
        ids[middle:],  # no question
        (*ids[: middle + 1], end),  # no answer
        (*ids[:2], end, *ids[2:]),  # ends twice
        (*ids[:1] * 30, *ids),  # too long
    ):
        assert generator.read(broken) is None


def test_a_variation_keeps_the_first_tokens_and_can_change_the_last(generator):
    rows = [(row.text, row.answer) for row in SUMS[:40]]
    weak = generator.vary(rows, 1.0, 5)
    # All but the end token is kept: the answer may grow, the question stays.
    assert all(made is None or made[0] == row[0] for made, row in zip(weak, rows, strict=True))
    strong = generator.vary(rows, 0.0, 5)
    changed = sum(made != row for made, row in zip(strong, rows, strict=True))
    assert changed > 30


def test_an_embedding_does_not_depend_on_its_company(generator):
    rows = [(row.text, row.answer) for row in (*SUMS[:40], *WORDS)]
    together = generator.embed(rows)
    assert np.array_equal(generator.embed(rows[7:8])[0], together[7])
    # Words lie nearer to words than to sums.
    distance = ((together[-1] - together) ** 2).sum(1)
    assert distance[40:].max() < distance[:40].min()


# ---------------------------------------------------------------------------------------------------------- mechanisms


def test_unprotected_rows_follow_the_clients_own(cache):
    maker = synthesiser(config(), cache)
    made = maker.synthesise(1, WORDS, 100)
    assert made.epsilon == float("inf")
    assert kinds(made.rows)["words"] > 0.9 * len(made.rows) > 45
    (batch,) = made.generated
    assert (batch.rows, batch.num_malformed) == (made.rows, 100 - len(made.rows))
    assert batch.num_malformed > 0
    assert made.max_tokens == GENERATOR.max_tokens
    assert made.embedded == ()
    assert len(made.steps) == TUNING.steps
    assert set(made.steps[0]) == {(row.text, (row.answer,)) for row in WORDS}  # fewer rows than a batch: all


def test_dp_sgd_at_a_tiny_epsilon_learns_nothing_of_the_clients_kind(cache):
    free = synthesiser(config("dp_sgd", "inf"), cache).synthesise(1, WORDS, 100)
    tight = synthesiser(config("dp_sgd", 0.01), cache).synthesise(1, WORDS, 100)
    words = [kinds(made.rows)["words"] / 100 for made in (free, tight)]
    assert words[0] > 0.5 > words[1]


def test_private_evolution_moves_the_mix_towards_the_clients_own(cache):
    share = {}
    for epsilon in ("inf", 0.01):
        made = synthesiser(config("private_evolution", epsilon), cache).synthesise(1, WORDS * 20, 100)
        share[epsilon] = kinds(made.rows)["words"] / len(made.rows)
        assert made.steps == ()
        # Three iterations: the first samples and three times variations; private rows, and three populations.
        written = [len(batch.rows) + batch.num_malformed for batch in made.generated]
        assert written == [100] * 4
        assert made.embedded[0] == tuple((row.text, row.answer) for row in WORDS * 20)
        sizes = [len(rows) for rows in made.embedded[1:]]
        assert sizes == [len(made.generated[0].rows), 100, 100]
    assert share["inf"] > 0.85
    assert share["inf"] > share[0.01] + 0.1


def test_a_synthesis_is_computed_once_and_kept_on_disk(cache):
    settings = config("private_evolution", 5.0)
    first = synthesiser(settings, cache)
    made = first.synthesise(0, SUMS[60:], 40)
    assert first.synthesise(0, SUMS[60:], 40) is made
    kept = sorted((cache / "synthesis").glob("*/synthesis.json"))
    again = synthesiser(settings, cache).synthesise(0, SUMS[60:], 40)
    assert again == made
    assert sorted((cache / "synthesis").glob("*/synthesis.json")) == kept
    # Who sends, how many, and under which settings, all matter.
    other = synthesiser(settings, cache)
    assert other.synthesise(1, SUMS[60:], 40).rows != made.rows
    assert other.synthesise(0, SUMS[60:], 30).rows != made.rows
    assert other.synthesise(0, SUMS[50:90], 40).rows != other.synthesise(0, SUMS[60:], 40).rows


def test_the_ledger_holds_the_noise_that_was_used(cache):
    evolution, sgd, plain = (
        synthesiser(settings, cache)
        for settings in (config("private_evolution", 5.0), config("dp_sgd", "inf"), config())
    )
    voted = evolution.synthesise(0, SUMS[60:], 40)
    sgd.synthesise(1, WORDS, 100)
    sent = plain.synthesise(1, WORDS, 100)
    (entry,) = evolution.report()
    assert entry["noise"] == gaussian_sigma(5.0, 1e-5, 3)
    assert (entry["epsilon"], entry["delta"]) == (5.0, 1e-5)
    assert (entry["noise_unit"], entry["sensitivity"], entry["clip_norm"]) == ("votes", 1.0, None)
    assert entry["rows_sent"] == len(voted.rows) == 40
    assert entry["rows_malformed"] == sum(batch.num_malformed for batch in voted.generated)
    (entry,) = sgd.report()
    assert (entry["epsilon"], entry["delta"], entry["noise"]) == ("inf", None, 0.0)
    # In clipping norms, as the noise is: the accountant's multiplier is the one over the other.
    assert (entry["noise_unit"], entry["sensitivity"]) == ("clipping norms", 1.0)
    assert entry["clip_norm"] == TUNING.clip_norm != 1.0
    (entry,) = plain.report()
    assert entry["epsilon"] == "inf"
    nothing = ("accountant", "neighbours", "noise_unit", "sensitivity", "clip_norm")
    assert [entry[name] for name in nothing] == [None] * 5
    assert entry["rows_sent"] == len(sent.rows) == 100 - entry["rows_malformed"]
    assert "each client adds the noise on its own device" in entry["trust_model"]
    assert json.loads(json.dumps(plain.report())) == plain.report()


def test_dp_sgd_uses_the_accountants_multiplier_for_the_clients_own_sampling_rate(cache):
    maker = synthesiser(config("dp_sgd", 2.0), cache)
    maker.synthesise(0, SUMS[60:], 20)  # 40 rows, batches of 32
    (entry,) = maker.report()
    assert entry["sampling_rate"] == 0.8
    assert entry["noise"] == dp_sgd_noise_multiplier(2.0, 1e-5, 0.8, TUNING.steps)


def test_the_generator_sees_the_public_corpus_alone(cache):
    """Other private rows, the same generator, weights and vocabulary."""
    changed = data()
    changed = type(changed)(**{**changed.__dict__, "private": ((), SUMS[:1])})
    assert (
        load_synthesiser(config(), TINY, changed, seed=4, cache_dir=cache)._folder
        == synthesiser(config(), cache)._folder
    )


def test_without_a_public_corpus_there_is_no_generator(cache):
    with pytest.raises(ScenarioError, match="public corpus"):
        synthesiser(config(), cache, public=())
