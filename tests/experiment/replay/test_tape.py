"""The tape: what was recorded comes back, and nothing else is taken for it."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.errors import RunFolderError
from fedsim.experiment.replay.tape import Tape, checkpoints, checksum
from fedsim.records.frames import read_frames

CALLS = [("likelihood", 1, [0.5, 1e-300]), ("tokens", 2, 3), ("answers", 3, ["7", ""])]


def nobody():
    raise AssertionError("a replay asks no model")


@pytest.fixture
def opened():
    """Opens tapes, and closes them when the test is over."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(contextlib.closing(Tape(*args, **options)))


def recorded(path, calls=CALLS):
    tape = Tape(path)
    for kind, asked, value in calls:
        assert tape.call(kind, asked, lambda value=value: value) == value
    tape.close()
    return path.stat().st_size


def test_a_replay_gives_what_was_recorded_and_asks_no_model(tmp_path, opened):
    size = recorded(tmp_path / "tape")
    tape = opened(tmp_path / "tape", upto=size)
    assert tape.replaying
    assert [tape.call(kind, asked, nobody) for kind, asked, _ in CALLS] == [value for *_, value in CALLS]
    assert not tape.replaying
    assert tape.recording


def test_a_result_outlives_a_process_that_is_killed_as_soon_as_it_was_given(tmp_path, opened):
    tape = opened(tmp_path / "tape")
    for number, (kind, asked, value) in enumerate(CALLS, start=1):
        tape.call(kind, asked, lambda value=value: value)
        assert len(list(read_frames(tmp_path / "tape"))) == number


@given(st.floats(allow_nan=True), st.integers(-(2**63), 2**63 - 1), st.text())
def test_numbers_and_texts_come_back_bit_for_bit(tmp_path_factory, number, count, text):
    path = tmp_path_factory.mktemp("tape") / "tape"
    size = recorded_raw(path, [number, count, text])
    with contextlib.closing(Tape(path, upto=size)) as tape:
        found = tape.call("any", 0, nobody)
    assert found[1:] == [count, text]
    assert found[0] == number or (math.isnan(found[0]) and math.isnan(number))


def recorded_raw(path, value):
    tape = Tape(path)
    tape.call("any", 0, lambda: value)
    tape.close()
    return path.stat().st_size


@pytest.mark.parametrize(
    ("kind", "asked", "said"),
    [
        ("tokens", 1, "is tokens where the tape has likelihood"),
        ("likelihood", 9, "is likelihood of other arguments"),
    ],
)
def test_another_call_than_the_recorded_one_is_told(tmp_path, opened, kind, asked, said):
    tape = opened(tmp_path / "tape", upto=recorded(tmp_path / "tape"))
    with pytest.raises(RunFolderError, match=f"result 1 of the replayed run {said}"):
        tape.call(kind, asked, nobody)


def test_catching_up_appends_nothing_until_the_old_results_have_come_again(tmp_path, opened):
    path = tmp_path / "tape"
    size = recorded(path)
    tape = opened(path)
    for kind, asked, value in CALLS:
        assert not tape.recording
        tape.call(kind, asked, lambda value=value: value)
    assert path.stat().st_size == size
    tape.call("tokens", 4, lambda: 5)
    tape.close()
    assert path.stat().st_size > size


def test_a_model_that_gives_another_result_than_the_recorded_one_is_told(tmp_path, opened):
    recorded(tmp_path / "tape")
    tape = opened(tmp_path / "tape")
    with pytest.raises(RunFolderError, match="result 1, likelihood, is not the one that was recorded"):
        tape.call("likelihood", 1, lambda: [0.5, 2e-300])


def test_a_torn_last_result_is_dropped_and_made_again(tmp_path):
    path = tmp_path / "tape"
    recorded(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    recorded(path)
    assert path.read_bytes() == whole


def test_a_checkpoint_says_how_far_a_replay_goes(tmp_path, opened):
    path = tmp_path / "tape"
    tape = opened(path)
    tape.call("update", 1, lambda: 1)
    tape.mark("00000001")
    tape.call("update", 2, lambda: 2)
    tape.close()
    ((name, end),) = checkpoints(path)
    assert name == "00000001"
    again = opened(path, upto=end)
    assert again.call("update", 1, nobody) == 1
    again.pass_checkpoints()
    assert not again.replaying
    assert again.call("update", 2, lambda: 2) == 2


def test_a_replay_and_catching_up_read_past_the_checkpoints_on_their_way(tmp_path, opened):
    path = tmp_path / "tape"
    tape = opened(path)
    for number in (1, 2):
        tape.call("update", number, lambda number=number: number)
        tape.mark(f"{number}")
    tape.close()
    replay, catching_up = opened(path, upto=path.stat().st_size, keep=False), opened(path)
    assert [replay.call("update", number, nobody) for number in (1, 2)] == [1, 2]
    assert [catching_up.call("update", number, lambda number=number: number) for number in (1, 2)] == [1, 2]


def test_a_sealed_tape_records_nothing_more(tmp_path, opened):
    path = tmp_path / "tape"
    size = recorded(path)
    tape = opened(path)
    tape.seal()
    assert tape.call("anything", 0, lambda: 4) == 4
    tape.close()
    assert path.stat().st_size == size
    again = opened(path)
    for kind, asked, value in CALLS:  # the next life catches up, and is interrupted when it has
        again.call(kind, asked, lambda value=value: value)
    again.seal()
    assert again.call("anything", 0, lambda: 4) == 4
    again.close()
    assert path.stat().st_size == size


def test_a_shadowed_replay_gives_the_recorded_result_and_tells_both(tmp_path, opened):
    recorded(tmp_path / "tape")
    told = []
    tape = opened(tmp_path / "tape", shadow=lambda *both: told.append(both), keep=False)
    assert tape.call("likelihood", 1, lambda: [0.4, 0.0]) == [0.5, 1e-300]
    assert told == [("likelihood", [0.5, 1e-300], [0.4, 0.0])]


def test_a_verification_writes_nothing(tmp_path, opened):
    size = recorded(tmp_path / "tape")
    before = (tmp_path / "tape").read_bytes()
    tape = opened(tmp_path / "tape", upto=size, keep=False)
    for kind, asked, _ in CALLS:
        tape.call(kind, asked, nobody)
    tape.close()
    assert (tmp_path / "tape").read_bytes() == before


def test_arguments_that_differ_have_another_checksum():
    assert checksum("a", "bc") != checksum("ab", "c")
    assert checksum(3, "x") == checksum(3, "x")
