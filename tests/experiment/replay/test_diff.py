"""Comparing two lives of one run: which of their spools counts, and what is told of a record that differs."""

from __future__ import annotations

import pytest

from fedsim.errors import RunFolderError
from fedsim.experiment.replay.diff import SameRecords, longest_spool
from fedsim.records.log import RecordLog
from fedsim.records.rows import Presence


def row(at_s: float) -> Presence:
    return Presence(client_id=1, device_class="phone", start_at_s=at_s, end_at_s=at_s + 1.0)


def life(path, instants, watch=None):
    """A life of a run that leaves a row of each of these instants."""
    log = RecordLog(path, watch)
    for at_s in instants:
        log.add(row(at_s))
    log.close()
    return path


def test_of_several_spools_the_longest_counts_and_of_none_none(tmp_path):
    short, long = tmp_path / "short", tmp_path / "long"
    short.write_bytes(b"12")
    long.write_bytes(b"123")
    assert longest_spool(short, tmp_path / "missing", long) == long
    assert longest_spool(long, short) == long
    assert longest_spool(tmp_path / "missing") is None


def test_records_that_come_again_and_go_on_are_the_same_and_one_that_differs_is_named(tmp_path):
    old = life(tmp_path / "old", [0.0, 1.0, 2.0])
    for again in ([0.0, 1.0], [0.0, 1.0, 2.0, 3.0]):
        life(tmp_path / "new", again, SameRecords(old, tmp_path / "new"))
    with pytest.raises(RunFolderError, match=r"record 1 differs: Presence, start_at_s was 1.0, now 5.0"):
        life(tmp_path / "new", [0.0, 5.0], SameRecords(old, tmp_path / "new"))


def test_what_an_interrupted_life_recorded_while_it_was_cleaned_up_need_not_come_again(tmp_path):
    upto = RecordLog()
    upto.add(row(0.0))
    old = life(tmp_path / "old", [0.0, 1.0])
    life(tmp_path / "new", [0.0, 5.0], SameRecords(old, tmp_path / "new", upto.num_bytes))


def test_nothing_is_compared_any_more_after_a_stop(tmp_path):
    same = SameRecords(life(tmp_path / "old", [0.0, 1.0]), tmp_path / "new")
    log = RecordLog(tmp_path / "new", same)
    log.add(row(0.0))
    log.flush()
    same.stop()
    log.add(row(5.0))
    log.close()
