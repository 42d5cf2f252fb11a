"""The evidence page (analysis/evidence.py): every number in it is read from the runs of a comparison's folder."""

from __future__ import annotations

import json
import re

import pytest

from analysis import evidence
from fedsim.errors import RunFolderError
from fedsim.sweeps.comparison import write_comparison

# Final greedy accuracy by method and seed; every method starts from 0.20.
FINAL = {
    "zero_shot": (0.20, 0.20, 0.20),
    "central_grpo": (0.60, 0.62, 0.58),
    "fedgrpo": (0.54, 0.58, 0.53),
    "random": (0.30, 0.33, 0.30),
    "self_reward": (0.19, 0.20, 0.21),
    "dp_sft": (0.40, 0.41, 0.40),
    "dp_grpo": (0.45, 0.70, 0.45),
}


def summary(method, seed, final):
    start = 0.20
    pairs = {name: {"initial": start, "final": final} for name in ("greedy", "pass_at_1", "pass_at_8")}
    by_domain = {"gcd": {"initial": start, "final": final}, "lcm": {"initial": start, "final": final}}
    scored = method in ("fedgrpo", "random")
    return {
        "protocol": method,
        "seed": seed,
        "virtual_s": 7200.0 if seed == 1 else 57.5,
        "accuracy": pairs | {"num_questions": 1234, "by_domain": by_domain},
        "bytes": {
            "paper": {"uplink": 1024},
            "wire": {"uplink": 3 * 1024, "downlink": 1024},
            "by_fate": {"useful": 3 * 1024, "late": 1024},
        },
        "requests": {"ok": 90, "total": 100},
        "staleness": {"mean": 1.5 if scored else None},
        "learning": {"reward_auc_by_evaluator": {"likelihood": 0.8125} if scored else {}},
    }


@pytest.fixture
def comparison(tmp_path):
    """Writes a comparison's folder from a table of final accuracies."""

    def written(final, clients=(0.9, 0.7, 0.1)):
        folder, runs, summaries = tmp_path / "compared", [], {}
        for method, values in final.items():
            for seed, value in enumerate(values):
                place = f"runs/{method}-{seed}"
                (folder / place).mkdir(parents=True, exist_ok=True)
                found = summary(method.removesuffix("-tuned"), seed, value)
                rows = [{"accuracy_by_domain": {"gcd": known, "lcm": known / 2}} for known in clients]
                manifest = {
                    "platform": {"cpu": "Abacus 9000"},
                    "versions": {"python": "3.11.7", "torch": "2.13"},
                }
                for name, content in (("summary", found), ("clients", rows), ("manifest", manifest)):
                    (folder / place / f"{name}.json").write_text(json.dumps(content))
                summaries.setdefault(method, []).append(found)
                runs.append({"variant": method, "seed": seed, "folder": place})
        write_comparison(folder, "evidence", range(3), summaries, runs)
        return folder

    return written


def page(folder):
    return evidence.write(folder, folder / "evidence.md").read_text()


