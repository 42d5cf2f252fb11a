"""Checkpoints: whole or absent, named by the tape, the last whole one is taken up."""

from __future__ import annotations

import contextlib
import json

import pytest

from fedsim.errors import RunFolderError
from fedsim.experiment.replay.checkpoints import Checkpoints, is_whole, latest
from fedsim.experiment.replay.tape import Tape, checkpoints


class Counter:
    """A policy whose state is its version; its disk may be full."""

    def __init__(self) -> None:
        self.version = 0
        self.has_room = True

    def save_state(self, folder):
        (folder / "first.json").write_text("{}")
        if not self.has_room:
            raise OSError(28, "No space left on device")
        (folder / "state.json").write_text(json.dumps(self.version))

    def restore_state(self, folder):
        self.version = json.loads((folder / "state.json").read_text())


@pytest.fixture
def run(tmp_path):
    """A tape, its checkpoints, and a policy that steps."""
    with contextlib.closing(Tape(tmp_path / "tape")) as tape:
        yield tape, Checkpoints(tmp_path / "kept", 0.0), Counter()


def stepped(run, times=1):
    tape, kept, policy = run
    for _ in range(times):
        policy.version += 1
        tape.call("update", policy.version, lambda: None)
        kept.save(policy, tape)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_checkpoints_are_kept_and_the_last_is_taken_up(run, tmp_path):
    stepped(run, 3)
    assert names(tmp_path / "kept") == ["00000002", "00000003"]
    assert latest(tmp_path / "kept", tmp_path / "tape") == ("00000003", run[0].offset)
    policy = Counter()
    Checkpoints(tmp_path / "kept", 0.0, "00000003").restore(policy)
    assert policy.version == 3


def test_a_torn_checkpoint_is_passed_over_for_the_one_before(run, tmp_path):
    stepped(run, 3)
    (tmp_path / "kept" / "00000003" / "state.json").write_text('{"torn')
    assert not is_whole(tmp_path / "kept" / "00000003")
    before = checkpoints(tmp_path / "tape")[1]
    assert before[0] == "00000002"
    assert latest(tmp_path / "kept", tmp_path / "tape") == before
    (tmp_path / "kept" / "00000002" / "state.json").unlink()
    (tmp_path / "kept" / "00000002" / "first.json").unlink()
    assert latest(tmp_path / "kept", tmp_path / "tape") is None


def test_a_checkpoint_that_cannot_be_written_is_neither_on_the_tape_nor_under_its_name(run, tmp_path):
    stepped(run)
    run[2].has_room = False
    with pytest.raises(RunFolderError, match="00000002: cannot be written: No space left on device"):
        stepped(run)
    assert names(tmp_path / "kept") == [".00000002.tmp", "00000001"]
    assert [name for name, _ in checkpoints(tmp_path / "tape")] == ["00000001"]
    run[2].version, run[2].has_room = 1, True
    stepped(run)
    assert names(tmp_path / "kept") == ["00000001", "00000002"]


def test_a_checkpoint_of_the_same_name_is_replaced(run, tmp_path):
    stepped(run)
    (tmp_path / "kept" / "00000001" / "left_over.json").write_text("{}")
    run[1].write("00000001", run[2])
    assert names(tmp_path / "kept" / "00000001") == ["first.json", "state.json"]


def test_a_checkpoint_that_the_tape_does_not_name_does_not_exist(run, tmp_path):
    stepped(run)
    run[1].write("00000009", run[2])
    assert latest(tmp_path / "kept", tmp_path / "tape") == ("00000001", run[0].offset)
    assert latest(tmp_path / "kept", tmp_path / "no_tape") is None
