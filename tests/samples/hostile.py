"""Hand-made sweeps over fusion rules and hostile experts: gains by (rule, level, seed), in the folder of a finished sweep."""

from __future__ import annotations

import json

from fedsim.config.csv_files import csv_records
from tests.samples.learning import summary

ENTRIES = {
    "none": [],
    "excluded_2": [{"kind": "excluded", "count": 2}],
    "inverted_1": [{"kind": "inverted", "count": 1}],
    "inverted_2": [{"kind": "inverted", "count": 2}],
    "lazy_2": [{"kind": "lazy", "share": 0.25}],
}


def sweep(folder, gains, axes=("fusion", "hostile"), detection=None, updates=60):
    """A finished sweep: ``{(rule, level, seed): gain or None}``; greedy gains are twice those of pass@1."""
    rules, levels = (list(dict.fromkeys(place[at] for place in gains)) for at in (0, 1))
    folder.mkdir(parents=True)
    rows = []
    for number, ((rule, level, seed), gain) in enumerate(gains.items()):
        place = f"runs/{number}"
        rows.append(
            {
                axes[0]: rule, axes[1]: level, "seed": seed, "status": "finished" if gain is not None else "failed",
                "reason": "" if gain is not None else "Deadlock: nobody", "folder": place,
            }
        )  # fmt: skip
        if gain is None:
            continue
        ends = {"greedy": 0.2 + 2 * gain, "pass_at_1": 0.2 + gain, "pass_at_8": 0.5}
        report = (detection or {}).get((rule, level, seed))
        (folder / place).mkdir(parents=True)
        (folder / place / "summary.json").write_text(
            json.dumps(summary(ends, updates=updates, **({} if report is None else {"detection": report})))
        )
        scenario = {
            "name": "x", "seed": seed, "hostile": ENTRIES[level], "protocol": {"fusion": rule},
            "evaluation": {"samples": 8}, "stop": {"updates": updates},
        }  # fmt: skip
        (folder / place / "manifest.json").write_text(
            json.dumps({"scenario": scenario, "git_commit": "f" * 40})
        )
    (folder / "stress.csv").write_bytes(csv_records(rows))
    shape = {"key": None, "low": None, "high": None, "scale": "linear", "unit": ""}
    document = {
        "name": "byzantine", "fidelity": "real", "seeds": [0], "random": False, "points": [], "lost": {},
        "axes": {axes[0]: {**shape, "levels": rules}, axes[1]: {**shape, "levels": levels}},
        "layout": {"x": axes[0], "y": axes[1], "panels": None},
    }  # fmt: skip
    (folder / "stress.json").write_text(json.dumps(document))
    return folder


def places(**gains):
    """``mean__none=[.1, .2]`` as gains by (rule, level, seed)."""
    return {
        (*key.split("__"), seed): gain for key, values in gains.items() for seed, gain in enumerate(values)
    }


FULL = places(
    mean__none=[0.10, 0.20], mean__excluded_2=[0.08, 0.20], mean__inverted_2=[0.02, 0.05], mean__lazy_2=[0.08, 0.20],
    mean__inverted_1=[0.05, 0.1], median__none=[0.09, 0.18], median__inverted_2=[0.08, 0.19],
    median__lazy_2=[0.076, 0.186], median__inverted_1=[0.1, 0.2],
)  # fmt: skip
