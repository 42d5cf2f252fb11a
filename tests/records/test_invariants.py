import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.errors import InvariantViolation
from fedsim.experiment.build import limits_of
from fedsim.records.invariants import Limits, check
from fedsim.records.log import RecordLog
from fedsim.records.rows import Compute, Evaluation, Fault, Group, Outcome, Presence, Reward, Transfer, Update
from tests.samples.fakes import settings
from tests.samples.run import carried_bytes, sample_log


def outcome(request_id=0, **changes):
    entry = {
        "request_id": request_id, "client_id": 1, "device_class": "phone", "purpose": "question",
        "subject": 0, "sent_at_s": 0.0, "ended_at_s": 5.0, "status": "ok", "phase": "done", "cause": "",
        "question_id": request_id,
    } | changes  # fmt: skip
    return Outcome(**entry)


def offline(request_id=0, **changes):
    """An outcome that leaves no bytes to account for."""
    return outcome(request_id, **{"status": "offline", "phase": "down"} | changes)


def group(draw, dispatched_at_s, completed_at_s, **changes):
    entry = {
        "draw": draw, "question_id": draw, "domain": "a", "policy_version": 0, "dispatched_at_s": dispatched_at_s,
        "completed_at_s": completed_at_s, "num_experts": 2, "num_answered": 2, "reward_mean": 0.5, "reward_std": 0.5,
        "zero_variance": False, "correct": 0.5, "fate": "trained",
    } | changes  # fmt: skip
    return Group(**entry)


def transfer(request_id=0, **changes):
    entry = {
        "request_id": request_id, "client_id": 1, "direction": "down", "purpose": "question",
        "fate": "useful", "start_at_s": 0.0, "end_at_s": 1.0, "message_bytes": 60, "wire_bytes": 100, "paper_bytes": 0,
    } | changes  # fmt: skip
    return Transfer(**entry)


def compute(start_at_s, end_at_s, **changes):
    entry = {
        "request_id": 0, "client_id": 1, "kind": "question", "start_at_s": start_at_s, "end_at_s": end_at_s,
        "flop": 1.0, "memory_bytes": 1.0, "energy_j": 1.0, "cut": False,
    } | changes  # fmt: skip
    return Compute(**entry)


def update(version=1, **changes):
    entry = {
        "policy_version": version, "at_s": 1.0, "num_groups": 1, "num_candidates": 8, "staleness_mean": 0.5,
        "staleness_max": 1, "loss": 0.0, "entropy": 1.0, "clip_fraction": 0.0, "grad_norm": 1.0,
        "reward_mean": 0.5, "zero_variance_share": 0.0,
    } | changes  # fmt: skip
    return Update(**entry)


def look(at_s):
    return Evaluation(
        policy_version=0, at_s=at_s, split="validation", greedy=0.5, pass_at_1=0.5, pass_at_8=0.5, entropy=1.0,
        kl_to_initial=0.0, num_questions=9,
    )  # fmt: skip


def log_of(*rows):
    log = RecordLog()
    for row in rows:
        log.add(row)
    return log


def test_a_whole_run_and_an_empty_one_pass():
    log = sample_log(num_updates=5)
    check(log, carried_bytes(log))
    check(RecordLog(), {})


def test_two_outcomes_of_one_request_are_refused_and_named():
    with pytest.raises(InvariantViolation, match=r"2 requests with more than one outcome.*request_id=7"):
        check(log_of(outcome(7), outcome(7)), {})
    with pytest.raises(InvariantViolation, match="2 requests with more than one outcome"):
        check(log_of(offline(7), offline(7, question_id=8)), {})  # and of other draws


def test_two_requests_of_the_same_draws_are_refused_and_told_apart_by_question_attempt_or_round():
    check(log_of(offline(0), offline(1)), {})
    check(
        log_of(offline(0), offline(1, question_id=0, attempt=1), offline(2, question_id=0, client_id=2)), {}
    )
    check(log_of(offline(0, question_id=-1, subject=3), offline(1, question_id=-1, subject=4)), {})
    with pytest.raises(InvariantViolation, match=r"2 requests that share their random draws.*request_id=1"):
        check(log_of(offline(0), offline(1, question_id=0, subject=4)), {})


