"""The evidence page (analysis/controls.py): every number in it is read from the runs of a comparison's folder."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from analysis import controls, finished
from fedsim.errors import RunFolderError
from fedsim.records.provenance import git
from fedsim.sweeps.compare.tables import write_comparison

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

SELECTIONS = {
    "fedgrpo": {"competence_floor": 0.7, "num_neighbours": 10, "grouping": "candidates"},
    "paper_selection": {"competence_floor": 0.0, "num_neighbours": 20, "grouping": "per_expert"},
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
                settings = SELECTIONS.get(method)
                manifest = {
                    "scenario": {"protocol": settings} if settings else None,
                    "git_commit": "0" * 40,
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
    return controls.write(folder, folder / "evidence.md").read_text()


def verdicts(text):
    """Claim -> (measured, met), as the page says."""
    section = text.partition("## What was looked for")[2].partition("## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {claim: (measured, met) for claim, measured, met in rows[1:]}


def test_each_claim_is_computed_from_the_runs_and_a_miss_is_said(comparison):
    found = verdicts(page(comparison(FINAL)))
    assert found["Central-GRPO gains at least .10 greedy over zero-shot"][1] == "yes"
    # Gains 0.34, 0.38, 0.33 over 0.40, 0.42, 0.38: shares 0.85, 0.905, 0.868.
    assert found["FedGRPO (floored)'s gain is at least .8 of Central-GRPO's (mean)"][0].startswith("0.874 [")
    assert found["FedGRPO (floored)'s gain is at least .8 of Central-GRPO's (mean)"][1] == "yes"
    assert found["FedGRPO (floored) minus random experts: lower bound at least .08"][1] == "yes"
    # 0.00 on average, but its upper bound is 0.025: not shown to gain nothing.
    assert found["self-reward gains nothing: upper bound below .02"] == ("0.000 [-0.025, 0.025]", "**no**")
    assert found["FedGRPO (floored) above dp_sft"][1] == "yes"
    assert found["FedGRPO (floored) above dp_grpo"][1] == "**no**"


@pytest.mark.parametrize(("last", "met"), [(0.22, "**no**"), (0.205, "yes")])
def test_the_same_claim_turns_with_the_runs(comparison, last, met):
    text = page(comparison(FINAL | {"self_reward": (0.20, 0.20, last)}))
    assert verdicts(text)["self-reward gains nothing: upper bound below .02"][1] == met


def test_a_claim_about_methods_that_were_not_run_is_left_out(comparison):
    found = verdicts(page(comparison({name: FINAL[name] for name in ("fedgrpo", "random")})))
    assert list(found) == ["FedGRPO (floored) minus random experts: lower bound at least .08"]


def test_methods_from_a_tuned_server_have_their_own_table_and_claims(comparison):
    plain = page(comparison(FINAL))
    assert "Not part of this comparison." in plain
    tuned = {f"{name}-tuned": FINAL[name] for name in ("fedgrpo", "dp_sft", "dp_grpo")}
    text = page(comparison(FINAL | tuned))
    assert "Not part of this comparison." not in text
    assert verdicts(text)["from the Dp-tuned server: FedGRPO (floored) above dp_sft"][1] == "yes"
    section = text.partition("already tuned")[2].partition("## ")[0]
    assert "| FedGRPO (floored, tuned) |" in section and "| central_grpo |" not in section


def test_accuracies_costs_and_clients_are_the_runs_own(comparison):
    text = page(comparison(FINAL))
    assert "3 seeds (0, 1, 2)" in text and "1234 test questions" in text and "Abacus 9000" in text
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    costs = text.partition("## What it cost")[2].partition("## ")[0]
    (fedgrpo,) = [line for line in costs.splitlines() if line.startswith("| FedGRPO (floored) |")]
    assert fedgrpo == (
        "| FedGRPO (floored) | 1.0 KiB | 3.0 KiB | 1.0 KiB | 25.0% | 90 / 100 | 57.5 s (2 h 00 min) | 1.50 | 0.812 |"
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
        controls.write(folder, tmp_path / "evidence.md")
    assert controls.main([str(folder), str(tmp_path / "evidence.md")]) == 2
    assert controls.main([str(tmp_path / "nothing"), str(tmp_path / "evidence.md")]) == 2
    assert controls.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
    assert not (tmp_path / "evidence.md").exists()


def test_the_command_prints_the_page_it_wrote(comparison, tmp_path, capsys):
    target = tmp_path / "docs" / "evidence.md"
    assert controls.main([str(comparison(FINAL)), str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert target.read_text().startswith("# Evidence\n")


def test_both_selections_stand_by_name_with_their_settings_and_their_share_of_centrals_gain(comparison):
    text = page(comparison(FINAL | {"paper_selection": (0.40, 0.38, 0.42)}))
    found = verdicts(text)
    # Mean gains: 0.35 floored, 0.20 with the paper's selection, 0.40 Central-GRPO.
    assert found["... as ratio of the mean gains at least .8"] == ("0.88", "yes")
    ours = "FedGRPO (paper's selection): ratio of its mean gain to Central-GRPO's at least .8"
    assert found[ours] == ("0.50", "**no**")
    assert (
        "FedGRPO (floored) has `competence_floor` 0.7, L = `num_neighbours` 10, `grouping: candidates`; FedGRPO (paper's "
        "selection) has `competence_floor` 0, L = `num_neighbours` 20, `grouping: per_expert`."
    ) in text
    assert "| FedGRPO (paper's selection) |" in text
    assert "fedgrpo |" not in text and "paper_selection" not in text


def test_distillation_is_told_apart_from_scores_only_where_the_interval_says_so(comparison):
    above = page(comparison(FINAL | {"distil": (0.56, 0.60, 0.55)}))
    # Differences .02, .02, .02; then .02, -.02, .03.
    assert (
        "ends +0.020 [+0.020, +0.020] from FedGRPO (floored), for which scores leave them: told apart"
        in above
    )
    assert "for which scores leave them: not told apart" in page(
        comparison(FINAL | {"distil": (0.56, 0.56, 0.56)})
    )


def test_domains_stand_apart_with_their_share_of_the_gain(comparison):
    folder = comparison(FINAL)
    ends = {"gcd": 0.8, "lcm": 0.5, "sums": 0.1}
    for path in folder.glob("runs/*/summary.json"):
        found = json.loads(path.read_text())
        found["accuracy"]["by_domain"] = {name: {"initial": 0.2, "final": end} for name, end in ends.items()}
        path.write_text(json.dumps(found))
    for path in folder.glob("runs/*/clients.json"):
        path.write_text(json.dumps([{"accuracy_by_domain": dict.fromkeys(ends, 0.9)}]))
    text = page(folder)
    # Gains .6, .3 and -.1 sum to .8: the first two carry .9 / .8.
    assert (
        "gcd and lcm carry 112% of the gain summed over the 3 domains; domains that fall: sums (-0.100)."
        in text
    )
    (gcd,) = [line for line in text.splitlines() if line.startswith("| gcd |")]
    assert " | +0.600 | " in gcd


def test_only_whole_names_of_variants_are_replaced():
    text = "fedgrpo, fedgrpo-answers_up: fedpetuning-grpo a/fedgrpo.yaml my-fedgrpo fedgrpo."
    assert finished.named(text) == (
        "FedGRPO (floored), FedGRPO (floored, answers_up): fedpetuning-grpo a/fedgrpo.yaml my-fedgrpo FedGRPO (floored)."
    )


def test_the_first_line_says_whose_runs_these_are_and_how_old_they_are(comparison):
    line = page(comparison(FINAL)).splitlines()[2]
    assert line.startswith(
        "**Runs are of commit 0000000000 (not in this history)**; in brackets: version of fedsim, "
    )


def test_commits_of_learning_code_and_of_the_world_are_counted_where_they_stand(tmp_path):
    """Runs are of the second commit; of the four after it two touch learning code, before and after it moved, two the world."""

    def commit_of(path):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text('__version__ = "0.7.3"' if path.endswith("__init__.py") else path)
        by = ["-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["add", path], [*by, "commit", "-q", "-m", "x"]):
            subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)
        return git("rev-parse", "--short=10", "HEAD", checkout=tmp_path)

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    changed = ("fedsim/models/a.py", "docs/models.md", "fedsim/sim/protocols/b.py", "fedsim/sim/clock.py")
    commit_of("fedsim/__init__.py")
    made_by = commit_of("fedsim/rl/losses.py")
    here = [commit_of(path) for path in changed][-1]
    page = [f"code of commit {made_by}, commit {here}", f"again: commit {made_by}."]
    line = finished.provenance(page, tmp_path)
    assert line.startswith(
        f"**Runs are of commit {made_by} (fedsim 0.7.3, 2 + 2), {here} (fedsim 0.7.3, 0 + 0)**;"
    )
    assert f"from there to {here} of learning code" in line


PAGES = [Path("docs") / name for name in ("evidence.md", "dropout.md", "learning_evidence.md")]


@pytest.mark.parametrize("page_of", PAGES, ids=lambda path: path.name)
def test_every_evidence_page_says_first_which_commits_it_stands_on(page_of):
    text = (Path(__file__).parents[2] / page_of).read_text(encoding="utf-8")
    first = text.splitlines()[2]
    assert first.startswith("**Runs are of commit ")
    below = set(re.findall(r"commit ([0-9a-f]{10})\b", text.partition(first)[2]))
    said = first.partition("**;")[0]
    assert below and all(re.search(rf"{made_by} \(fedsim [\d.]+, \d+ \+ \d+\)", said) for made_by in below)


def test_learning_code_is_where_the_first_line_counts_it():
    package = Path(finished.__file__).parents[1] / "fedsim"
    assert all(list(package.glob(f"**/{name}/*.py")) for name in finished.LEARNING_CODE)
    assert (package / "sim").is_dir() and (package / "federation").is_dir()


def test_a_run_of_changed_files_says_so():
    assert finished.commit({"git_commit": "ab" * 20}) == "commit ababababab"
    assert (
        finished.commit({"git_commit": "ab" * 20 + "-dirty"}) == "commit ababababab (tracked files differed)"
    )
    assert finished.commit({}) == "an unknown commit"