def verdicts(text):
    """Claim -> (measured, met), as the page says."""
    section = text.partition("## What was looked for")[2].partition("## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {claim: (measured, met) for claim, measured, met in rows[1:]}


def test_each_claim_is_computed_from_the_runs_and_a_miss_is_said(comparison):
    found = verdicts(page(comparison(FINAL)))
    assert found["Central-GRPO gains at least .10 greedy over zero-shot"][1] == "yes"
    # Gains 0.34, 0.38, 0.33 over 0.40, 0.42, 0.38: shares 0.85, 0.905, 0.868.
    assert found["FedGRPO's gain is at least .8 of Central-GRPO's (mean)"][0].startswith("0.874 [")
    assert found["FedGRPO's gain is at least .8 of Central-GRPO's (mean)"][1] == "yes"
    assert found["FedGRPO minus random experts: lower bound at least .08"][1] == "yes"
    # 0.00 on average, but its upper bound is 0.025: not shown to gain nothing.
    assert found["self-reward gains nothing: upper bound below .02"] == ("0.000 [-0.025, 0.025]", "**no**")
    assert found["FedGRPO above dp_sft"][1] == "yes"
    assert found["FedGRPO above dp_grpo"][1] == "**no**"


@pytest.mark.parametrize(("last", "met"), [(0.22, "**no**"), (0.205, "yes")])
def test_the_same_claim_turns_with_the_runs(comparison, last, met):
    text = page(comparison(FINAL | {"self_reward": (0.20, 0.20, last)}))
    assert verdicts(text)["self-reward gains nothing: upper bound below .02"][1] == met


def test_a_claim_about_methods_that_were_not_run_is_left_out(comparison):
    found = verdicts(page(comparison({name: FINAL[name] for name in ("fedgrpo", "random")})))
    assert list(found) == ["FedGRPO minus random experts: lower bound at least .08"]


def test_methods_from_a_tuned_server_have_their_own_table_and_claims(comparison):
    plain = page(comparison(FINAL))
    assert "Not part of this comparison." in plain
    tuned = {f"{name}-tuned": FINAL[name] for name in ("fedgrpo", "dp_sft", "dp_grpo")}
    text = page(comparison(FINAL | tuned))
    assert "Not part of this comparison." not in text
    assert verdicts(text)["from the Dp-tuned server: FedGRPO above dp_sft"][1] == "yes"
    section = text.partition("already tuned")[2].partition("## ")[0]
    assert "| fedgrpo-tuned |" in section and "| central_grpo |" not in section


def test_accuracies_costs_and_clients_are_the_runs_own(comparison):
    text = page(comparison(FINAL))
    assert "3 seeds (0, 1, 2)" in text and "1234 test questions" in text and "Abacus 9000" in text
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    costs = text.partition("## What it cost")[2].partition("## ")[0]
    (fedgrpo,) = [line for line in costs.splitlines() if line.startswith("| fedgrpo |")]
    assert fedgrpo == (
        "| fedgrpo | 1.0 KiB | 3.0 KiB | 1.0 KiB | 25.0% | 90 / 100 | 57.5 s (2 h 00 min) | 1.50 | 0.812 |"
    )
    (central,) = [line for line in costs.splitlines() if line.startswith("| central_grpo |")]
    assert central.endswith("| 57.5 s (2 h 00 min) |  |  |")
    assert rows["gcd"].startswith("| gcd | 0.900 [0.900, 0.900] | 0.700 [0.700, 0.700] | 0.200 [")
    assert rows["lcm"].startswith("| lcm | 0.450 [0.450, 0.450] | 0.350 [")


def test_no_measured_number_is_typed_into_the_page(comparison):
    """With other runs, no number of the tables stays as it was, but for the bounds that the claims name."""

    def numbers(folder):
        tables = [line for line in page(folder).splitlines() if line.startswith("| ")]
        measured = " ".join(line.partition(" | ")[2] for line in tables if "above" not in line)
        return set(re.findall(r"\d\.\d{3}", measured))

    before = numbers(comparison(FINAL))
    shifted = {
        name: tuple(value + 0.0137 * (seed + 1) for seed, value in enumerate(values))
        for name, values in FINAL.items()
    }
    after = numbers(comparison(shifted, clients=(0.83, 0.61, 0.13)))
    # The start (0.200) and the reward AUC (0.812) are the same in both sets of runs.
    assert len(before) > 30
    assert {"0.200", "0.812"} <= before & after
    assert len(before & after) < len(before) / 2


def test_a_folder_that_is_not_whole_is_one_line_and_exit_code_2(comparison, tmp_path, capsys):
    folder = comparison(FINAL)
    (folder / "runs/fedgrpo-1/summary.json").unlink()
    with pytest.raises(RunFolderError, match="not a finished comparison"):
        evidence.write(folder, tmp_path / "evidence.md")
    assert evidence.main([str(folder), str(tmp_path / "evidence.md")]) == 2
    assert evidence.main([str(tmp_path / "nothing"), str(tmp_path / "evidence.md")]) == 2
    assert evidence.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
    assert not (tmp_path / "evidence.md").exists()


def test_the_command_prints_the_page_it_wrote(comparison, tmp_path, capsys):
    target = tmp_path / "docs" / "evidence.md"
    assert evidence.main([str(comparison(FINAL)), str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert target.read_text().startswith("# Evidence\n")
