"""The page on learning (analysis/learning.py): its command, what is left out, and figures beside it."""

from __future__ import annotations

import pytest

from analysis import learning
from tests.samples.hostile import FULL, sweep
from tests.samples.learning import GROUP, Made, compared

FAST = ((0.0, 0.3), (5.0, 0.4), (20.0, 0.45))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("finished")
    variants = {"barrier": [Made()] * 3, "group": [Made(FAST, scenario=GROUP)] * 3}
    return {
        "--async": compared(tmp_path / "async", variants, name="async"),
        "--losses": compared(tmp_path / "losses", variants, name="losses"),
        "--byzantine": sweep(tmp_path / "byzantine", FULL),
        "--privacy": compared(tmp_path / "privacy", variants, name="privacy"),
    }


def command(page, folders, *more):
    given = [str(word) for pair in folders.items() for word in pair]
    return learning.main([*given, *more, "--page", str(page)])


def test_sections_stand_in_order_with_their_figures_and_what_is_not_given_is_said(tmp_path, folders, capsys):
    page = tmp_path / "docs" / "evidence.md"
    assert command(page, folders) == 0
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text()
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert [title.split(":")[0] for title in titles] == [
        "## Schedules", "## Losses", "## Hostile experts", "## Hostile experts where the only expert may be one", "## Privacy",
    ]  # fmt: skip
    assert text.count("Left out: no folder was given") == 1 and "(--byzantine-hard)" in text
    shown = {path.name for path in page.parent.glob("*.png")}
    assert shown == {"learning_async.png", "learning_losses.png", "learning_byzantine.png"}
    assert all(f"({name})" in text for name in shown)
    assert "No figure: gain against the strongest membership attack: nothing to draw." in text
    assert text.count("What was short: ") == 4 and text.count("code of commit") == 4


def test_the_same_folders_give_the_same_bytes(tmp_path, folders):
    first, second = tmp_path / "a" / "page.md", tmp_path / "b" / "page.md"
    assert command(first, folders) == command(second, folders) == 0
    for path in first.parent.iterdir():
        assert path.read_bytes() == (second.parent / path.name).read_bytes()


def test_nothing_given_is_a_page_that_says_so(tmp_path):
    assert command(tmp_path / "page.md", {}) == 0
    assert (tmp_path / "page.md").read_text().count("Left out: no folder was given") == 5


@pytest.mark.parametrize("option", ["--async", "--async-tune", "--losses", "--byzantine", "--privacy"])
def test_a_wrong_folder_is_one_line_with_exit_code_2_and_nothing_is_written(
    tmp_path, folders, option, capsys
):
    page = tmp_path / "docs" / "page.md"
    assert command(page, folders | {option: tmp_path / "nothing"}) == 2
    found = capsys.readouterr()
    assert found.err.count("\n") == 1 and str(tmp_path / "nothing") in found.err and not found.out
    assert not page.parent.exists()


@pytest.mark.parametrize(
    "arguments", [[], ["--page"], ["--page", "x.md", "--los", "y", "z"], ["--unknown", "--page", "x"]]
)
def test_a_wrong_command_line_is_one_line_too(arguments, capsys):
    assert learning.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_several_sweeps_and_comparisons_may_be_given(tmp_path, folders):
    hard = sweep(tmp_path / "hard", FULL)
    page = tmp_path / "page.md"
    more = [
        "--byzantine-hard",
        str(hard),
        str(folders["--byzantine"]),
        "--async",
        *[str(folders["--async"])] * 2,
    ]
    assert command(page, {"--byzantine": folders["--byzantine"]}, *more) == 0
    assert page.read_text().count("### Rewarding candidates\n") == 2
    assert (tmp_path / "learning_byzantine_hard.png").is_file()