def test_a_transfer_a_computation_and_a_reward_need_a_known_request():
    with pytest.raises(InvariantViolation, match="1 transfers of a request that has no outcome"):
        check(log_of(offline(0), transfer(1)), {"down": 100})
    with pytest.raises(InvariantViolation, match="1 computations of a request that has no outcome"):
        check(log_of(offline(0), compute(0.0, 1.0, request_id=1)), {})
    reward = Reward(request_id=1, client_id=1, draw=0, question_id=0, evaluator="E", rewards=(0.5,), at_s=1.0)
    with pytest.raises(InvariantViolation, match="1 rewards of a request that has no outcome"):
        check(log_of(offline(0), reward), {})


def test_the_servers_own_work_needs_no_request_and_may_overlap():
    check(log_of(*(compute(0.0, 1.0, request_id=3, client_id=-1) for _ in range(2))), {})


def whole(*others):
    """A request that went well, and other rows; the bytes of all."""
    log = log_of(transfer(0), transfer(0, direction="up"), outcome(0), *others)
    return log, carried_bytes(log)


AGAIN = {"fate": "retransmitted"}


@pytest.mark.parametrize(
    "row",
    [
        transfer(start_at_s=2.0, end_at_s=1.0, **AGAIN),
        transfer(end_at_s=math.nan, **AGAIN),
        transfer(start_at_s=-1.0, **AGAIN),
        compute(2.0, 1.0),
        Presence(client_id=1, device_class="phone", start_at_s=2.0, end_at_s=1.0),
        Fault(kind="hang", client_id=1, request_id=-1, start_at_s=2.0, end_at_s=1.0),
        group(0, 2.0, 1.0),
        offline(1, sent_at_s=6.0, ended_at_s=5.0),
    ],
)
def test_a_row_that_ends_before_it_starts_or_at_no_instant_is_refused(row):
    check(*whole())
    with pytest.raises(InvariantViolation, match="1 rows that end before they start"):
        check(*whole(row))


def test_outcomes_must_be_in_the_order_of_time():
    check(log_of(offline(0, ended_at_s=5.0), offline(1, ended_at_s=5.0)), {})
    with pytest.raises(InvariantViolation, match="outcomes out of the order of time"):
        check(log_of(offline(0, ended_at_s=5.0), offline(1, ended_at_s=4.0)), {})


def test_steps_and_looks_must_be_in_the_order_of_time():
    check(log_of(look(0.0), update(1, at_s=2.0), look(2.0), update(2, at_s=2.0)), {})
    with pytest.raises(InvariantViolation, match="2 updates out of the order of time"):
        check(log_of(update(1, at_s=2.0), update(2, at_s=1.0)), {})
    with pytest.raises(InvariantViolation, match="2 evaluations out of the order of time"):
        check(log_of(look(2.0), look(1.0)), {})


def test_policy_versions_rise_and_staleness_is_possible():
    check(log_of(update(1), update(2)), {})
    with pytest.raises(InvariantViolation, match="policy version does not rise"):
        check(log_of(update(2), update(2)), {})
    for changes in ({"staleness_mean": -0.5}, {"staleness_mean": 2.0}, {"staleness_max": -1}):
        with pytest.raises(InvariantViolation, match="impossible staleness"):
            check(log_of(update(1, **changes)), {})


def test_one_byte_too_many_is_found_when_the_links_count_whole_bytes():
    log = log_of(transfer(0), transfer(0, direction="up", wire_bytes=40), outcome(0))
    check(log, {"down": 100, "up": 40})
    for wrong in ({"down": 101, "up": 40}, {"down": 100, "up": 39}, {"down": 100}):
        with pytest.raises(InvariantViolation, match="the links carried"):
            check(log, wrong)


def test_one_byte_of_ten_gigabytes_is_missed_and_only_a_cut_flow_may_have_sent_a_part_of_one():
    whole = log_of(
        transfer(0, wire_bytes=10_000_000_000), transfer(0, direction="up", wire_bytes=0), outcome(0)
    )
    check(whole, {"down": 1e10})
    for wrong in (1e10 + 1.0, 1e10 - 0.5):
        with pytest.raises(InvariantViolation, match="allowed 0"):
            check(whole, {"down": wrong})
    cut = log_of(transfer(0, wire_bytes=50, fate="cut"), outcome(0, status="cut", phase="down"))
    check(cut, {"down": 50.49})
    with pytest.raises(InvariantViolation):
        check(cut, {"down": 51.6})


