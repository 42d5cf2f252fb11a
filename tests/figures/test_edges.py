"""Marks at the edge of a figure are whole, and a title gives the time that the run took."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedsim
from fedsim.config.units import format_seconds
from fedsim.experiment import run as experiment
from fedsim.figures.run.timeline import device_timeline
from fedsim.figures.stress.runs import Sweep
from fedsim.figures.stress.why import stress_why
from fedsim.figures.style import settle, styled
from fedsim.scenario.read import scenario_from


def lossy(share: float, domains: dict[str, float]) -> dict:
    shares = {
        "by_cause": {"late": share},
        "by_phase": {"up": share},
        "by_device_class": {"phone": share},
        "domains": domains,
    }
    return {"asked": 100, "lost": 100 * share, "shares": shares}


@pytest.mark.parametrize("share", [1.0, 0.999, 0.001, 0.0])
def test_marks_of_losses_are_whole_at_either_edge(share):
    lost = {
        "calm": lossy(share, {"gcd": 0.0, "_lcm": share}),
        "rough": lossy(max(share, 0.5), {"gcd": share, "_lcm": 1.0}),
    }
    sweep = Sweep(
        folder=Path("x"), name="hand", fidelity="timing", seeds=(0,), axes={}, is_random=False, x="a", y=None,
        panels=None, points=(), lost=lost,
    )  # fmt: skip
    figure = stress_why(sweep)
    assert figure is not None
    with styled():
        settle(figure)
    for axes in figure.axes:
        start, end = axes.get_xlim()
        assert start == 0
        for line in axes.lines:
            places = [float(place) for place in line.get_xdata()]
            assert not line.get_clip_on()
            assert all(place <= end / 1.04 for place in places)
        for bar in axes.patches:
            assert bar.get_x() + bar.get_width() <= end
    assert "_lcm" in [text.get_text().strip() for text in figure.axes[3].get_legend().get_texts()]


@pytest.mark.parametrize("updates", [1, 3, 12])
def test_the_timelines_title_gives_the_time_that_the_run_took(tmp_path, updates):
    scenario = scenario_from(
        {
            "name": "tail",
            "fidelity": "timing",
            "stop": {"updates": updates},
            "protocol": {"name": "fedgrpo", "update": {"groups_per_update": 4, "in_flight": 64}},
            "tasks": {
                "domains": ["gcd"],
                "sizes": {"public": 50, "private": 60, "auxiliary": 20, "pool": 200},
            },
            "clients": {"phone": 3, "laptop": 1},
        }
    )
    run = experiment.run(scenario, out=tmp_path / "run")
    took_s = run.summary["virtual_s"]
    assert run.outcomes["ended_at_s"].max() > took_s, "requests are still under way when it stops"
    figure = device_timeline(fedsim.load(run.folder))
    assert figure is not None
    title = figure.axes[0].get_title(loc="left")
    assert (
        f"the whole run of {format_seconds(took_s)}" in title
        or f"of the run's {format_seconds(took_s)}" in title
    )
