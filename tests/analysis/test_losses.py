"""The section on losses (analysis/losses/section.py): paired differences, its verdict, and what stale samples were worth."""

from __future__ import annotations

import json

import pytest

from analysis.finished import read
from analysis.losses import section as losses
from analysis.losses.figure import loss_figure
from fedsim.records.parquet import frame
from fedsim.records.rows import Ratio
from tests.samples.learning import Made, compared, ratio


def finals(*ends, **more):
    """Runs that end at these greedy accuracies; pass@1 is .1 below."""
    return [Made(test=(0.2, end), **more) for end in ends]


def page(tmp_path, **variants):
    found = read(compared(tmp_path, variants, name="losses"))
    return "\n".join(losses.lines(found, losses.read_stale(found)))


def test_rows_of_one_staleness_are_weighted_by_their_tokens_and_seeds_weigh_alike():
    """Staleness 1: seed 0 has (100 x 1.0 + 300 x 0.6) / 400 = 0.7, seed 1 has 0.5; the mean is 0.6."""
    first = [ratio(0, 600, 1.0), ratio(1, 100, 1.0), ratio(1, 300, 0.6, version=2)]
    second = [ratio(0, 500, 1.0), ratio(1, 500, 0.5)]
    fresh, stale = losses.worth([frame(Ratio, first), frame(Ratio, second)])
    assert (fresh.staleness, stale.staleness) == (0, 1)
    assert stale.numbers["effective_share"]["mean"] == pytest.approx(0.6)
    assert stale.numbers["clip_fraction"]["mean"] == pytest.approx(0.4)
    assert (fresh.token_share, stale.token_share) == (1100 / 2000, 900 / 2000)


def test_a_seed_without_samples_of_a_staleness_is_in_no_mean():
    found = losses.worth([frame(Ratio, [ratio(3, 10, 0.5)]), frame(Ratio, [ratio(0, 10, 1.0)])])
    assert [(one.staleness, one.numbers["effective_share"]["n"]) for one in found] == [(0, 1), (3, 1)]


def test_variants_are_told_apart_by_their_paired_difference(tmp_path):
    text = page(
        tmp_path, grpo=finals(0.40, 0.50, 0.45), good=finals(0.45, 0.56, 0.50), bad=finals(0.30, 0.40, 0.36),
        alike=[*finals(0.45, 0.45), *finals(0.45, looks=((0.0, 0.3), (600.0, 0.4)))],
    )  # fmt: skip
    assert "better `good`; worse `bad`; not told apart `alike`" in text
    assert "that of `good` (0.403); its difference lies above 0 with its whole interval: met." in text
    # Differences .05, .06, .05: mean .0533, s = .00577, half 4.303 * .00577 / sqrt 3 = .0143.
    assert "| good | 0.403 [0.267, 0.540] | +0.053 [+0.039, +0.068] |" in text
    assert "| 0.700 [0.700, 0.700] | 0.250 [0.250, 0.250] | 2 | 20.0 s |" in text
    assert "| 2 | 20.0 s (10 min 00 s) |" in text  # of 20, 20 and 600 s
    assert "ranking at one rate is of loss and rate together" in text


def test_the_first_at_the_top_or_a_difference_that_may_be_luck_is_not_met(tmp_path):
    assert "`grpo` itself: no loss makes more of the same rewards. NOT met." in page(
        tmp_path / "a", grpo=finals(0.5, 0.5), other=finals(0.4, 0.4)
    )
    assert "the interval of its difference holds 0: NOT met." in page(
        tmp_path / "b", grpo=finals(0.5, 0.4), other=finals(0.7, 0.3)
    )
    one_seed = page(tmp_path / "c", grpo=finals(0.5), other=finals(0.6))
    assert "not told apart `other`" in one_seed and "One seed: no interval" in one_seed


def test_a_table_by_staleness_of_the_variants_that_record_ratios(tmp_path):
    rows = [ratio(0, 300, 1.0), ratio(2, 100, 0.8)]
    text = page(tmp_path, grpo=finals(0.5), stale=finals(0.5, ratios=rows))
    assert "| stale | 0 | 75.0% | 1.000 | 0.000 | 0.0000 | 0.000 |" in text
    assert "| stale | 2 | 25.0% | 0.800 | 0.200 | 0.0200 | 0.000 |" in text
    assert "| grpo | 0 |" not in text
    assert "No variant recorded ratios." in page(tmp_path / "none", grpo=finals(0.5))


def test_variants_that_differ_in_the_ratio_alone_are_compared(tmp_path):
    clipped = {"protocol": {"ratio": "clipped", "learning_rate": 1e-3}}
    decoupled = {"protocol": {"ratio": "decoupled", "learning_rate": 1e-3}}
    text = page(
        tmp_path,
        grpo=finals(0.5, 0.5, scenario={"protocol": {"ratio": "clipped", "learning_rate": 1e-4}}),
        stale=finals(0.4, 0.5, scenario=clipped),
        decoupled=finals(0.5, 0.6, scenario=decoupled),
    )
    assert "`decoupled` differs from `stale` in nothing but the ratio" in text
    assert "pass@1 +0.100 [+0.100, +0.100], better." in text
    assert "differs from `grpo`" not in text


def test_chosen_rates_are_named(tmp_path):
    folder = compared(tmp_path, {"grpo": finals(0.5), "other": finals(0.6)})
    document = json.loads((folder / "comparison.json").read_text())
    for variant in document["variants"]:
        variant["tuned"] = {"key": "protocol.learning_rate", "value": 3e-4, "by": "tuning"}
    (folder / "comparison.json").write_text(json.dumps(document))
    text = "\n".join(losses.lines(read(folder), {}))
    assert "protocol.learning_rate (grpo 0.0003, other 0.0003)" in text
    assert "ranking at one rate" not in text


def test_the_figure_has_a_point_for_each_difference_and_a_line_for_each_that_recorded(tmp_path):
    rows = [ratio(0, 300, 1.0), ratio(2, 100, 0.8)]
    found = read(compared(tmp_path, {"grpo": finals(0.5, 0.5), "stale": finals(0.6, 0.6, ratios=rows)}))
    figure = loss_figure(found, losses.read_stale(found))
    left, share, *_ = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["stale"]
    assert left.lines[1].get_xdata() == pytest.approx([0.1])
    assert share.lines[0].get_ydata().tolist() == [1.0, 0.8]
