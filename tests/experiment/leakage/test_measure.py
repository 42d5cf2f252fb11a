"""Attacks on finished runs with real models of a few thousand weights (leakage/, fedsim/figures/leakage.py)."""

from __future__ import annotations

import json

import pytest

from fedsim.errors import RunFolderError
from fedsim.experiment import run as experiment
from fedsim.experiment.leakage import measure as leakage
from fedsim.figures.leakage import read, table
from fedsim.records.provenance import git_commit
from fedsim.scenario.read import scenario_from
from tests.samples.real_runs import tiny

NOISE = {"mechanism": "randomised_response", "noise": 0.2}


def quick(models):
    """The same models after a few steps: what is attacked here is the wire, not what they know."""
    return {side: model | {"steps": 20} for side, model in models.items()}


def attacked(folder, models_cache, protocol=None, models=None, **protocol_keys):
    """A tiny run and what its attacks found, by (source, server, how)."""
    scenario = tiny(stop={"updates": 1})
    scenario["protocol"] = protocol or {**scenario["protocol"], **protocol_keys}
    scenario["models"] = quick(scenario["models"]) | (models or {})
    ran = experiment.run(scenario_from(scenario), out=folder, cache_dir=models_cache)
    report = leakage.measure(folder, cache_dir=models_cache, rows_per_client=40)
    assert json.loads((folder / "leakage.json").read_text()) == report
    return (
        ran,
        report,
        {(one["source"], one["server"], one["how"]): one["result"] for one in report["attacks"]},
    )


def test_without_noise_ae_is_told_from_me_and_answers_are_disclosed_to_a_choosing_server(
    tmp_path, models_cache
):
    ran, report, found = attacked(tmp_path / "run", models_cache)
    assert found["rewards", "honest", "evaluator shown"]["auc"]["value"] == 1.0
    assert found["rewards", "honest", "evaluator hidden"]["auc"]["value"] > 0.9
    asked = found["rewards", "choosing", "mean reward"]
    assert asked["num_members"] == asked["num_others"] > 0
    honest, choosing = report["disclosures"]
    assert (honest["server"], choosing["server"]) == ("honest", "choosing")
    assert choosing["share"]["value"] >= choosing["known_before"]["value"]
    assert ran.summary["privacy"]["epsilon"] == "inf"
    page = table(read([tmp_path / "run"]))
    assert "| run | rewards | honest | trusted answer | evaluator shown |" in page


def test_noise_hides_which_evaluator_spoke_and_stands_in_the_runs_privacy_ledger(tmp_path, models_cache):
    ran, _, found = attacked(tmp_path / "run", models_cache, reward_noise=NOISE)
    assert found["rewards", "honest", "evaluator hidden"]["auc"]["value"] == 0.5  # one bit each, all alike
    ledger = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert len(ledger) == 3
    assert ran.summary["privacy"]["epsilon"] == pytest.approx(max(entry["own_epsilon"] for entry in ledger))
    assert ran.summary["privacy"]["mechanism"] == "randomised_response"


def test_answers_up_discloses_every_trusted_answer_to_a_choosing_server(tmp_path, models_cache):
    ran, report, found = attacked(tmp_path / "run", models_cache, wire="answers_up")
    assert {source for source, _, _ in found} == {"answers", "policy"}
    assert report["git_commit"] == git_commit()
    assert report["disclosures"][-1]["share"]["value"] == 1.0
    assert 0.0 < report["disclosures"][0]["share"]["value"] <= 1.0
    assert not ran.summary["privacy"]["is_private"]


def test_a_server_tuned_on_answers_is_told_no_more_trusted_answers_than_it_is_when_it_chooses_the_questions(
    tmp_path, models_cache
):
    _, report, found = attacked(
        tmp_path / "run", models_cache, {"name": "distil", "max_new_tokens": 4, "questions_per_update": 12}
    )
    assert [key[:2] for key in found] == [("answers", "choosing")] * 2 + [("policy", "honest")]
    honest, choosing = (one["share"]["value"] for one in report["disclosures"])
    assert honest <= choosing < 1.0  # a client's model answers, which does not look at what the client owns


def test_clients_trained_with_dp_sgd_run_and_promise_their_epsilon_where_no_answer_is_owned(
    tmp_path, models_cache
):
    tuning = {"steps": 3, "batch_size": 16}
    scenario = tiny(stop={"updates": 1})
    scenario["tasks"]["answers"] = {"coverage": 0.0}
    scenario["models"] = quick(scenario["models"]) | {"client_privacy": {"epsilon": 4.0, "tuning": tuning}}
    ran = experiment.run(scenario_from(scenario), out=tmp_path / "run", cache_dir=models_cache)
    assert (ran.summary["privacy"]["epsilon"], ran.summary["privacy"]["mechanism"]) == (4.0, "dp_sgd")
    hashes = ran.manifest["model_hashes"]
    assert len({hashes[f"client-{k}"] for k in range(3)}) == 3


def test_uploaded_adapters_are_attacked(tmp_path, models_cache):
    _, _, found = attacked(
        tmp_path / "run",
        models_cache,
        {"name": "fedpetuning", "max_new_tokens": 4, "local_steps": 2, "clients_per_round": 2},
    )
    how = "gain in log-likelihood by the first upload"
    assert list(found) == [
        ("adapters", "honest", how),
        ("adapters", "choosing", f"{how}, after ascent"),
        ("policy", "honest", "final policy against the initial one"),
    ]
    assert all(result["num_members"] == result["num_others"] > 20 for result in found.values())


def test_synthetic_rows_are_attacked(tmp_path, models_cache):
    synthesis = {
        "mechanism": "none", "epsilon": "inf", "rows_per_client": 20, "generator": {"steps": 20, "max_tokens": 48},
        "tuning": {"steps": 2},
    }  # fmt: skip
    scenario = {"name": "dpsda_fl", "max_new_tokens": 4, "synthesis": synthesis}
    _, _, found = attacked(tmp_path / "run", models_cache, scenario)
    assert ("synthetic", "honest", "likeness to the most alike synthetic row") in found


def test_only_finished_runs_with_real_models_are_attacked(tmp_path, models_cache):
    scenario = scenario_from(tiny(stop={"updates": 1}, fidelity="timing"))
    experiment.run(scenario, out=tmp_path / "run", cache_dir=models_cache)
    with pytest.raises(RunFolderError, match="token counts"):
        leakage.measure(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"leakage\.json cannot be read"):
        read([tmp_path / "run"])