def test_a_negative_amount_of_bytes_is_refused():
    for account in ("wire_bytes", "paper_bytes"):
        with pytest.raises(InvariantViolation, match="1 transfers of a negative number of bytes"):
            check(*whole(transfer(0, **AGAIN, **{account: -1})))


def test_computations_of_one_device_may_touch_but_not_overlap():
    check(log_of(compute(0.0, 1.0), compute(1.0, 2.0), offline(0)), {})
    check(log_of(compute(0.0, 1.0), compute(0.5, 2.0, client_id=2), offline(0)), {})
    with pytest.raises(InvariantViolation, match="computations of one device that overlap"):
        check(log_of(compute(0.0, 1.0), compute(0.5, 2.0), offline(0)), {})


@pytest.mark.parametrize("at_s", [0.25, 1.0, 1000.0])
def test_computations_may_overlap_by_rounding_and_by_no_more(at_s):
    """A billionth of the instant, or of a second: times are floats, and sums of them round."""
    size_s = max(1.0, at_s)
    check(log_of(compute(0.0, at_s), compute(at_s - 0.9e-9 * size_s, at_s + 1.0), offline(0)), {})
    with pytest.raises(InvariantViolation, match="computations of one device that overlap"):
        check(log_of(compute(0.0, at_s), compute(at_s - 1.1e-9 * size_s, at_s + 1.0), offline(0)), {})


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10)), min_size=2, max_size=12))
def test_overlap_is_found_exactly_when_two_intervals_share_time(pairs):
    intervals = [(float(start), float(start + length)) for start, length in pairs]
    shares = any(
        max(a[0], b[0]) < min(a[1], b[1]) for i, a in enumerate(intervals) for b in intervals[i + 1 :]
    )
    log = log_of(*(compute(start, end) for start, end in intervals), offline(0))
    if shares:
        with pytest.raises(InvariantViolation):
            check(log, {})
    else:
        check(log, {})


def test_many_offending_rows_are_counted_and_only_the_first_shown():
    with pytest.raises(InvariantViolation, match=r"^9 transfers .*; and 4 more$"):
        check(log_of(*(transfer(i) for i in range(9))), {"down": 900})


def test_bytes_that_do_not_add_up_are_shown_as_received_cut_and_lost():
    rows = (
        transfer(0, direction="up"),
        transfer(0, direction="up", fate="retransmitted", wire_bytes=30),
        transfer(0, direction="up", fate="cut", wire_bytes=7),
        transfer(0),
        outcome(0),
    )
    check(log_of(*rows), {"up": 137, "down": 100})
    with pytest.raises(InvariantViolation, match=r"137 \(100 received, 7 cut, 30 lost and sent again\)"):
        check(log_of(*rows), {"up": 137 + 100, "down": 100})


@pytest.mark.parametrize(
    ("status", "fate", "fits"),
    [
        ("ok", "useful", True),
        ("ok", "late", False),
        ("late", "late", True),
        ("late", "useful", False),
        ("over_selected", "over_selected", True),
        ("failed", "rejected", True),
        ("failed", "useful", False),
    ],
)
def test_both_messages_of_a_request_bear_its_fate(status, fate, fits):
    log = log_of(transfer(0, fate=fate), transfer(0, fate=fate, direction="up"), outcome(0, status=status))
    if fits:
        check(log, {"down": 100, "up": 100})
    else:
        with pytest.raises(InvariantViolation, match=r"fate is not their request's.*Transfer.*Outcome"):
            check(log, {"down": 100, "up": 100})


def test_messages_beside_a_request_have_fates_of_their_own():
    beside = [transfer(0, purpose=purpose, fate="late") for purpose in ("cancel", "control")]
    copy = transfer(0, direction="up", fate="duplicate")
    log = log_of(transfer(0), transfer(0, direction="up"), *beside, copy, outcome(0))
    check(log, {"down": 300, "up": 200})
    with pytest.raises(InvariantViolation, match="fate is not their request's"):
        check(
            log_of(transfer(0, purpose="control", fate="late"), offline(0, purpose="control")), {"down": 100}
        )


