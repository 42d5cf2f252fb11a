"""A log whose rows lie in a spool tells the same as one that keeps them, and holds no more than a piece of them."""

import math
import tracemalloc
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.errors import InvariantViolation
from fedsim.records import invariants, invariants_naive
from fedsim.records import parquet as tables
from fedsim.records.log import RecordLog, read_spool
from fedsim.records.metrics import Metrics
from fedsim.records.rows import RECORD_TYPES, SERVER_ID, Outcome, Transfer, Update
from fedsim.records.run import load, write_results
from fedsim.records.run_folder import RunFolder
from fedsim.records.summary import SummaryContext, summarise
from tests.samples.run import carried_bytes, sample_log

CONTEXT = SummaryContext("fedgrpo", 0, 20.0, 1.0, "updates")


def rows_of(log):
    return [row for kind in RECORD_TYPES for row in log.of(kind)]


def spooled(tmp_path, log):
    """The same rows in a log with a spool; kinds in turn, which nobody may notice."""
    told = RecordLog(tmp_path / "records.spool")
    for row in rows_of(log):
        told.add(row)
    told.close()  # it can still be read
    return told


@pytest.fixture
def long(monkeypatch):
    """A log of several chunks, and batches of tables so small that every kind has several."""
    monkeypatch.setattr(tables, "BATCH_ROWS", 100)
    return sample_log(num_updates=120)


def test_a_spooled_log_tells_the_same(tmp_path, long):
    log = spooled(tmp_path, long)
    assert sum(1 for _ in read_spool(tmp_path / "records.spool")) > 3
    assert log.wire_bytes == long.wire_bytes == sum(row.wire_bytes for row in long.of(Transfer))
    assert [log.of(kind) for kind in RECORD_TYPES] == [long.of(kind) for kind in RECORD_TYPES]
    told, expected = summarise(log, CONTEXT), summarise(long, CONTEXT)
    assert told.pop("records_sha256") != expected.pop("records_sha256")  # the order is another
    assert told == expected
    metrics = [Metrics(one) for one in (log, long)]
    for one, counted in zip((log, long), metrics, strict=True):
        for chunk in one.chunks(Transfer, Outcome):
            counted.add(chunk)
    assert metrics[0].frame().equals(metrics[1].frame())
    invariants.check(log, carried_bytes(long))


def test_rows_of_some_kinds_are_read_alone(tmp_path):
    log = spooled(tmp_path, sample_log(num_updates=3))
    both = [row for chunk in log.chunks(Update, Outcome) for row in (*chunk.of(Outcome), *chunk.of(Update))]
    assert len(both) == len(log.of(Update)) + len(log.of(Outcome))
    assert not any(chunk.of(Transfer) for chunk in log.chunks(Update))
    for kind in RECORD_TYPES:
        assert [*chain.from_iterable(read_spool(tmp_path / "records.spool", kind))] == log.of(kind)


def test_tables_in_pieces_are_the_tables_of_the_whole(tmp_path, long):
    whole, pieces = (
        RunFolder.create(tmp_path / "whole", "a", 0),
        RunFolder.create(tmp_path / "pieces", "a", 0),
    )
    write_results(pieces, spooled(tmp_path, long), {})
    write_results(whole, long, {})
    one, other = load(whole.path), load(pieces.path)
    for name, table in one.records.items():
        assert (
            table.equals(other.records[name], null_equal=True) and table.schema == other.records[name].schema
        )
    assert one.transfers.height > 300
    assert not list(pieces.path.rglob("*.part"))


def test_a_piece_that_cannot_be_written_leaves_nothing_behind(tmp_path, long):
    folder = RunFolder.create(tmp_path / "run", "a", 0)
    log = spooled(tmp_path, long)
    (folder.path / "records" / "outcomes.parquet").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_results(folder, log, {})
    assert not list(folder.path.rglob("*.part"))


def test_a_long_log_takes_no_more_memory_than_a_short_one(tmp_path):
    def peak_bytes(times):
        rows = sample_log(num_updates=60)
        log = RecordLog(tmp_path / f"{times}.spool")
        tracemalloc.start()
        for _ in range(times):
            for row in rows_of(rows):
                log.add(row)
        for chunk in log.chunks():
            assert len(chunk.of(Transfer)) < 5000
        log.close()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    assert peak_bytes(40) < 1.2 * peak_bytes(4)


SPOILT = st.sampled_from(
    [
        {"request_id": 1}, {"request_id": 10**6}, {"start_at_s": 0.0}, {"end_at_s": 0.0}, {"end_at_s": math.nan},
        {"start_at_s": 1e9}, {"ended_at_s": 0.0}, {"sent_at_s": 1e9}, {"at_s": 0.0}, {"policy_version": 2},
        {"wire_bytes": -1}, {"wire_bytes": 0}, {"fate": "late"}, {"fate": "cut"}, {"fate": "useful"}, {"status": "ok"},
        {"status": "dropped"}, {"purpose": "setup"}, {"purpose": "cancel"}, {"purpose": "new"},
        {"direction": "up"}, {"direction": "down"},
        {"client_id": 1}, {"client_id": SERVER_ID}, {"question_id": 0}, {"subject": 0}, {"num_experts": 1},
        {"num_answered": 9}, {"dispatched_at_s": 0.0}, {"completed_at_s": 1e9}, {"staleness_max": -1},
    ]
)  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 10**6), SPOILT), max_size=2), st.sampled_from([None, 2, 3, 8]))
def test_the_checks_say_what_their_simple_twin_says(changes, limit):
    """Whatever one field of one or two rows is changed to."""
    whole = sample_log(num_updates=6)
    totals = carried_bytes(whole)
    rows = rows_of(whole)
    for place, change in changes:
        place %= len(rows)
        fields = {name: getattr(rows[place], name) for name in rows[place].__struct_fields__}
        rows[place] = type(rows[place])(
            **fields | {key: value for key, value in change.items() if key in fields}
        )
    log = RecordLog()
    for row in rows:
        log.add(row)
    limits = invariants.Limits(groups=limit, cohort=limit, asked=limit)
    told = verdict(invariants.check, log, totals, limits)
    assert told == verdict(invariants_naive.check, log, totals, limits)


def verdict(check, log, totals, limits):
    try:
        check(log, totals, parallel_ids=(SERVER_ID,), limits=limits)
    except InvariantViolation as error:
        return str(error)
    except KeyError:  # the twin's own: a transfer without a request, which it names before
        return "unknown request"
    return "sound"


def test_the_sample_is_sound_in_both():
    log = sample_log(num_updates=6)
    assert verdict(invariants.check, log, carried_bytes(log), invariants.NO_LIMITS) == "sound"
    assert verdict(invariants_naive.check, log, carried_bytes(log), invariants.NO_LIMITS) == "sound"
