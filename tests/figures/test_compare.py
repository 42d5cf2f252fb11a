"""The page of figures of a comparison (fedsim/figures/compare/report.py and what it draws with)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.transforms import Bbox

from fedsim.errors import RunFolderError
from fedsim.figures.compare.bytes import FATE_COLOURS, OFFSETS, compare_bytes
from fedsim.figures.compare.curves import compare_curves_bytes, compare_curves_time, curve
from fedsim.figures.compare.front import compare_front, efficient
from fedsim.figures.compare.report import COMPARISON_FIGURES, write_comparison_report
from fedsim.figures.compare.runs import billing_text, bounds, read
from fedsim.figures.compare.target import compare_target
from fedsim.figures.labels import method_style, short_names, spread
from fedsim.figures.style import save, save_png
from fedsim.records.run import load
from tests.samples.comparison import LONG, Fake, many, write

ROOT = Path(__file__).resolve().parents[2]
BILLED = {"server": "Qwen2.5-Math-7B", "clients": "Qwen2.5-Math-1.5B"}
ZERO = Fake("zero_shot", (0.3,), 0, 0, 0, step_s=0.0)
ALL_FIVE = [spec.name for spec in COMPARISON_FIGURES]


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]


def drawn(folder):
    return [path.stem for path in write_comparison_report(folder) if path.suffix == ".png"]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    fakes = [
        Fake("fedgrpo", (0.3, 0.36, 0.41, 0.44)),
        ZERO,
        Fake("fedpetuning", (0.3, 0.33, 0.36, 0.38), 9 * 10**7, 8 * 10**7, 7 * 10**7, wasted=0.3),
    ]
    return write(tmp_path_factory.mktemp("three"), fakes)


@pytest.fixture(scope="module")
def twenty(tmp_path_factory):
    return write(tmp_path_factory.mktemp("twenty"), many(20))


def part_of(whole, folder, count, seeds):
    """The comparison of the first methods and of these seeds alone, over the same run folders."""
    document = json.loads((whole / "comparison.json").read_text())
    document["seeds"], document["variants"] = list(seeds), document["variants"][:count]
    document["runs"] = [
        run | {"folder": str(whole / run["folder"])} for run in document["runs"] if run["seed"] in seeds
    ]
    (folder / "comparison.json").write_text(json.dumps(document | {"target": 0.32}))
    return folder


# ------------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize(
    ("count", "seeds"),
    [(1, (0, 1, 2)), (3, (0,)), *(pytest.param(count, (0, 1), marks=pytest.mark.slow) for count in (12, 20))],
    ids=str,
)
def test_every_figure_is_drawn_at_the_width_of_a_page(twenty, tmp_path, count, seeds):
    comparison = read(part_of(twenty, tmp_path, count, seeds))
    from PIL import Image

    for spec in COMPARISON_FIGURES:
        with Image.open(save_png(spec.draw(comparison), tmp_path / spec.name)) as image:
            assert image.width == 1440


@pytest.mark.slow
def test_equal_comparisons_give_equal_files_byte_for_byte_in_another_process_too(three, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(three, here)
    shutil.copytree(three, there)
    write_comparison_report(here)
    code = (
        "import sys; from fedsim.figures.compare.report import write_comparison_report;"
        f"write_comparison_report({str(there)!r}); print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", "figures must not load models"
    written = sorted((here / "figures").iterdir())
    assert [path.stem for path in written if path.suffix == ".png"] == sorted(ALL_FIVE)
    assert len(written) == 11
    for path in written:
        assert path.read_bytes() == (there / "figures" / path.name).read_bytes(), path.name


def test_without_accuracy_only_bytes_are_drawn_and_the_page_says_why_the_rest_is_missing(tmp_path):
    folder = write(tmp_path, [Fake("timed", measured=False, fidelity="timing")])
    (folder / "figures").mkdir()
    stale = folder / "figures" / "compare_front.png"
    stale.write_bytes(b"of an earlier comparison")
    assert drawn(folder) == ["compare_bytes"]
    assert not stale.exists()
    page = (folder / "figures" / "index.html").read_text()
    assert page.count("Left out") == 4
    assert page.count("timing fidelity has none") == 3
    assert "Timing fidelity (every method)" in page
    assert any("Timing fidelity (every method)" in text for text in texts_of(compare_bytes(read(folder))))


def test_a_method_without_accuracy_is_named_in_the_figures_that_leave_it_out(tmp_path):
    folder = write(tmp_path, [Fake("fedgrpo"), Fake("timed", measured=False, fidelity="timing")])
    comparison = read(folder)
    for draw in (compare_curves_bytes, compare_curves_time, compare_target, compare_front):
        footer = " ".join(text.replace("\n", " ") for text in texts_of(draw(comparison)))
        assert re.search("Not drawn, without (validation|test) accuracy: timed", footer)
    assert "timed" in texts_of(compare_bytes(comparison))


def test_every_figure_says_that_billing_is_on(tmp_path):
    comparison = read(write(tmp_path, [Fake("fedgrpo", bill_as=BILLED), ZERO]))
    for spec in COMPARISON_FIGURES:
        footer = " ".join(text.replace("\n", " ") for text in texts_of(spec.draw(comparison)))
        assert (
            "server as Qwen2.5-Math-7B, clients as Qwen2.5-Math-1.5B (fedgrpo); not billed (zero_shot)"
            in footer
        )
    assert billing_text({"models": {"bill_as": "Qwen2.5-3B"}}) == "models as Qwen2.5-3B"
    assert billing_text({"models": {"bill_as": None}}) is None


def test_a_folder_that_is_not_a_comparison_is_refused_in_one_line(three, tmp_path):
    with pytest.raises(RunFolderError, match="not a finished comparison"):
        read(tmp_path)
    folder = shutil.copytree(three, tmp_path / "without runs")
    document = json.loads((folder / "comparison.json").read_text())
    (folder / "comparison.json").write_text(json.dumps(document | {"runs": []}))
    with pytest.raises(RunFolderError, match="lists no run of fedgrpo"):
        read(folder)


# ------------------------------------------------------------------------------------- numbers are the records'


def test_marks_of_totals_stand_at_the_mean_over_seeds_of_the_sums_over_transfers(three):
    comparison = read(three)
    axes = compare_bytes(comparison).axes[0]
    assert axes.get_xlabel() == "bytes to the end of the run (MiB, logarithmic)"
    marks = {
        (line.get_label(), round(line.get_ydata()[0], 2)): line.get_xdata()[0]
        for line in axes.lines
        if line.get_marker() == "|"
    }
    entries = json.loads((three / "comparison.json").read_text())["runs"]
    for row, name in enumerate(("fedgrpo", "zero_shot", "fedpetuning")):
        runs = [load(three / entry["folder"]) for entry in entries if entry["variant"] == name]
        for account, column in (("wire", "wire_bytes"), ("paper", "paper_bytes")):
            expected = np.mean([run.transfers[column].sum() for run in runs]) / 2**20
            assert marks[f"{account} total", round(row + OFFSETS[account], 2)] == pytest.approx(expected)


def test_the_length_of_a_bar_is_the_share_of_its_direction_and_fate(three):
    comparison = read(three)
    middle, right = compare_bytes(comparison).axes[1:]
    cut = FATE_COLOURS["cut"]
    bars = [
        bar
        for bar in middle.patches
        if bar.get_y() + bar.get_height() / 2 == pytest.approx(2 + OFFSETS["wire"])
        and "#{:02X}{:02X}{:02X}".format(*(round(255 * part) for part in bar.get_facecolor()[:3])) == cut
    ]
    # 30% of the bytes of either direction are wasted, 60% of those by a cut: 0.18 of 90 : 80.
    assert [bar.get_width() for bar in bars] == pytest.approx([18 * 9 / 17, 18 * 8 / 17], rel=1e-6)
    assert [bool(bar.get_hatch()) for bar in bars] == [False, True]
    for axes, whole in ((middle, 100.0), (right, 30.0)):
        row = [bar for bar in axes.patches if abs(bar.get_y() + bar.get_height() / 2 - 1.81) < 1e-6]
        assert sum(bar.get_width() for bar in row) == pytest.approx(whole, rel=1e-6)


def test_a_method_that_sends_nothing_is_shown_as_such(three):
    found = texts_of(compare_bytes(read(three)))
    assert found.count("0 B") == 2
    assert "sends nothing" in found


def test_a_curve_is_the_mean_over_seeds_at_the_same_policy_version(tmp_path):
    comparison = read(write(tmp_path, [Fake("fedgrpo", (0.2, 0.3, 0.5))], seeds=(0, 1)))
    method = comparison.methods[0]
    found = curve(method, "wire_bytes")
    assert len(found.cost) == 3 and found.cost[0] == 0
    for place in range(3):
        assert found.greedy[place]["mean"] == pytest.approx(
            np.mean([run.looks[place].value for run in method.runs])
        )
        assert found.cost[place] == pytest.approx(
            np.mean([run.looks[place].wire_bytes for run in method.runs])
        )
    assert found.cost[-1] == pytest.approx(bounds(method.total("wire"))[0])


def test_methods_that_cost_nothing_are_lines_at_their_final_accuracy(three):
    axes = compare_curves_bytes(read(three)).axes[0]
    colour = method_style(1).colour
    level = [line for line in axes.lines if line.get_color() == colour and list(line.get_xdata()) == [0, 1]]
    assert len(level) == 1
    assert level[0].get_ydata()[0] == pytest.approx(bounds(read(three).methods[1].final())[0])


# ------------------------------------------------------------------------------------- the target


def test_a_target_that_nobody_stated_is_four_fifths_of_the_best_gain_and_the_figure_says_so(tmp_path):
    comparison = read(write(tmp_path, [Fake("slow", (0.3, 0.35)), Fake("best", (0.2, 0.3, 0.6))], seeds=(0,)))
    assert comparison.target.validation_greedy == pytest.approx(0.2 + 0.8 * 0.4)
    footer = " ".join(texts_of(compare_target(comparison))).replace("\n", " ")
    assert "Target: 0.520" in footer and "80% of the validation gain of best" in footer
    assert "reached 0 of 1" in footer and "reached 1 of 1" in footer


def test_a_stated_target_is_taken_with_its_origin_and_a_comparison_without_one_has_no_such_figure(tmp_path):
    stated = write(tmp_path / "stated", [Fake("fedgrpo")], target=0.37, target_origin="half of the gain")
    assert (read(stated).target.validation_greedy, read(stated).target.origin) == (0.37, "half of the gain")
    none = write(tmp_path / "none", [Fake("fedgrpo")], target=None)
    assert drawn(none) == [name for name in ALL_FIVE if name != "compare_target"]
    assert "there is no target" in (none / "figures" / "index.html").read_text()
    assert read(write(tmp_path / "flat", [ZERO])).target is None


def test_a_method_of_which_nothing_leaves_is_told_from_one_of_which_it_is_not_recorded(tmp_path):
    facts = [
        {"name": "silent", "protocol": "zero_shot", "leaves": []},
        {"name": "scored", "protocol": "fedgrpo", "leaves": ["scalars"]},
        {"name": "early", "protocol": "fedgrpo"},
    ]
    folder = write(tmp_path, [Fake(one["name"], measured=False) for one in facts], (0,), variants=facts)
    drawn(folder)
    page = (folder / "figures" / "index.html").read_text()
    for name, cell in (("silent", "nothing"), ("scored", "scalars"), ("early", "not recorded")):
        assert re.search(f"<tr><td>{name}</td><td>{name}</td><td>\\w+</td><td>{cell}</td>", page)


def test_the_page_has_medians_of_virtual_times_and_no_means(tmp_path):
    folder = write(tmp_path, [Fake("one", (0.3, 0.5), step_s=60.0)], seeds=(0, 1, 2))
    slow = folder / json.loads((folder / "comparison.json").read_text())["runs"][1]["folder"] / "summary.json"
    slow.write_text(json.dumps(json.loads(slow.read_text()) | {"virtual_s": 7200.0}))
    drawn(folder)
    page = (folder / "figures" / "index.html").read_text()
    assert "<td>1 min 00 s (2 h 00 min)</td>" in page
    assert "Virtual time: median, in brackets the 90th percentile" in page


def test_unreached_runs_are_open_dots_with_an_arrow_at_what_they_spent(tmp_path):
    fakes = [Fake("good", (0.3, 0.5)), Fake("bad", (0.3, 0.31))]
    comparison = read(write(tmp_path, fakes, seeds=(0,), target=0.45))
    left, right = compare_target(comparison).axes
    for axes, attribute, per_unit in ((left, "wire_bytes", 2**20), (right, "virtual_s", 1)):
        dots = {label: [] for label in ("reached", "censored")}
        for line in axes.lines:
            if line.get_label() in dots:
                dots[line.get_label()].append(line)
        wanted = [getattr(method.runs[0].looks[-1], attribute) / per_unit for method in comparison.methods]
        assert dots["reached"][0].get_xdata()[0] == pytest.approx(wanted[0])
        assert dots["censored"][0].get_xdata()[0] == pytest.approx(wanted[1])
        assert dots["censored"][0].get_markerfacecolor() == "white"
    arrows = [text for text in left.texts if getattr(text, "arrow_patch", None) is not None]
    assert len(arrows) == 2  # the bad method, in both accounts


# ------------------------------------------------------------------------------------- the front


def test_only_methods_that_nobody_beats_in_both_are_efficient():
    costs, gains = [5.0, 1.0, 3.0, 3.0, 9.0], [0.3, 0.1, 0.2, 0.1, 0.3]
    assert efficient(costs, gains) == [1, 2, 0]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_along_the_front_more_cost_is_more_gain(points):
    costs, gains = zip(*points, strict=True)
    front = efficient(costs, gains)
    assert front
    distinct = sorted({(costs[place], gains[place]) for place in front})
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(distinct))


def test_the_front_starts_at_the_best_method_that_sends_nothing(three):
    some = compare_front(read(three)).axes[-1]
    front = next(line for line in some.lines if line.get_label() == "front")
    methods = read(three).methods
    free, paid = bounds(methods[1].gains())[0], bounds(methods[0].gains())[0]
    assert list(front.get_ydata()) == pytest.approx([free, paid, paid])


@pytest.mark.parametrize("count", [3, 12, 20])
def test_labels_of_the_front_do_not_cover_each_other(twenty, tmp_path, count):
    figure = compare_front(read(part_of(twenty, tmp_path, count, (0, 1, 2))))
    save(figure, tmp_path / "front")
    names = {method.label for method in read(tmp_path).methods}
    boxes = [
        text.get_window_extent() for axes in figure.axes for text in axes.texts if text.get_text() in names
    ]
    assert len(boxes) == count
    for place, box in enumerate(boxes):
        for other in boxes[place + 1 :]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width <= 0 or height <= 1.5, "labels cover each other"
    assert Bbox.union(boxes).x1 <= figure.bbox.x1


# ------------------------------------------------------------------------------------- labels


def test_styles_of_sixty_methods_differ():
    assert len({(method_style(place).colour, method_style(place).marker) for place in range(63)}) == 63


@given(st.lists(st.text("abc-_", min_size=1, max_size=64), unique=True, max_size=20))
def test_short_names_fit_and_are_each_their_own(names):
    short = short_names(names)
    assert len(set(short.values())) == len(names)
    assert all(len(name) <= 26 for name in short.values())


def test_names_of_the_same_beginning_and_end_are_told_apart():
    twins = short_names([LONG, LONG.replace("factor", "product")])
    assert list(twins.values()) == ["fedpetuning-sf…ows-rank-16", "fedpetuning-s…s-rank-16 #2"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.001, 0.04))
def test_spread_labels_keep_their_order_and_distance_inside_the_axis(wanted, gap):
    places = spread(wanted, gap, 0.0, 1.0)
    order = sorted(range(len(wanted)), key=lambda place: (wanted[place], place))
    for before, after in pairwise(order):
        assert places[after] - places[before] >= gap - 1e-9
    assert min(places) >= 0 and max(places) <= 1 + 1e-9


def test_labels_that_are_far_enough_apart_stay_where_they_are_wanted():
    assert spread([0.5, 0.1, 0.9], 0.1, 0.0, 1.0) == pytest.approx([0.5, 0.1, 0.9])
    assert spread([0.5, 0.5], 0.2, 0.0, 1.0) == pytest.approx([0.4, 0.6])
