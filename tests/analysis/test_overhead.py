"""The evidence page's part on communication (analysis/overhead.py): its tables from hand-made comparisons."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from analysis import controls, overhead
from fedsim.sweeps.compare.tables import write_comparison
from fedsim.sweeps.compare.target import TargetConfig
from tests.samples.comparison import Fake, write_run

DP_SGD = {
    "mechanism": "dp_sgd", "epsilon": 8.0, "delta": 1e-5, "neighbours": "one record added or removed", "noise": 0.5,
    "noise_unit": "clipping norms", "sensitivity": 1.0, "clip_norm": 0.5, "releases": 200, "rows_sent": 90,
    "rows_malformed": 10,
}  # fmt: skip
OPEN = DP_SGD | {
    "mechanism": "none", "epsilon": "inf", "delta": None, "neighbours": None, "noise": 0.0, "noise_unit": None,
    "sensitivity": None, "clip_norm": None,
}  # fmt: skip
REACHES = Fake("reaches", (0.2, 0.5, 0.6), down_bytes=2**20, up_bytes=2**20, wasted=0.0)
NEVER = Fake("never", (0.2, 0.3, 0.3))


def compared(folder, fakes, seeds=(0,), ledgers=None, one_off=None, target=0.45):
    """A finished comparison of hand-made runs; ``ledgers`` and ``one_off`` by variant."""
    runs, summaries = [], {}
    for fake in fakes:
        for seed in seeds:
            place = f"runs/{fake.name}-{seed}"
            write_run(folder / place, fake, seed)
            found = json.loads((folder / place / "summary.json").read_text())
            if one_off is not None:
                spent = one_off.get(fake.name, dict.fromkeys(TRAINED, 0.0))
                found["one_off"] = {
                    "client_training": {key: value * 100**seed for key, value in spent.items()}
                }
            if fake.name in (ledgers or {}):
                (folder / place / "privacy.json").write_text(json.dumps(ledgers[fake.name]))
            summaries.setdefault(fake.name, []).append(found)
            runs.append({"variant": fake.name, "seed": seed, "folder": place})
    config = TargetConfig(validation_greedy=target) if target else TargetConfig(share_of_gain=0.5)
    write_comparison(folder, "made", seeds, summaries, runs, target=config)
    return folder


TRAINED = {"device_s": 1200.0, "longest_s": 400.0, "flop": 1e15, "energy_j": 6500.0}


def section(folder, title):
    """The lines under a heading of the page."""
    text = "\n".join(overhead.lines(folder))
    return text.partition(f"### {title}\n")[2].partition("\n#")[0].strip().splitlines()


def rows(folder, title):
    """The cells of a section's table, by its first column."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section(folder, title)
        if line.startswith("| ")
    ]
    return {cells[0]: cells[1:] for cells in found[1:]}


def test_what_the_target_cost_is_the_median_with_lost_runs_counted_as_more_than_any_other(tmp_path):
    # Two of three runs of "mixed" get there: a mean over those two would lie between the median and the cheaper one.
    for name, curve in (("cheap", (0.2, 0.5)), ("dear", (0.2, 0.3, 0.5)), ("lost", (0.2, 0.3))):
        write_run(tmp_path / "runs" / name, Fake(name, curve, 2**20, 2**20, wasted=0.0), 0)
    runs = [
        {"variant": variant, "seed": seed, "folder": f"runs/{name}"}
        for variant, names in (("mixed", ("cheap", "dear", "lost")), ("worse", ("cheap", "lost", "lost")))
        for seed, name in enumerate(names)
    ]
    summaries = {
        variant: [
            json.loads((tmp_path / run["folder"] / "summary.json").read_text()) | {"seed": run["seed"]}
            for run in runs
            if run["variant"] == variant
        ]
        for variant in ("mixed", "worse")
    }
    config = TargetConfig(validation_greedy=0.45)
    write_comparison(tmp_path, "made", (0, 1, 2), summaries, runs, target=config)
    found = rows(tmp_path, "What the target cost")
    assert found["mixed"] == ["2 of 3", "4.0 MiB", "20.0 s", "0"]
    assert found["worse"] == ["1 of 3", "", "", ""]
    note = section(tmp_path, "What the target cost")[0]
    assert "0.450 (the comparison file)" in note and "rounded up to the next look" in note
    table = [line for line in overhead.lines(tmp_path)[6].splitlines() if line.startswith("| ")]
    assert table[1].endswith("| 4.00 MiB; reached 2 of 3 |") and table[2].endswith("| reached 1 of 3 |")


