"""The evidence pages (analysis/pages.py): verdicts from hand-made tables, and that those in docs/ say what is so."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from analysis import pages, readme
from analysis.dropout import lost_share
from analysis.evidence import worst_attacks
from analysis.figures import largest_auc
from analysis.results import read
from fedsim.errors import InputError
from fedsim.records.provenance import git
from tests.analysis.test_results import results, run

ROOT = Path(__file__).resolve().parents[2]

ENDS = {
    "fedgrpo": 0.5,
    "paper_selection": 0.3,
    "central_grpo": 0.52,
    "random": 0.25,
    "majority_vote": 0.1,
    "distil": 0.6,
}


METHODS = dict.fromkeys(ENDS, (0, 1, 2))


def attack(how, area, sure, target="training row", server="choosing"):
    result = {"auc": {"value": area}, "tpr": {"value": sure}}
    return {"source": "rewards", "server": server, "target": target, "how": how, "result": result}


ATTACKS = {
    "attacks": [
        attack("raw", 0.6, 0.1),
        attack("calibrated", 0.8, 0.3),
        attack("shown", 0.99, 0.9, "trusted answer", "honest"),
    ]
}


def methods(names=ENDS):
    """Three seeds of every method, each a bit off."""
    return results(
        *(run(name, seed, end=names[name] + 0.01 * seed) for name, seed in product(names, range(3)))
    )


def page(name, tables):
    _, parts = pages.PAGES[name]
    return "\n".join(part for part in parts(tables) if isinstance(part, str))


def test_claims_are_met_or_not_by_the_numbers():
    text = page("evidence.md", {"skills_methods": methods()})
    verdicts = dict(re.findall(r"\| ([^|]*) \| [^|]* \| (yes|\*\*NO\*\*) \|", text))
    job = "pretrained, unseen words"
    # (.5 - .2) / (.52 - .2) = .94, (.3 - .2) / (.32) = .31
    assert verdicts[f"{job}: FedGRPO (ours: floor .7) has at least .9 of Central-GRPO's gain (mean)"] == "yes"
    assert verdicts[f"{job}: FedGRPO (paper's selection) has at least .9 of it (mean)"] == "**NO**"
    assert verdicts[f"{job}: ours above as many random experts: lower bound above 0"] == "yes"
    assert verdicts[f"{job}: ours above distil (experts' answers, SFT): lower bound above 0"] == "**NO**"
    assert "Dp alone" not in "".join(verdicts), "what was not measured is not judged"


def test_what_the_paper_says_is_confirmed_or_contradicted_by_intervals_alone():
    ends = {"fedgrpo": 0.5, "central_grpo": 0.6, "fedpetuning-grpo": 0.5, "fedpetuning-sft": 0.3}
    off = {"fedpetuning-grpo": {0: -0.02, 1: 0.0, 2: 0.03}}
    sent = {"fedgrpo": 2**10, "fedpetuning-sft": 2**17}
    runs = []
    for name, seed in product(ends, range(3)):
        one = run(name, seed, end=ends[name] + off.get(name, {}).get(seed, 0.0))
        one.summary["bytes"]["paper"]["uplink"] = sent.get(name, 1)
        runs.append(one)
    text = page("evidence.md", {"table1": results(*runs)})
    assert "| +.015 | tiny, paper's selection | -0.100 [-0.100, -0.100] | **contradicted** |" in text
    assert re.search(r"FedPETuning \+ GRPO.* \| not told apart \|", text)
    assert "| +.140 | tiny, paper's selection | +0.200 [+0.200, +0.200] | confirmed |" in text
    assert "| 277 times | tiny | 128 times | confirmed |" in text
    assert "DPSDA-FL + SFT" not in text, "what was not measured is not judged"
    by_text = {"attacks": [attack("raw", 0.6, 0.1)]}
    leaky = results(
        *(run(seed=seed, leakage=ATTACKS) for seed in range(3)),
        *(run("distil", seed, leakage=by_text) for seed in range(3)),
    )
    claimed = page("evidence.md", {"skills_methods": results(*leaky.runs, planned=METHODS)})
    assert re.search(r"less than answers as text do.* \| -0.200 \[-0.200, -0.200\] \| below", claimed)


def test_a_page_lists_what_is_not_finished():
    text = page(
        "evidence.md",
        {
            "controls": results(
                run(),
                run("central_grpo"),
                planned={"fedgrpo": [0, 1, 2], "central_grpo": [0], "paper_selection": [0]},
            )
        },
    )
    assert "3 of its 5 runs are not finished" in text
    assert "`scenarios/evidence.yaml`: 3 runs are missing, about 1 min 30 s one by one" in text
    assert "`scenarios/losses.yaml`: no run of it is in these tables" in text


def test_the_strongest_attack_on_training_rows_is_shown_and_one_on_answers_is_not_mixed_in():
    table = results(*(run(seed=seed, leakage=ATTACKS) for seed in range(2)))
    assert worst_attacks(table, "fedgrpo") == {("rewards", "choosing"): ({0: 0.8, 1: 0.8}, {0: 0.3, 1: 0.3})}
    assert largest_auc(table.runs[0]) == 0.8
    assert largest_auc(run()) is None


def test_disclosed_answers_stand_beside_what_is_right_without_a_reply():
    def told(share, before):
        known = None if before is None else {"value": before}
        return {"server": "choosing", "share": {"value": share}, "known_before": known}

    table = results(
        *(
            run("likelihood", seed, leakage={"attacks": [], "disclosures": [told(0.4, 0.2)]})
            for seed in range(3)
        )
    )
    assert "| tiny | likelihood | choosing | 0.400 [0.400, 0.400] | 0.200 [0.200, 0.200] | 3 |" in page(
        "evidence.md", {"privacy": table}
    )
    assert "known at the end" not in page("evidence.md", {"privacy": results(run("likelihood"))})


def test_what_dropout_takes_is_a_share_of_the_gain_without_it_under_the_same_policy():
    table = results(
        *(run("none deadline", seed, end=0.6) for seed in range(3)),
        *(run("independent-0.9 deadline", seed, end=0.3) for seed in range(3)),
        *(run("independent-0.9 replace", seed, end=0.6) for seed in range(3)),
    )
    assert lost_share(table, "independent-0.9", "deadline")["mean"] == pytest.approx(0.75)
    assert lost_share(table, "independent-0.9", "replace")["mean"] is None, "nothing to compare with"
    text = page("dropout.md", {"dropout": table})
    assert "independent-0.9: over_select not measured, replace +0.300 [+0.300, +0.300]" in text
    assert "dropout 100%" in text


def test_hostile_experts_are_held_against_the_same_rule_without_them():
    table = results(
        *(run("mean excluded_2", seed, end=0.6) for seed in range(3)),
        *(run("mean inverted_2", seed, end=0.1) for seed in range(3)),
    )
    text = page("learning_evidence.md", {"byzantine": table})
    assert "| mean | +0.400 [+0.400, +0.400] | -0.250 [-0.250, -0.250] |" in text


def test_a_page_and_its_figures_are_written_beside_each_other_and_no_other_page_is_known(tmp_path):
    with_leaks = results(
        *(run(name, seed, end=ENDS[name], leakage=ATTACKS) for name, seed in product(ENDS, range(2)))
    )
    errors = results(
        *(run(f"{kind}-{rate}", 0) for kind, rate in product(("fedgrpo", "central_grpo"), ("0", "75")))
    )
    pages.write(tmp_path / "evidence.md", {"skills_methods": with_leaks, "errors": errors})
    text = (tmp_path / "evidence.md").read_text()
    assert (
        {path.name for path in tmp_path.glob("*.png")} == set(re.findall(r"\]\((\w+\.png)\)", text)) != set()
    )
    with pytest.raises(
        InputError,
        match=r"other.md: no page of that name; there are evidence.md, learning_evidence.md, dropout.md, README.md",
    ):
        pages.write(tmp_path / "other.md", {})


def test_a_page_says_when_the_code_that_decides_results_has_changed_since():
    assert pages.since(["0" * 10]).startswith(
        "STALE: newer code learns otherwise; newer code has other virtual times"
    )
    assert pages.stale_line("# Evidence\n") == "it does not name the commit of its runs"
    said = f"**Runs are of commit {'0' * 10}.** {pages.NOW}"
    assert "where 'STALE" in (pages.stale_line(said) or "")


def test_what_readme_says_of_results_is_what_the_tables_say():
    text = (ROOT / "README.md").read_text()
    assert set(re.findall(r"<!-- results: (\w+) -->", text)) == set(readme.PARTS)
    assert readme.filled(text, pages.tables_in(ROOT / "docs/results")) == text, "run make pages"


def test_parts_of_readme_carry_intervals_missing_seeds_and_verdicts():
    both = "a\n<!-- results: first -->\nold\n<!-- end of results -->\nb\n"
    text = readme.filled(both, {"skills_methods": methods()})
    assert text.startswith("a\n<!-- results: first -->\n**What comes out")
    assert "old" not in text and text.endswith("\n<!-- end of results -->\nb\n")
    assert "3 seeds, 95% intervals over them, commit aaaaaaa" in text
    assert (
        "FedGRPO ends at .510 [.485, .535] from .200 [.200, .200]: .939" in text
        and "the wanted .9 is met" in text
    )
    few = results(run(), run("central_grpo"), planned={"fedgrpo": [0, 1, 2], "central_grpo": [0, 1, 2]})
    assert "1 seed (2 of 6 runs are finished)" in readme.filled(both, {"skills_methods": few})
    assert readme.NOT_RUN in readme.filled(both, {})
    with pytest.raises(
        InputError,
        match=r"no part of results 'last'; there are first, skills, tiny, overhead, dropout, privacy, hostile",
    ):
        readme.filled(both.replace("first", "last"), {})


def test_parts_of_readme_state_shares_differences_and_attacks_by_the_numbers():
    def text(part, **tables):
        return readme.filled(f"<!-- results: {part} -->\n<!-- end of results -->", tables)

    ends = {"none deadline": 0.6, "independent-0.9 deadline": 0.3}
    lost = results(*(run(name, seed, end=end) for (name, end), seed in product(ends.items(), range(3))))
    assert "of a gain of .400 [.400, .400] is lost, as a share of it: independent" in text(
        "dropout", dropout=lost
    )
    assert "independent 0.9 .750 [.750, .750]" in text("dropout", dropout=lost)
    ends = {"mean excluded_2": 0.6, "mean inverted_2": 0.1}
    hostile = results(*(run(name, seed, end=end) for (name, end), seed in product(ends.items(), range(3))))
    assert "mean random not measured, inverted -.250 [-.250, -.250]" in text("hostile", byzantine=hostile)
    noisy = results(run("likelihood", end=0.5, leakage=ATTACKS), run("flip-0.3", end=0.4))
    assert "differences from it: 30% of rewards flipped -.100." in text("privacy", privacy=noisy)
    assert ".800 from rewards of FedGRPO (.300)." in text("privacy", privacy=noisy)
    sizes = text("overhead", overhead=results(run(), run("distil", end=0.6)))
    assert (
        "| distil (experts' answers, SFT) | scalars | .600 | +.100 | 1.0 KiB | 1.0 MiB | 2.0 MiB |" in sizes
    )


@pytest.mark.parametrize("name", pages.PAGES)
def test_the_pages_in_docs_say_what_is_so(name):
    text = (ROOT / "docs" / name).read_text()
    made_by = re.findall(r"[0-9a-f]{10}", text.splitlines()[2])
    if any(git("cat-file", "-e", f"{commit}^{{commit}}") is None for commit in made_by):
        pytest.skip("a checkout without the history cannot tell what has changed since")
    wrong = pages.stale_line(text)
    assert wrong is None, f"docs/{name}: {wrong}; run make pages"


def test_every_table_in_docs_can_be_read_and_its_runs_were_planned():
    found = sorted((ROOT / "docs/results").glob("*.jsonl"))
    assert found
    for path in found:
        table = read(path)
        assert all(one.seed in table.planned[one.name] for one in table.runs), path
