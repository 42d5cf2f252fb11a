"""What a comparison says of variants that are not alike, or alike but for a number (compare/fairness.py)."""

from __future__ import annotations

import json

import pytest

from fedsim.sweeps.compare.fairness import alike_losses, unlike_requests
from fedsim.sweeps.compare.tables import write_comparison
from tests.sweeps.compare.test_tables import summary


def asked(*totals, updates=20, protocol="fedgrpo"):
    """Summaries, one a seed, with so many requests."""
    return [
        summary(seed, requests={"ok": total - 1, "total": total}, updates=updates, protocol=protocol)
        for seed, total in enumerate(totals)
    ]


def test_unlike_numbers_of_requests_are_said_of_every_variant_of_the_first_ones_protocol():
    runs = {
        "fedgrpo": asked(500, 700),
        "random": asked(900, 900),
        "one": asked(450, 450, updates=15),
        "distil": asked(5000, 5000, protocol="distil"),
    }
    (said,) = unlike_requests(runs)
    wanted = "per update, random 1.50 times; one 1.00 times those of fedgrpo (30.0)."
    assert said == f"Not the same number of requests: {wanted}"


@pytest.mark.parametrize(
    "runs",
    [
        {"a": asked(1000), "b": asked(1049)},
        {"a": asked(1000), "b": asked(10, protocol="fedpetuning")},
        {"a": asked(0), "b": asked(1000)},
        {"a": asked(1000), "b": asked(500, updates=0)},
        {"a": [summary()], "b": [summary()]},
    ],
    ids=["within 5%", "another protocol", "the first asks nobody", "no update", "not recorded"],
)
def test_nothing_is_said_where_requests_are_alike_or_count_other_things(runs):
    assert list(unlike_requests(runs)) == []


def settings(rate=1e-3, top=0, **protocol):
    plain = {"loss": "grpo", "loss_mean": "tokens", "divide_by_std": True, "learning_rate": rate}
    return {"seed": top, "protocol": plain | protocol}


TOKENS, DR_GRPO = settings(), settings(rate=3e-4, loss="dr_grpo")


def test_two_losses_that_differ_in_a_scalar_are_said_to():
    (said,) = alike_losses({"token_mean": TOKENS, "plain": settings(loss_mean="sequences"), "dr": DR_GRPO})
    assert said.startswith("token_mean and dr differ in a scalar alone: ")


@pytest.mark.parametrize(
    "other",
    [
        settings(loss="dr_grpo", divide_by_std=False),
        settings(loss="dr_grpo", top=1),
        settings(loss="bnpo"),
        settings(loss_mean="sequences"),
        settings(rate=3e-4),
        {"seed": 0, "protocol": {"name": "zero_shot"}},
    ],
    ids=["deviation", "another setting", "bnpo", "sequences", "the rate alone", "no loss"],
)
def test_losses_that_differ_in_more_or_not_at_all_are_not(other):
    assert list(alike_losses({"token_mean": TOKENS, "other": other})) == []


def test_cautions_stand_on_the_page_and_in_the_numbers(tmp_path):
    runs = {"a": asked(100), "b": asked(200)}
    listed = [{"variant": name, "seed": 0, "folder": f"runs/{name}"} for name in runs]
    written = write_comparison(tmp_path, "named", (0,), runs, listed, scenarios={"a": TOKENS, "b": DR_GRPO})
    cautions = json.loads(written[0].read_text())["cautions"]
    assert [said.split(":")[0] for said in cautions] == [
        "Not the same number of requests", "a and b differ in a scalar alone",
    ]  # fmt: skip
    assert set(cautions) <= set(written[2].read_text().splitlines())
