"""The section on privacy (analysis): promises from summaries and ledgers, attacks over seeds, its verdicts."""

from __future__ import annotations

import json

import pytest

from analysis.finished import read
from analysis.privacy import section as privacy
from analysis.privacy.figure import privacy_map
from analysis.privacy.runs import leaks, read_leaks, read_promises, together
from fedsim.errors import RunFolderError
from tests.samples.learning import Made, compared

ROW, ANSWER = "training row", "trusted answer"


def said(epsilon, mechanism="laplace", noise=0.5):
    """What a run's summary says of rewards."""
    vacuous = epsilon == "inf" or epsilon >= 10
    return {
        "privacy": {
            "mechanism": mechanism,
            "noise": noise,
            "epsilon": epsilon,
            "delta": 1e-5,
            "is_vacuous": vacuous,
        }
    }


def runs(*ends, epsilon=None, leaves=("scalars",), **said_of):
    """Runs from .2 to these greedy accuracies on test questions (pass@1 gains as much)."""
    summary = {} if epsilon is None else said(epsilon, **said_of)
    return [Made(test=(0.2, end), summary={"leaves": leaves, **summary}) for end in ends]


def estimate(value, half=0.05):
    return {"value": value, "low": value - half, "high": value + half}


def attack(source, auc, target=ROW, how="how", server="honest", tpr=0.02):
    result = None if auc is None else {
        "num_members": 200, "num_others": 100, "auc": estimate(auc), "tpr": estimate(tpr, 0.01),
    }  # fmt: skip
    return {"source": source, "server": server, "target": target, "how": how, "result": result}


def report(*attacks, disclosures=()):
    return {"attacks": list(attacks), "disclosures": list(disclosures)}


def comparison(folder, variants, reports=None):
    """A finished comparison, with ``leakage.json`` in the runs of ``reports``: by variant, one for each seed."""
    compared(folder, variants, name="privacy")
    for name, found in (reports or {}).items():
        for seed, one in enumerate(found):
            (folder / f"runs/{name}-{seed}/leakage.json").write_text(json.dumps(one))
    return read(folder)


def page(found):
    return "\n".join(privacy.lines(found, read_promises(found), read_leaks(found)))


