from __future__ import annotations

import io

import pytest

from fedsim.progress import PlainProgress, RichProgress, SilentProgress, format_stats, progress_for


class Watch:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_figures_carry_the_unit_that_their_name_ends_in() -> None:
    shown = format_stats({"virtual_s": 75.0, "wire_bytes": 3 * 1024**2, "reward": 0.25, "late": 7, "by": "x"})
    assert shown == "virtual 1 min 15 s · wire 3.0 MiB · reward 0.250 · late 7 · by x"


def test_a_figure_that_is_not_a_number_is_left_out() -> None:
    assert format_stats({"accuracy": float("nan"), "reward": 0.25}) == "reward 0.250"


def test_plain_progress_writes_a_line_every_interval_with_the_time_left() -> None:
    stream, watch = io.StringIO(), Watch()
    progress = PlainProgress(stream, interval_s=5.0, now_s=watch)
    with progress.phase("training", total=10) as phase:
        for _ in range(4):
            watch.now_s += 2.0
            phase.advance(1, loss=0.5)
        phase.advance(6, accuracy=0.25)
    assert stream.getvalue().splitlines() == [
        "training: started",
        "training: 3/10 · loss 0.500 · ETA 14.0 s",
        "training: done after 8.0 s, 10/10 · loss 0.500 · accuracy 0.250",
    ]


def test_a_phase_of_unknown_length_shows_a_count_and_no_time_left() -> None:
    stream, watch = io.StringIO(), Watch()
    with PlainProgress(stream, interval_s=1.0, now_s=watch).phase("loading") as phase:
        watch.now_s = 2.0
        phase.advance(3)
    assert stream.getvalue().splitlines()[1] == "loading: 3"


def test_a_phase_that_raises_is_shown_as_stopped_and_the_error_passes() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="boom"), PlainProgress(stream, now_s=Watch()).phase("training", 3):
        raise ValueError("boom")
    assert stream.getvalue().splitlines()[-1] == "training: stopped after 0 ms, 0/3"


def test_a_stream_that_is_no_terminal_gets_plain_lines() -> None:
    stream = io.StringIO()
    progress = progress_for(stream)
    progress.note("hello")
    progress.close()
    assert isinstance(progress, PlainProgress)
    assert stream.getvalue() == "hello\n"


def test_silent_progress_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SilentProgress()
    with progress.phase("training", 3) as phase:
        phase.advance(2, loss=1.0)
    progress.note("hello")
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_live_progress_shows_the_phase_its_count_and_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    progress = RichProgress()
    with progress.phase("federation [x]", total=2) as phase:
        phase.advance(2, accuracy=0.5)
    progress.close()
    progress.close()
    shown = capsys.readouterr().err
    assert "federation [x]" in shown
    assert "2/2" in shown
    assert "accuracy 0.500" in shown