def test_without_a_target_the_page_says_so(tmp_path):
    folder = compared(tmp_path, [Fake("flat", (0.2, 0.2), measured=False), REACHES], target=None)
    assert section(folder, "What the target cost") == [
        "There is no target: the first variant was not measured or gained nothing."
    ]


def test_training_the_clients_own_models_has_a_line_per_variant_that_does_it(tmp_path):
    half = {key: value / 50 for key, value in TRAINED.items()}
    folder = compared(
        tmp_path, [REACHES, NEVER, Fake("small")], (0, 1), one_off={"reaches": TRAINED, "small": half}
    )
    assert rows(folder, "Training the clients' own models") == {
        "reaches": ["400.0 s", "1200.0 s", "6.5 kJ"],
        "small": ["8.0 s", "24.0 s", "130.0 J"],
    }


@pytest.mark.parametrize("one_off", [None, {}])
def test_where_no_client_trains_a_model_of_its_own_there_is_no_table(tmp_path, one_off):
    folder = compared(tmp_path, [NEVER], one_off=one_off)
    path = folder / "comparison.json"
    document = json.loads(path.read_text())
    if one_off is None:
        del document["variants"][0]["one_off"]
        path.write_text(json.dumps(document))
    assert section(folder, "Training the clients' own models") == [
        "No variant trains models that are the clients' own."
    ]


def test_a_release_that_promises_nothing_has_no_delta_and_no_noise(tmp_path):
    bare = {key: OPEN[key] for key in ("mechanism", "epsilon", "rows_sent", "rows_malformed")}
    ledgers = {
        "reaches": [DP_SGD, DP_SGD | {"noise": 0.75, "rows_sent": 110, "rows_malformed": 40}],
        "never": [OPEN],
        "bare": [bare],
        "idle": [],
    }
    folder = compared(tmp_path, [REACHES, NEVER, Fake("bare"), Fake("idle")], ledgers=ledgers)
    assert rows(folder, "What the synthetic rows promise") == {
        "reaches": ["dp_sgd", "8", "1e-05", "0.50 to 0.75 clipping norms", "200", "20%"],
        "never": ["none", "inf", "none", "none", "200", "10%"],
        "bare": ["none", "inf", "none", "none", "", "10%"],
        "idle": ["no client made rows", "", "", "", "", ""],
    }


def test_a_client_without_noise_is_not_hidden_behind_those_that_have_some(tmp_path):
    folder = compared(tmp_path, [REACHES], ledgers={"reaches": [DP_SGD, DP_SGD | {"noise": 0.0}]})
    assert rows(folder, "What the synthetic rows promise")["reaches"][3] == "0.00 to 0.50 clipping norms"


def test_without_synthetic_rows_and_without_a_grid_the_page_says_so(tmp_path):
    folder = compared(tmp_path, [REACHES])
    assert section(folder, "What the synthetic rows promise") == ["No variant makes synthetic rows."]
    assert rows(folder, "Values chosen on validation questions") == {"reaches": ["not tuned", ""]}
    assert "What was tuned: the grid was not run. All settings" in overhead.lines(folder)[4]
    (folder / "tuning.md").write_text("the grid as it was\n")
    assert overhead.lines(folder)[4].startswith("What was tuned: one setting of each method, on a grid")
    assert section(folder, "Values chosen on validation questions") == ["the grid as it was"]


def test_the_section_opens_with_the_comparisons_own_table_and_every_table_has_even_rows(tmp_path):
    ledgers = {"never": [OPEN]}
    folder = compared(tmp_path, [REACHES, NEVER], (0, 1), ledgers=ledgers, one_off={"reaches": TRAINED})
    text = "\n".join(overhead.lines(folder))
    assert text.startswith("## Communication compared\n") and "seeds 0, 1, code of " in text
    assert (folder / "comparison.md").read_text().strip() in text
    widths = [line.count("|") if line.startswith("|") else 0 for line in text.splitlines()]
    assert all(0 in pair or len(set(pair)) == 1 for pair in pairwise(widths))


def test_a_run_whose_metrics_are_gone_is_one_line_and_exit_code_2(tmp_path, capsys):
    whole, broken = compared(tmp_path / "a", [Fake("fedgrpo")]), compared(tmp_path / "b", [REACHES])
    for run in json.loads((whole / "comparison.json").read_text())["runs"]:
        clients = [{"accuracy_by_domain": {}}]
        (whole / run["folder"] / "clients.json").write_text(json.dumps(clients))
    (broken / "runs/reaches-0/metrics.parquet").unlink()
    page = tmp_path / "evidence.md"
    assert controls.main([str(whole), str(broken), str(page)]) == 2
    assert "metrics.parquet is missing" in capsys.readouterr().err
    assert not page.exists()