def row(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


# ------------------------------------------------------------------------------------------------------- promises


def test_the_worst_epsilon_of_every_seed_is_told_and_from_ten_on_called_vacuous(tmp_path):
    weak = [*runs(0.3, epsilon=900.0), *runs(0.3, epsilon=1200.0)]
    found = comparison(
        tmp_path, {"plain": runs(0.4, 0.4, epsilon="inf", mechanism="none", noise=None), "weak": weak,
                   "strong": runs(0.25, 0.26, epsilon=7.5), "adapters": runs(0.5, 0.5)},
    )  # fmt: skip
    text = page(found)
    assert "| plain | scalars | none | inf (nothing promised) |  |" in text
    assert "| weak | scalars | laplace 0.5 | 900 to 1200 (VACUOUS) | 1e-05 |" in text
    assert "| strong | scalars | laplace 0.5 | 7.5 | 1e-05 |" in text
    assert "| adapters | scalars | none | inf (nothing promised) |" in text
    assert "* Promises that are VACUOUS: weak (epsilon 1200)." in text


def test_a_ledger_gives_the_worst_client_and_what_neighbours_are(tmp_path):
    compared(tmp_path, {"synthetic": runs(0.3)})
    entry = {"mechanism": "dp_sgd", "epsilon": 2.0, "delta": 1e-5, "noise": 1.4, "neighbours": "one record"}
    ledger = tmp_path / "runs/synthetic-0/privacy.json"
    ledger.write_text(json.dumps([entry, {**entry, "epsilon": 3.0}]))
    promise = read_promises(read(tmp_path))["synthetic"]
    assert (promise.epsilons, promise.mechanism, promise.is_vacuous) == ((3.0, 3.0), "dp_sgd", False)
    assert "Neighbours: one record." in page(read(tmp_path))
    ledger.write_text("{")
    with pytest.raises(RunFolderError, match="run it again"):
        read_promises(read(tmp_path))


def test_a_promise_that_means_something_needs_a_gain_that_is_sure(tmp_path):
    base = {"plain": runs(0.4, 0.4, 0.4)}
    good = page(comparison(tmp_path / "a", base | {"strong": runs(0.25, 0.26, 0.27, epsilon=7.5)}))
    assert "`strong` (epsilon 7.5) gains: +0.060 [+0.035, +0.085] pass@1; against `plain` -0.140 " in good
    assert "[-0.165, -0.115] pass@1 and -0.140 [-0.165, -0.115] greedy, 3 seeds." in good
    assert "whose interval lies above 0: met." in good
    luck = page(comparison(tmp_path / "b", base | {"strong": runs(0.25, 0.15, 0.27, epsilon=7.5)}))
    assert "`strong` (epsilon 7.5) is not shown to gain" in luck and "lies above 0: NOT met." in luck
    rows = runs(0.25, 0.26, 0.27, epsilon=7.5, leaves=("synthetic rows",))
    synthetic = page(comparison(tmp_path / "d", base | {"rows": rows}))
    assert "`rows` (epsilon 7.5) gains" in synthetic and "lies above 0: NOT met." in synthetic, "not rewards"
    none = page(comparison(tmp_path / "c", base | {"weak": runs(0.4, 0.4, 0.4, epsilon=99.0)}))
    assert "No variant has an epsilon below 10: NOT met." in none


def test_costs_are_paired_with_the_first(tmp_path):
    text = page(comparison(tmp_path, {"plain": runs(0.4, 0.5), "noisy": runs(0.35, 0.44, epsilon=50.0)}))
    # Two steps of 1,000 bytes down; -.05 and -.06 in pass@1.
    line = row(text, "| noisy | scalars")
    assert "| -0.055 [-0.119, +0.009] |" in line and line.endswith("| 0 B | 2.0 KiB |")


# -------------------------------------------------------------------------------------------------------- attacks


def test_several_seeds_have_an_interval_over_them_and_one_keeps_its_bootstrap():
    over = together([estimate(0.5), estimate(0.6), None])
    # t(1, 97.5%) = 12.706 times .0707 / sqrt 2 = .05.
    assert not over.is_bootstrap and over.found["mean"] == pytest.approx(0.55)
    assert over.found["high"] == pytest.approx(0.55 + 12.706 * 0.05, abs=1e-3)
    alone = together([estimate(0.5, 0.1)])
    assert alone.is_bootstrap and alone.found["low"] == 0.4 and together([None]) is None


def test_attacks_of_one_kind_are_put_together_over_seeds():
    found = leaks([report(attack("rewards", 0.5)), report(attack("rewards", 0.6), attack("policy", None))])
    rewards, policy = found.attacks
    assert rewards.key == ("rewards", "honest", ROW, "how") and rewards.auc.found["n"] == 2
    assert policy.auc is None and found.num_runs == 2


def test_tables_of_membership_and_of_answers(tmp_path):
    told = {
        "server": "choosing",
        "how": "asked once",
        "num_answers": 40,
        "share": estimate(0.9),
        "known_before": estimate(0.3),
    }
    reports = {"plain": [report(attack("rewards", 0.75, ANSWER), attack("policy", None), disclosures=[told])]}
    text = page(comparison(tmp_path, {"plain": runs(0.4)}, reports))
    assert (
        "| plain | rewards | honest | trusted answer | how | 200 / 100 | 0.750 [0.700, 0.800]* | 0.020 [0.010, 0.030]* |"
        in text
    )
    assert "| plain | policy | honest | training row | how | nothing to read |  |  |" in text
    assert "| plain | choosing | asked once | 40 | 0.900 [0.850, 0.950]* | 0.300 [0.250, 0.350]* |" in text


@pytest.mark.parametrize(
    ("rewards", "verdict"),
    [(0.55, "rewards tell less than adapters: met."), (0.9, "rewards tell NOT less than adapters: NOT met.")],
)
def test_the_strongest_attacks_on_training_rows_are_compared_by_what_they_read(tmp_path, rewards, verdict):
    reports = {
        "plain": [
            report(
                attack("rewards", rewards),
                attack("rewards", 0.52, how="weaker"),
                attack("rewards", 1.0, ANSWER),
            )
        ],
        "fedpetuning": [report(attack("adapters", 0.7))],
    }
    text = page(comparison(tmp_path, {"plain": runs(0.4), "fedpetuning": runs(0.5)}, reports))
    assert verdict in text
    assert f"read from rewards: AUC {rewards:.3f} [{rewards - 0.05:.3f}, {rewards + 0.05:.3f}]*" in text
    assert "read from rewards: AUC 1.000 [0.950, 1.050]*" in text, "trusted answers have their own line"
    assert "Intervals overlap" not in text and "not matched" not in text


def test_an_attack_that_chooses_is_not_compared_with_one_that_reads_without_saying_so(tmp_path):
    reports = {
        "plain": [report(attack("rewards", 0.7, server="choosing"))],
        "other": [report(attack("adapters", 0.6), attack("synthetic", 0.5, server="choosing"))],
    }
    text = page(comparison(tmp_path, {"plain": runs(0.4), "other": runs(0.5)}, reports))
    assert "against rewards the server is choosing, against adapters it is not" in text


def test_intervals_that_overlap_and_chance_are_said(tmp_path):
    reports = {"plain": [report(attack("rewards", 0.52))], "synthetic": [report(attack("synthetic", 0.58))]}
    text = page(comparison(tmp_path, {"plain": runs(0.4), "synthetic": runs(0.5)}, reports))
    assert "Intervals overlap with: synthetic." in text
    assert "(`plain`, honest server, how), not told from chance." in text
    assert "(`synthetic`, honest server, how), above chance." in text


def test_runs_that_were_not_attacked_are_counted(tmp_path):
    variants = {"plain": runs(0.4, 0.4), "other": runs(0.4, 0.4)}
    text = page(comparison(tmp_path / "a", variants, {"plain": [report(attack("rewards", 0.6))]}))
    assert "Runs attacked (`fedsim leakage`): plain 1 of 2, other 0 of 2." in text
    assert "cannot be said: one side was not attacked" in text
    nobody = page(comparison(tmp_path / "b", variants))
    assert "No run was attacked." in nobody and "No attacked run has trusted answers." in nobody


def test_the_map_has_a_point_for_each_that_was_attacked(tmp_path):
    reports = {"plain": [report(attack("rewards", 0.6), attack("rewards", 0.7, how="b"))]}
    found = comparison(tmp_path, {"plain": runs(0.4), "other": runs(0.4)}, reports)
    figure = privacy_map(found, read_leaks(found))
    marks = [line.get_xdata().tolist() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert marks == [[0.7]]
    assert privacy_map(found, {}) is None
