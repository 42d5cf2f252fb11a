"""The ledger of benchmarks: claims against their bounds, pairs, and the page."""

import ast
import importlib
import json
from pathlib import Path

import pytest

from benchmarks import ledger, page
from benchmarks.ledger import Claim, Paired, paired, report


def test_a_claim_is_met_at_its_bound_and_on_its_side_of_it():
    assert Claim("rate", 5.0, 5.0).met and not Claim("rate", 4.9, 5.0).met
    assert Claim("time", 5.0, 5.0, "at most").met and not Claim("time", 5.1, 5.0, "at most").met
    assert Claim("shown", 1.0).met is None


def test_a_ratio_is_the_middle_one_of_the_pairs():
    timed = Paired((1.0, 2.0, 9.0), (2.0, 2.0, 3.0))
    assert timed.ratios == (0.5, 1.0, 3.0)
    assert timed.ratio == 1.0
    assert timed.spread == "3 pairs, 0.50 to 3.00"


def test_both_are_run_once_untimed_and_then_in_turn_from_either_side():
    done = []
    paired(lambda: done.append("a"), lambda: done.append("b"), rounds=3)
    assert done == ["a", "b", "a", "b", "b", "a", "a", "b"]


def test_the_page_says_what_was_found_also_where_it_falls_short(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ledger, "KEPT", tmp_path)
    claims = [
        Claim("requests", 3834.2, 20_000, unit="requests/s", note="one core | CPU seconds"),
        Claim("ratio", 0.2, 0.3, "at most"),
        Claim("floor", 0.0125, unit="s"),
    ]
    assert report("rate", "Requests", claims, {"Work": "12 requests."}) == 0
    assert "NOT met" in capsys.readouterr().out
    assert json.loads((tmp_path / "rate.json").read_text())["claims"][1]["value"] == 0.2
    text = page.page(tmp_path)
    assert (
        "| requests | 3,834 requests/s | at least 20,000 requests/s | NOT met | one core / CPU seconds |"
        in text
    )
    assert "| ratio | 0.2 x | at most 0.3 x | met |  |" in text
    assert "| floor | 0.0125 s |  |  |  |" in text
    assert "**Work.** 12 requests." in text
    assert "`bench_rate.py`" in text


@pytest.mark.parametrize(
    ("value", "unit", "shown"), [(1.0, "x", "1 x"), (0.12345, "", "0.123"), (65.72, "s", "65.7 s")]
)
def test_numbers_have_three_digits(value, unit, shown):
    assert ledger.number(value, unit) == shown


FILES = sorted((Path(__file__).resolve().parents[2] / "benchmarks").glob("*.py"))


def imported_from_fedsim(path):
    """(module, name) of every import of ours, those inside functions too."""
    nodes = ast.walk(ast.parse(path.read_text()))
    ours = [
        n
        for n in nodes
        if isinstance(n, ast.ImportFrom) and str(n.module).startswith(("fedsim", "benchmarks"))
    ]
    return [(node.module, alias.name) for node in ours for alias in node.names]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there(path):
    """No other test runs a benchmark: what moves in the package must not leave one behind."""
    for module, name in imported_from_fedsim(path):
        if not hasattr(importlib.import_module(module), name):
            importlib.import_module(f"{module}.{name}")
