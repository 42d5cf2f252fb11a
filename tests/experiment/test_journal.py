"""What a run keeps of itself from life to life: which records must come again, and which belong to no continued run."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest

from fedsim.errors import RunFolderError
from fedsim.experiment.journal import OLD_SPOOL, SPOOL, Journal
from fedsim.experiment.replay.tape import Tape
from fedsim.progress import SilentProgress
from fedsim.records.run_folder import RunFolder
from tests.experiment.replay.test_diff import row


@pytest.fixture
def opened(tmp_path):
    """Opens the journal of the next life of one run, and closes what a failed test left open."""
    folder = RunFolder.create(tmp_path / "run", "lives", 0)
    with contextlib.ExitStack() as stack:

        def next_life() -> Journal:
            journal = Journal(folder, SimpleNamespace(), SilentProgress())
            stack.callback(_closed, journal)
            return journal

        yield next_life


def _closed(journal: Journal) -> None:
    with contextlib.suppress(RunFolderError):  # what differs is told again
        journal.close()


def live(journal: Journal, *instants: float) -> None:
    for at_s in instants:
        journal.log.add(row(at_s))
    journal.log.flush()


def test_the_records_of_a_killed_life_must_come_again(opened):
    killed = opened()
    live(killed, 0.0, 1.0)
    killed.close()
    again = opened()
    live(again, 0.0)
    with pytest.raises(RunFolderError, match="record 1 differs"):
        live(again, 5.0)


def test_a_life_that_was_killed_early_does_not_shorten_what_must_come_again(opened, tmp_path):
    first = opened()
    live(first, 0.0, 1.0, 2.0)
    first.close()
    second = opened()
    live(second, 0.0)
    second.close()
    third = opened()
    sizes = [(tmp_path / "run" / name).stat().st_size for name in (OLD_SPOOL, SPOOL)]
    assert sizes[0] > sizes[1] == 0
    live(third, 0.0, 1.0)
    with pytest.raises(RunFolderError, match="record 2 differs"):
        live(third, 5.0)


def test_what_is_recorded_after_an_interrupt_is_not_compared_and_need_not_come_again(opened):
    killed = opened()
    live(killed, 0.0, 1.0)
    killed.close()
    interrupted = opened()
    live(interrupted, 0.0)
    interrupted.seal()
    live(interrupted, 7.0, 8.0, 9.0)  # the clean-up: requests that are cut
    interrupted.close()
    third = opened()
    live(third, 0.0, 1.0, 2.0)
    third.close()


def test_an_interrupt_while_a_run_is_still_replayed_leaves_it_as_it_is(opened, tmp_path):
    with contextlib.closing(Tape(tmp_path / "tape")) as tape:
        tape.call("tokens", 1, lambda: 3)
    journal = opened()
    with contextlib.closing(Tape(tmp_path / "tape", upto=tape.offset)) as journal._tape:
        with pytest.raises(KeyboardInterrupt):
            journal.seal()
        assert journal._tape.call("tokens", 1, lambda: 4) == 3
        journal.seal()  # nothing is left to replay
        assert not journal._tape.recording


def test_a_run_goes_on_only_with_the_models_it_began_with(opened):
    journal = opened()
    journal._check_hashes(SimpleNamespace(hashes={"server": "a1", "client-0": "b2"}))
    journal._check_hashes(SimpleNamespace(hashes={"server": "a1", "client-0": "b2"}))
    with pytest.raises(RunFolderError, match="the weights of client-0 are not those that the run began with"):
        journal._check_hashes(SimpleNamespace(hashes={"server": "a1", "client-0": "c3"}))
