"""The page about dropout (analysis/dropout.py): its tables and its verdict from hand-made comparisons."""

from __future__ import annotations

import json

import pytest

from analysis import dropout
from fedsim.errors import RunFolderError
from tests.samples.comparison import Fake, write_run

DOMAINS = ("gcd", "products")


def compared(folder, finals, seeds=(0, 1, 2)):
    """A finished comparison whose runs end at the given greedy accuracies, ``{variant: [one per seed]}``."""
    runs = []
    for variant, values in finals.items():
        for seed, final in zip(seeds, values, strict=True):
            place = f"runs/{variant}-{seed}"
            write_run(folder / place, Fake(variant), seed)
            path = folder / place / "summary.json"
            summary = json.loads(path.read_text())
            summary["accuracy"]["greedy"]["final"] = final
            summary["accuracy"]["by_domain"] = {name: {"initial": 0.3, "final": final} for name in DOMAINS}
            summary["groups"] = {"trained": 90, "no_rewards": 10, "total": 100}
            summary["requests"] = {"ok": 150, "dropped": 50, "total": 200}
            path.write_text(json.dumps(summary))
            runs.append({"variant": variant, "seed": seed, "folder": place})
    document = {"name": "made", "seeds": list(seeds), "runs": runs}
    (folder / "comparison.json").write_text(json.dumps(document))
    return folder


def page(tmp_path, **finals):
    """The page over a small choice of policies and these variants."""
    policies = compared(tmp_path / "policies", {"deadline": [0.5, 0.5]}, (100, 101))
    return "\n".join(dropout.lines(dropout.read(policies), dropout.read(compared(tmp_path / "d", finals))))


def test_the_loss_is_paired_by_seed_and_its_upper_end_is_judged(tmp_path):
    """Losses .01, .02, .03: mean .02, s = .01, half-width 4.303 * .01 / sqrt 3 = .0248, so the upper end is .045."""
    text = page(tmp_path, none=[0.5, 0.4, 0.45], independent=[0.49, 0.38, 0.42])
    assert "loses +0.020 [-0.005, +0.045] (by seed: +0.010, +0.020, +0.030)" in text
    assert "NOT met" in text


def test_a_loss_that_is_small_for_sure_meets_the_bound(tmp_path):
    text = page(tmp_path, none=[0.5, 0.4, 0.45], independent=[0.499, 0.4, 0.451])
    assert "below 0.03; met" in text and "NOT" not in text


def test_losses_are_shares_of_what_there_is_to_lose(tmp_path):
    """The start is .3 and none ends at .45: of a gain of .15, losses of .03 are a fifth, for sure (no spread)."""
    text = page(tmp_path, none=[0.45, 0.45, 0.45], independent=[0.42, 0.42, 0.42])
    assert "the gain of none over the start (0.15): independent 20% (upper end 20%). Lost groups" in text


def test_where_nothing_is_gained_nothing_can_be_lost(tmp_path):
    text = page(tmp_path, none=[0.3, 0.3, 0.3], independent=[0.42, 0.42, 0.42])
    assert "none gains nothing over the start: there is nothing to lose." in text


def test_only_the_independent_case_is_judged(tmp_path):
    text = page(tmp_path, none=[0.5, 0.4, 0.45], correlated=[0.2, 0.1, 0.3])
    assert "**correlated** loses +0.250" in text and "Wanted" not in text


def test_every_variant_has_its_row_and_every_domain_its_line(tmp_path):
    text = page(tmp_path, none=[0.5, 0.4, 0.45], independent=[0.49, 0.38, 0.42])
    assert text.count("| 75.0% | 10.0% |") == 3, (
        "one policy and two variants: 150 of 200 replies, 10 of 100 groups lost"
    )
    assert all(f"| {domain} | 0.450, 0.0% | -0.020" in text for domain in DOMAINS)


def test_the_command_writes_the_page_and_refuses_what_is_no_comparison(tmp_path, capsys):
    policies = compared(tmp_path / "policies", {"deadline": [0.5, 0.5]}, (100, 101))
    found = compared(tmp_path / "d", {"none": [0.5, 0.4], "independent": [0.5, 0.4]}, (0, 1))
    target = tmp_path / "page.md"
    assert dropout.main([str(policies), str(found), str(target)]) == 0
    assert target.read_text().startswith("# What dropout costs FedGRPO\n")
    assert dropout.main([str(policies), str(tmp_path / "nothing"), str(target)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert dropout.main([str(policies)]) == 2


@pytest.mark.parametrize("torn", ["{", "{}", '{"name": "x", "seeds": [0], "runs": []}'])
def test_a_torn_comparison_is_refused_in_one_line(tmp_path, torn):
    (tmp_path / "comparison.json").write_text(torn)
    with pytest.raises(RunFolderError, match="is not a finished comparison"):
        dropout.read(tmp_path)
