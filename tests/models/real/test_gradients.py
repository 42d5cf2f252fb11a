"""The gradient of an update in parts (gradients.py): what makes a part, and that their sum is the gradient of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedsim.models.interfaces import Draw
from fedsim.models.real import gradients
from fedsim.models.real.gradients import parts_of
from fedsim.models.real.objective import Row, Totals
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
    model = language()
    parts = parts_of(model, rows_of(num), 5.0, most)
    assert [len(part.prompts) for part in parts] == sizes
    assert {part.count for part in parts} == {5.0}
    for part in parts:  # all candidates of a question lie in one part, each with its question
        assert len(part.rows) == 3 * len(part.prompts)
        for row, owner in zip(part.rows, part.owners, strict=True):
            assert part.prompts[owner] == model.prompt_ids(row.prompt)
    assert sorted(row.prompt for part in parts for row in part.rows) == sorted(
        row.prompt for row in rows_of(num)
    )


def gradient(live, parts):
    """The weights' gradient, one after the other, and the sums of the update."""
    totals = Totals()
    live._backward(parts, totals)
    return torch.cat([weight.grad.ravel() for weight in live._weights]), totals


def sampled_rows(live):
    groups = live.sample([Draw(index, question) for index, question in enumerate(questions()[:100])])
    return live._rows(groups, [np.linspace(-1.0, 1.0, len(group.texts)) for group in groups])


def test_the_gradients_of_the_parts_are_added_in_their_order():
    live = policy()
    parts = parts_of(live.language, *sampled_rows(live), 128)
    assert len(parts) >= 4
    total = torch.zeros(())
    for part in parts:
        total = total + gradient(live, [part])[0]
    assert torch.equal(gradient(live, parts)[0], total)


def test_the_sum_over_parts_is_the_gradient_of_the_whole_update(monkeypatch):
    live = policy()
    rows, count = sampled_rows(live)
    parts = parts_of(live.language, rows, count, 128)
    monkeypatch.setattr(gradients, "_WORTH_HALVING", 1000)
    whole_parts = parts_of(live.language, rows, count, 128)
    assert len(parts) > len(whole_parts)
    (slopes, totals), (whole_slopes, whole) = gradient(live, parts), gradient(live, whole_parts)
    assert float((slopes - whole_slopes).norm() / whole_slopes.norm()) < 1e-5
    assert totals.loss == pytest.approx(whole.loss, rel=1e-4, abs=1e-6)
    assert totals.tokens == pytest.approx(whole.tokens)
    assert totals.entropy == pytest.approx(whole.entropy, rel=1e-5)
