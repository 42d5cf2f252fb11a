import math

from hypothesis import given
from hypothesis import strategies as st

from fedsim.records.log import Chunk
from fedsim.records.rows import Compute, Outcome, Transfer
from fedsim.records.totals import ExactSum, Load

FLOATS = st.floats(-1e200, 1e200) | st.floats(-1.0, 1.0)


@given(st.lists(st.lists(FLOATS, max_size=30), max_size=20))
def test_a_sum_of_pieces_has_the_digits_of_one_sum_over_all(pieces):
    total = ExactSum()
    for piece in pieces:
        total.add(piece)
    assert total.value() == math.fsum(value for piece in pieces for value in piece)


@given(st.lists(FLOATS, max_size=40), st.lists(FLOATS, max_size=40))
def test_two_sums_join_to_the_sum_over_both(ours, theirs):
    first, second = ExactSum(), ExactSum()
    first.add(ours)
    second.add(theirs)
    first.join(second)
    assert first.value() == math.fsum([*ours, *theirs])


def test_many_pieces_are_kept_in_few_numbers():
    total = ExactSum()
    values = [0.1 * 3.7**power for power in range(-40, 40)]
    for _ in range(100):
        for value in values:
            total.add([value])
    assert total.value() == math.fsum(values * 100)
    assert len(total._parts) <= 300


def test_what_is_no_number_stays_none():
    total = ExactSum()
    total.add([1.0, math.nan])
    total.add([2.0])
    assert math.isnan(total.value())
    endless = ExactSum()
    endless.add([1.0, math.inf])
    assert endless.value() == math.inf


def test_the_energy_of_a_class_is_that_of_its_processors_and_of_its_radios():
    ended = Outcome(
        request_id=0, client_id=1, device_class="phone", purpose="question", subject=0, question_id=0, attempt=0,
        sent_at_s=0.0, ended_at_s=9.0, status="ok", phase="done", cause="",
    )  # fmt: skip
    computed = Compute(
        request_id=0, client_id=1, kind="question", start_at_s=1.0, end_at_s=3.0, flop=1.0, memory_bytes=1.0,
        energy_j=6.0, cut=False,
    )  # fmt: skip
    sent = [
        Transfer(
            request_id=0, client_id=1, direction=direction, purpose="question", fate="useful", start_at_s=0.0, end_at_s=1.0,
            message_bytes=1, wire_bytes=1, paper_bytes=0, energy_j=energy_j,
        )
        for direction, energy_j in (("down", 0.5), ("up", 2.0))
    ]  # fmt: skip
    load = Load()
    load.add(Chunk({Outcome: [ended], Compute: [computed], Transfer: sent}))
    assert load.to_dict()["phone"] == {"requests": 1, "busy_s": 2.0, "energy_j": 8.5}
