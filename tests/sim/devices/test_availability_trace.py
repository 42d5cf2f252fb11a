"""Sessions from a file: read strictly, lived exactly, dealt by ownership."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.errors import DataFileError
from fedsim.experiment import checks
from fedsim.scenario.read import scenario_from
from fedsim.sim.devices.availability import availability
from fedsim.sim.devices.availability_config import TraceConfig
from fedsim.sim.devices.availability_trace import Trace, read_trace

ROWS = "client,start,end\n0,0,10\n0,20,30\n1,,\n2,5,100\n"


def trace(tmp_path, rows=ROWS, scores=None, **keys):
    (tmp_path / "trace.csv").write_text(rows)
    return Trace(TraceConfig.model_validate({"kind": "trace", "file": "trace.csv", **keys}), tmp_path, scores)


def test_a_trace_is_lived_as_it_is_written(tmp_path):
    source = trace(tmp_path, at_end="away")
    assert source.intervals(0, 0, 1000) == [(0, 10), (20, 30)]
    assert source.intervals(1, 0, 1000) == []
    assert source.intervals(2, 0, 1000) == [(5, 100)]
    assert source.is_on(0, 0.0) and not source.is_on(0, 10.0)
    assert source.next_change(0, 30.0) == math.inf
    assert source.next_change(1, 0.0) == math.inf
    assert [source.share_of(k) for k in range(3)] == [0.2, 0.0, 0.95]


def test_a_trace_starts_again_after_its_end(tmp_path):
    source = trace(tmp_path)  # 100 s long: its last end
    assert source.intervals(0, 95, 230) == [(100, 110), (120, 130), (200, 210), (220, 230)]
    assert source.intervals(1, 0, 1e6) == []
    assert source.intervals(2, 90, 300) == [(90, 100), (105, 200), (205, 300)]


def test_a_session_that_ends_with_the_trace_goes_on_in_one_that_begins_with_it(tmp_path):
    source = trace(tmp_path, "client,start,end\n0,0,10\n0,90,100\n1,0,100\n")
    assert source.intervals(0, 0, 250) == [(0, 10), (90, 110), (190, 210)]
    assert source.next_change(0, 95.0) == 110.0
    assert source.intervals(1, 0, 250) == [(0, 250)]
    assert source.next_change(1, 0.0) == math.inf


def test_a_length_puts_time_after_the_last_session(tmp_path):
    source = trace(tmp_path, length="200 s")
    assert source.intervals(2, 0, 500) == [(5, 100), (205, 300), (405, 500)]
    with pytest.raises(DataFileError, match=r"availability\.length is 50 s; must be at least 100 s"):
        trace(tmp_path, length="50 s")


@st.composite
def sessions_of(draw):
    instants = sorted(draw(st.sets(st.integers(0, 40), min_size=2, max_size=10)))
    return list(zip(instants[::2], instants[1::2], strict=False))


@settings(max_examples=60, deadline=None)
@given(sessions_of(), st.sampled_from([1.0, 7 / 3, 1234.567]), st.booleans())
def test_states_and_changes_agree_whatever_the_rounding(tmp_path_factory, sessions, scale, away):
    path = tmp_path_factory.mktemp("trace")
    rows = "".join(f"0,{start * scale!r},{end * scale!r}\n" for start, end in sessions)
    source = trace(path, f"client,start,end\n{rows}", at_end="away" if away else "repeat")
    at_s = 0.0
    for _ in range(40):
        change_s = source.next_change(0, at_s)
        if change_s == math.inf:
            break
        assert change_s > at_s
        assert source.is_on(0, change_s) != source.is_on(0, at_s)
        assert source.is_on(0, math.nextafter(change_s, 0)) == source.is_on(0, at_s)
        at_s = change_s
    start_s, end_s = (bound * scale for bound in sessions[0])
    assert source.is_on(0, start_s) and source.is_on(0, math.nextafter(end_s, 0))


def test_more_devices_than_traces_live_them_in_turn(tmp_path):
    source = trace(tmp_path)
    assert source.intervals(5, 0, 1000) == source.intervals(2, 0, 1000)
    assert source.share_of(4) == 0.0


def test_traces_are_dealt_so_that_the_highest_score_is_there_least(tmp_path):
    source = trace(tmp_path, scores=[0.0, -1.0, 1.0, 2.0])  # four devices would live traces 0, 1, 2, 0
    assert [source.share_of(client_id) for client_id in range(4)] == [0.2, 0.95, 0.2, 0.0]


def test_a_scenario_s_trace_lies_beside_it(tmp_path):
    (tmp_path / "mine.csv").write_text(ROWS)
    config = TraceConfig(kind="trace", file="mine.csv")
    assert availability(config, 0, tmp_path).is_on(2, 50.0)


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ("client,from,to\n0,0,1\n", 1, "must be client,start,end"),
        ("client,start,end\n", 1, "no session"),
        ("client,start,end\n0,0\n", 2, "2 cells"),
        ("client,start,end\n0,0,1,2\n", 2, "4 cells"),
        ("client,start,end\n1,0,1\n", 2, "client is '1'; must be 0"),
        ("client,start,end\n0,0,1\n2,0,1\n", 3, "client is '2'; must be 0 or 1"),
        ("client,start,end\n0,0,1\n1,0,1\n0,5,6\n", 4, "client is '0'; must be 1 or 2"),
        ("client,start,end\nphone,0,1\n", 2, "client is 'phone'"),
        ("client,start,end\n0,5,5\n", 2, "must be after its start"),
        ("client,start,end\n0,5,4\n", 2, "must be after its start"),
        ("client,start,end\n0,-1,4\n", 2, "start is '-1'"),
        ("client,start,end\n0,1,nan\n", 2, "end is 'nan'"),
        ("client,start,end\n0,1,inf\n", 2, "end is 'inf'"),
        ("client,start,end\n0,1,\n", 2, "end is ''"),
        (
            "client,start,end\n0,10,20\n0,15,30\n",
            3,
            "must be after the end of client 0's session before, 20 s",
        ),
        ("client,start,end\n0,10,20\n0,20,30\n", 3, "must be after the end"),
        ("client,start,end\n0,10,20\n0,1,2\n", 3, "must be after the end"),
        ("client,start,end\n0,,\n0,1,2\n", 3, "never there"),
        ("client,start,end\n0,1,2\n0,,\n", 3, "stands alone"),
        ('client,start,end\n0,"1,2\n', 2, "not CSV"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path, rows, line, message):
    path = tmp_path / "trace.csv"
    path.write_text(rows)
    with pytest.raises(DataFileError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataFileError) as caught:
        read_trace(tmp_path / "none.csv")
    assert str(caught.value) == f"{tmp_path / 'none.csv'}: cannot be read: No such file or directory"


def test_a_wrong_trace_is_refused_before_the_run(tmp_path):
    (tmp_path / "t.csv").write_text("client,start,end\n0,5,4\n")
    given = scenario_from(
        {
            "name": "traced",
            "fidelity": "timing",
            "protocol": "fedgrpo",
            "clients": {"phone": 12},
            "stop": {"updates": 1},
            "availability": {"kind": "trace", "file": "t.csv"},
        },
        tmp_path,
    )
    for one in (given, given.anchored()):
        with pytest.raises(DataFileError, match=r"t\.csv:2: the session ends at 4 s"):
            checks.refuse_early(one)
