"""A page drawn by two processes is the page drawn by one, also when the second one dies."""

import contextlib
import os
import shutil
import signal

import pytest
from sample_run import sample_run

from analysis import artist as artist_module
from analysis import figure_page, report
from analysis.artist import Artist, LostError, artist_for
from analysis.report import FIGURES


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = sample_run(tmp_path_factory.mktemp("artist") / "run", num_updates=10).folder
    report.write_report(folder)
    return folder


def copy_of(alone, folder):
    shutil.copytree(alone, folder)
    shutil.rmtree(folder / "figures")
    return folder


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "figures").iterdir())}


class Watched(Artist):
    """Remembers what it was asked for, and may be killed before one of them."""

    def __init__(self, folder, dies_before=None):
        super().__init__("run", folder)
        self.asked, self.dies_before = [], dies_before

    def draw(self, name):
        if len(self.asked) == self.dies_before:
            self.close()
        self.asked.append(name)
        return super().draw(name)


def test_the_page_is_the_same_whoever_draws_it(alone, tmp_path):
    folder = copy_of(alone, tmp_path / "run")
    with contextlib.closing(Watched(folder)) as artist:
        artist.await_ready()
        artist.await_ready = lambda: None
        written = report.write_report(folder, artist)
    assert artist.asked, "a ready artist draws at least the first one"
    assert artist.asked == [spec.name for spec in FIGURES][: len(artist.asked)]
    assert files_of(folder) == files_of(alone)
    assert [path.name for path in written] == [
        path.name for path in report.write_report(copy_of(alone, tmp_path / "other"))
    ]


@pytest.mark.parametrize("dies_before", [0, 1])
def test_what_a_dead_artist_has_not_drawn_is_drawn_here(alone, tmp_path, dies_before):
    folder = copy_of(alone, tmp_path / "run")
    with contextlib.closing(Watched(folder, dies_before)) as artist:
        artist.await_ready()
        artist.await_ready = lambda: None
        report.write_report(folder, artist)
    assert files_of(folder) == files_of(alone)


def test_an_artist_that_hangs_is_given_up(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(figure_page, "PATIENCE_S", 0.2)
    folder = copy_of(alone, tmp_path / "run")
    with contextlib.closing(Artist("run", folder)) as artist:
        os.kill(artist.pid, signal.SIGSTOP)
        report.write_report(folder, artist)
    assert files_of(folder) == files_of(alone)


def test_a_figure_that_has_nothing_to_show_is_told_and_a_folder_that_is_none_ends_the_artist(alone, tmp_path):
    folder = copy_of(alone, tmp_path / "run")
    (folder / "partition.csv").unlink()
    with contextlib.closing(Artist("run", folder)) as artist:
        artist.await_ready()
        assert artist.draw("traffic") is True
        assert artist.draw("partition") is False
    with contextlib.closing(Artist("run", tmp_path / "nowhere")) as artist:
        artist.await_ready()
        with pytest.raises(LostError):
            artist.draw("traffic")
    with pytest.raises(LostError):
        artist.draw("traffic")  # nor does a closed one hang


def test_where_no_process_can_be_started_there_is_no_artist(tmp_path, monkeypatch):
    def refuse(*arguments, **keys):
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(artist_module.subprocess, "Popen", refuse)
    with artist_for("run", tmp_path) as artist:
        assert artist is None


def test_nobody_is_hired_where_it_is_not_worth_it(tmp_path):
    with artist_for("run", tmp_path, if_worth_it=False) as artist:
        assert artist is None
