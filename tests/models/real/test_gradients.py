"""The gradient of an update in parts: what makes a part, and the same bits however the parts are computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import Draw
from fedsim.models.real import gradients
from fedsim.models.real.gradients import parts_of, stand_alone
from fedsim.models.real.objective import Row, Totals
from fedsim.models.real.work_parts import Alone, decoded, encoded, result_of
from tests.samples.tiny_models import language, policy, questions


def rows_of(num):
    """Three candidates for each of so many questions of one width, not in the order of the questions."""
    texts = [question.text for question in questions()[:100]][:num]
    return [Row(text, (1, number), torch.zeros(2), 1.0, 1.0) for number in range(3) for text in texts]


@pytest.mark.parametrize(
    ("num", "most", "sizes"),
    [
        (1, 128, [1]),
        (31, 128, [31]),  # not worth halving
        (32, 128, [16, 16]),
        (90, 128, [45, 45]),
        (96, 128, [48, 48]),
        (97, 128, [25, 25, 25, 22]),  # four, since none may have more than 48
        (96, 20, [20, 20, 20, 20, 16]),  # a smaller bound of the user's holds
        (31, 8, [8, 8, 8, 7]),
    ],
)
def test_an_update_falls_into_an_even_number_of_about_equal_parts(num, most, sizes):
    parts = parts_of(language(), rows_of(num), 5.0, most)
    assert [len(part.prompts) for part in parts] == sizes
    assert {part.count for part in parts} == {5.0}
    for part in parts:  # all candidates of a question lie in one part, each with its question
        assert len(part.rows) == 3 * len(part.prompts)
        for row, owner in zip(part.rows, part.owners, strict=True):
            assert part.prompts[owner] == language().prompt_ids(row.prompt)
    assert sorted(row.prompt for part in parts for row in part.rows) == sorted(
        row.prompt for row in rows_of(num)
    )


class Sent(Alone):
    """Somebody else who does every part as a worker does, from bytes to bytes; the last one first."""

    num_processes = 2

    def shared(self, parts, here):
        if not isinstance(parts[0], gradients.GradientPart):
            return super().shared(parts, here)
        found = [
            decoded(result_of(part), encoded(here(decoded(gradients.GradientPart, encoded(part)))))
            for part in reversed(parts)
        ]
        return found[::-1]


def learnt(config, sharing):
    """Weights and what was said of two updates on 100 questions, the second on groups of the first's policy as well."""
    live = policy(config)
    live._sharing = sharing
    draws = [Draw(index, question) for index, question in enumerate(questions()[:100])]
    groups = live.sample(draws)
    gains = [np.linspace(-1.0, 1.0 + index % 3, len(group.texts)) for index, group in enumerate(groups)]
    said = [live.update(groups[:60], gains[:60]), live.update(groups[60:], gains[60:])]
    return live.weights_sha256(), said


@pytest.mark.parametrize(
    "keys",
    [{}, {"kl_weight": 0.1, "inner_passes": 2}, {"loss": "bnpo"}, {"loss": "dr_grpo"}],
    ids=["plain", "kl", "bnpo", "dr_grpo"],
)
def test_parts_that_another_process_computes_give_the_bits_of_one_pass_after_the_other(keys):
    config = PolicyConfig(warmup_updates=1, learning_rate=1e-3, **keys)
    assert stand_alone(config)
    assert learnt(config, Sent()) == learnt(config, Alone())


@pytest.mark.parametrize(
    "keys", [{"loss": "disco_constrained"}, {"ratio": "decoupled"}, {"record_ratios": True}]
)
def test_losses_that_need_all_parts_are_computed_here(keys, monkeypatch):
    config = PolicyConfig(warmup_updates=1, learning_rate=1e-3, **keys)
    assert not stand_alone(config)
    alone = learnt(config, Alone())
    monkeypatch.setattr(gradients, "gradient", None)
    assert learnt(config, Sent()) == alone


def test_the_sum_over_parts_is_the_gradient_of_the_whole_update(monkeypatch):
    live = policy()
    groups = live.sample([Draw(index, question) for index, question in enumerate(questions()[:64])])
    rows, count = live._rows(groups, [np.linspace(-1.0, 1.0, len(group.texts)) for group in groups])

    def found():
        parts = parts_of(live.language, rows, count, 128)
        totals = Totals()
        each = [gradients.gradient(live.language, live.initial, live.config, part) for part in parts]
        gradients.take_up(live._weights, each, totals)
        return len(parts), torch.cat([weight.grad.ravel() for weight in live._weights]), totals

    num, slopes, totals = found()
    monkeypatch.setattr(gradients, "_WORTH_HALVING", 1000)
    num_whole, whole_slopes, whole = found()
    assert num > num_whole
    assert float((slopes - whole_slopes).norm() / whole_slopes.norm()) < 1e-5
    assert totals.loss == pytest.approx(whole.loss, rel=1e-4, abs=1e-6)
    assert totals.tokens == pytest.approx(whole.tokens)
    assert totals.entropy == pytest.approx(whole.entropy, rel=1e-5)