@pytest.mark.parametrize("purposes", [("factors", "masks"), ("control", "factors"), ("factors", "factors")])
def test_requests_of_purposes_that_nobody_knows_are_checked_like_all_others(purposes):
    def request(purpose, up="useful"):
        return [
            transfer(0, purpose=purpose), transfer(0, purpose="answer", direction="up", fate=up), outcome(0, purpose=purpose),
        ]  # fmt: skip

    whole = [request(purpose) for purpose in purposes]
    rows = [msgspec.structs.replace(row, request_id=n) for n, some in enumerate(whole) for row in some]
    rows = [
        msgspec.structs.replace(row, question_id=row.request_id) if type(row) is Outcome else row
        for row in rows
    ]
    check(log_of(*rows), {"down": 200, "up": 200})
    for purpose in purposes:
        with pytest.raises(InvariantViolation, match="fate is not their request's"):
            check(log_of(*request(purpose, "late")), {"down": 100, "up": 100})
        with pytest.raises(InvariantViolation, match="1 requests whose reply came although"):
            check(log_of(*request(purpose)[::2]), {"down": 100})


@pytest.mark.parametrize("missing", ["down", "up"])
def test_a_reply_cannot_come_when_a_message_was_not_sent_whole(missing):
    rows = [transfer(0, direction=one, fate="cut" if one == missing else "useful") for one in ("down", "up")]
    with pytest.raises(InvariantViolation, match=r"1 requests whose reply came although"):
        check(log_of(*rows, outcome(0)), {"down": 100, "up": 100})


def test_no_more_groups_are_under_way_than_allowed():
    log = log_of(group(0, 0.0, 4.0), group(1, 2.0, 6.0), group(2, 4.0, 5.0), group(3, 4.5, 4.5))
    check(log, {}, limits=Limits(groups=2))  # one begins when another ends; one took no time
    with pytest.raises(InvariantViolation, match=r"^2 groups under way at once, 1 allowed: Group.draw=0"):
        check(log, {}, limits=Limits(groups=1))


def test_no_group_has_more_experts_than_the_cohort_nor_more_answers_than_experts():
    check(log_of(group(0, 0.0, 1.0)), {}, limits=Limits(cohort=2))
    with pytest.raises(InvariantViolation, match="groups of more than the 1 experts allowed"):
        check(log_of(group(0, 0.0, 1.0)), {}, limits=Limits(cohort=1))
    with pytest.raises(InvariantViolation, match="more experts answered than were wanted"):
        check(log_of(group(0, 0.0, 1.0, num_answered=3)), {})


def test_no_more_clients_are_asked_the_same_than_allowed():
    asked = [offline(n, client_id=n, subject=5, question_id=7) for n in range(3)]
    again = offline(3, client_id=0, subject=5, question_id=7, attempt=1)
    probes = [offline(4 + n, client_id=n, subject=5, question_id=7, purpose="probe") for n in range(5)]
    check(log_of(*asked, again, *probes), {}, limits=Limits(asked=3))
    with pytest.raises(InvariantViolation, match=r"^3 clients asked the same, 2 allowed: Outcome"):
        check(log_of(*asked, again, *probes), {}, limits=Limits(asked=2))


@pytest.mark.parametrize(
    ("keys", "limits"),
    [
        ({}, Limits(groups=192, cohort=2, asked=2)),
        ({"update": {"schedule": "barrier", "groups_per_update": 8}}, Limits(groups=8, cohort=2, asked=2)),
        ({"experts": "all"}, Limits(groups=192)),
        ({"stragglers": {"policy": "over_select", "extra": 3}}, Limits(groups=192, cohort=2, asked=5)),
        ({"stragglers": {"policy": "hedged", "hedge_after": "3 s"}}, Limits(groups=192, cohort=2, asked=4)),
        ({"stragglers": {"policy": "replace", "replacements": 2}}, Limits(groups=192, cohort=2, asked=4)),
    ],
)
def test_what_is_allowed_at_once_follows_from_a_protocols_settings(keys, limits):
    assert limits_of(settings("fedgrpo", **keys)) == limits
