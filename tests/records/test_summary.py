import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from fedsim.records.log import RecordLog
from fedsim.records.rows import (
    FATES,
    PURPOSES,
    STATUSES,
    Evaluation,
    Group,
    Outcome,
    Reward,
    Transfer,
    Update,
)
from fedsim.records.summary import TIMING, SummaryContext, summarise, summary_lines
from fedsim.records.totals import Scores, Traffic
from fedsim.sim.network import wire
from tests.samples.run import carried_bytes, sample_log

CONTEXT = SummaryContext("fedgrpo", 0, 10.0, 1.0, "updates")


def reward(draw, *rewards, client_id=0):
    return Reward(
        request_id=draw,
        client_id=client_id,
        draw=draw,
        question_id=draw,
        evaluator="ME",
        rewards=rewards,
        at_s=0.0,
    )


def auc_of(rows, candidate_correct):
    scores = Scores(candidate_correct)
    scores.add(rows)
    return scores.by_client[rows[0].client_id].value()


def test_auc_of_a_hand_worked_pair_of_groups():
    # Group 0: right .9 .4, wrong .5: one pair won, one lost. Group 1: right .2, wrong .2: a tie. 1.5 of 3.
    rows = [reward(0, 0.9, 0.4, 0.5), reward(1, 0.2, 0.2)]
    assert auc_of(rows, {0: [True, True, False], 1: [True, False]}) == pytest.approx(0.5)


def test_auc_compares_within_groups_only():
    # Pooled, the right answer of group 1 would lose to the wrong one of group 0.
    rows = [reward(0, 0.9, 0.8), reward(1, 0.2, 0.1)]
    assert auc_of(rows, {0: [True, False], 1: [True, False]}) == 1.0


def test_auc_is_undefined_without_a_right_and_a_wrong_candidate_or_without_truth():
    assert auc_of([reward(0, 0.9, 0.8)], {0: [True, True]}) is None
    assert auc_of([reward(0, 0.9, 0.8)], {}) is None
    assert auc_of([reward(0, math.nan, 0.8)], {0: [True, False]}) is None


def test_correctness_of_another_number_of_candidates_is_a_bug_not_a_number():
    with pytest.raises(ValueError, match="zip"):
        auc_of([reward(0, 0.9, 0.8)], {0: [True]})


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=20))
def test_auc_of_one_group_is_the_mann_whitney_statistic(scored):
    right = [score for score, is_right in scored if is_right]
    wrong = [score for score, is_right in scored if not is_right]
    auc = auc_of([reward(0, *(float(s) for s, _ in scored))], {0: [r for _, r in scored]})
    if right and wrong:
        expected = mannwhitneyu(right, wrong, method="asymptotic").statistic / (len(right) * len(wrong))
        assert auc == pytest.approx(expected)
    else:
        assert auc is None


def test_totals_are_sums_over_the_records():
    log = sample_log(num_updates=6)
    summary = summarise(log, CONTEXT)
    carried = carried_bytes(log)
    assert summary["bytes"]["wire"] == {"uplink": carried["up"], "downlink": carried["down"]}
    assert list(summary["bytes"]["by_fate"]) == list(FATES)
    assert list(summary["bytes"]["by_purpose"]) == list(PURPOSES)
    assert sum(summary["bytes"]["by_fate"].values()) == sum(carried.values())
    assert sum(summary["bytes"]["by_purpose"].values()) == sum(carried.values())
    arrived = sum(row.direction == "up" and row.fate != "cut" for row in log.of(Transfer))
    assert summary["bytes"]["paper"]["uplink"] == 64 * arrived
    statuses = {key: count for key, count in summary["requests"].items() if key != "total"}
    assert list(statuses) == list(STATUSES)
    assert sum(statuses.values()) == summary["requests"]["total"] == len(log.of(Outcome))
    assert summary["updates"] == 6
    assert sum(load["requests"] for load in summary["load"].values()) == summary["requests"]["total"]
    assert summary["load"]["server"] == {
        "requests": 0, "busy_s": pytest.approx(6 * 0.4), "energy_j": pytest.approx(6 * 80),
    }  # fmt: skip


def transfer(purpose, direction="up", wire_bytes=10, fate="useful"):
    return Transfer(
        request_id=0, client_id=0, direction=direction, purpose=purpose, fate=fate, start_at_s=0.0, end_at_s=1.0,
        message_bytes=wire_bytes, wire_bytes=wire_bytes, paper_bytes=0,
    )  # fmt: skip


REVEALS = {
    kind.purpose: wire.revealed(kind)
    for kind in wire.kinds()
    if kind.__name__
    in ("Rewards", "ProbeBits", "Rows", "AdapterUp", "Answer", "SyntheticRows", "Ready", "Hurry")
}


def leaves(rows, reveals=REVEALS):
    traffic = Traffic()
    traffic.add(rows)
    return traffic.leaves(reveals)


def test_what_leaves_the_clients_is_read_from_what_goes_up():
    assert (
        leaves([transfer("question", "down"), transfer("adapter", "down"), transfer("reward", "down")]) == []
    )
    assert leaves([transfer("reward"), transfer("probe")]) == ["scalars"]
    mixed = [
        transfer("data"),
        transfer("adapter"),
        transfer("answer"),
        transfer("probe"),
        transfer("synthetic"),
    ]
    assert leaves(mixed) == ["scalars", "answers", "weights", "synthetic rows", "private rows"]
    assert leaves([transfer("setup"), transfer("control")]) == []


def test_what_was_cut_or_late_has_left_as_well_unless_no_byte_was_sent():
    assert (
        leaves([transfer("adapter", fate="cut")]) == leaves([transfer("adapter", fate="late")]) == ["weights"]
    )
    assert leaves([transfer("adapter", fate="cut", wire_bytes=0)]) == []


def test_the_summary_says_what_left_by_what_the_protocols_messages_reveal():
    assert summarise(sample_log(num_updates=1), replace(CONTEXT, purposes=REVEALS))["leaves"] == ["scalars"]


def test_what_third_parties_messages_reveal_comes_last_and_what_nobody_declared_is_called_so():
    rows = [transfer("masks"), transfer("factors"), transfer("reward"), transfer("data")]
    reveals = {**REVEALS, "masks": "which weights count", "data": "item patterns"}
    assert leaves(rows, reveals) == [
        "scalars",
        "factors (undeclared)",
        "item patterns",
        "which weights count",
    ]
    assert leaves(rows, {}) == [f"{name} (undeclared)" for name in ("data", "factors", "masks", "reward")]


def test_bytes_of_other_purposes_are_counted_after_ours_by_name():
    log = RecordLog()
    for row in (transfer("masks", wire_bytes=3), transfer("factors"), transfer("reward")):
        log.add(row)
    by_purpose = summarise(log, CONTEXT)["bytes"]["by_purpose"]
    assert list(by_purpose) == [*PURPOSES, "factors", "masks"]
    assert (by_purpose["factors"], by_purpose["masks"], sum(by_purpose.values())) == (10, 3, 23)


def update(version, num_groups, staleness_mean, clip_fraction):
    return Update(
        policy_version=version, at_s=float(version), num_groups=num_groups, num_candidates=8 * num_groups,
        staleness_mean=staleness_mean, staleness_max=math.ceil(staleness_mean), loss=0.0, entropy=1.0,
        clip_fraction=clip_fraction, grad_norm=1.0, reward_mean=0.5, zero_variance_share=0.0,
    )  # fmt: skip


def test_means_over_updates_are_weighted_by_what_they_trained_on():
    log = RecordLog()
    log.add(update(1, num_groups=3, staleness_mean=1.0, clip_fraction=0.1))
    log.add(update(2, num_groups=1, staleness_mean=3.0, clip_fraction=math.nan))
    summary = summarise(log, CONTEXT)
    assert summary["staleness"] == {"mean": pytest.approx(1.5), "max": 3}
    assert summary["learning"]["clip_fraction"] == pytest.approx(0.1)


def test_accuracy_is_of_the_first_and_the_last_test_evaluation():
    context = SummaryContext(
        "fedgrpo", 0, 10.0, 1.0, "updates", {"gcd": 0.2, "lcm": 0.1}, {"gcd": 0.4, "lcm": math.nan}
    )
    accuracy = summarise(sample_log(num_updates=10), context)["accuracy"]
    assert accuracy["greedy"] == {"initial": 0.25, "final": pytest.approx(0.38)}
    assert accuracy["pass_at_8"] == {"initial": pytest.approx(0.45), "final": pytest.approx(0.58)}
    assert accuracy["by_domain"] == {
        "gcd": {"initial": 0.2, "final": 0.4}, "lcm": {"initial": 0.1, "final": None},
    }  # fmt: skip


def test_extra_sets_of_questions_stand_beside_the_test_questions_only_where_there_are_any():
    log = sample_log(num_updates=1)
    assert "looks" not in summarise(log, CONTEXT)
    assert len(summary_lines(summarise(log, CONTEXT))) == 7
    for version, greedy in ((0, 0.25), (1, 0.75)):
        log.add(
            Evaluation(
                policy_version=version,
                at_s=float(version),
                split="reworded",
                greedy=greedy,
                pass_at_1=greedy,
                pass_at_8=math.nan,
                entropy=1.0,
                kl_to_initial=0.0,
                num_questions=4,
            )
        )
    summary = summarise(log, CONTEXT)
    assert summary["looks"] == {
        "reworded": {
            "greedy": {"initial": 0.25, "final": 0.75},
            "pass_at_1": {"initial": 0.25, "final": 0.75},
            "pass_at_8": {"initial": None, "final": None},
            "num_questions": 4,
        }
    }
    assert ("greedy accuracy", "0.250 -> 0.750 on 4 reworded questions") in summary_lines(summary)


def test_a_run_in_which_nothing_happened_has_nulls_and_zeros_and_no_nan():
    summary = summarise(RecordLog(), CONTEXT)
    json.dumps(summary, allow_nan=False)
    assert summary["accuracy"]["greedy"] == {"initial": None, "final": None}
    assert summary["staleness"] == {"mean": None, "max": None}
    assert summary["learning"]["zero_variance_share"] is None
    assert summary["requests"]["total"] == 0
    assert summary["load"] == {"server": {"requests": 0, "busy_s": 0.0, "energy_j": 0.0}}


def test_the_share_without_spread_is_of_the_groups_with_rewards_trained_or_too_stale():
    log = RecordLog()
    for draw, (fate, reward_mean, spread) in enumerate(
        [("trained", 0.5, 0.2), ("trained", 0.5, 0.0), ("too_stale", 0.5, 0.0), ("no_rewards", 0.0, 0.0)]
    ):
        log.add(
            Group(
                draw=draw, question_id=draw, domain="a", policy_version=0, dispatched_at_s=0.0, completed_at_s=1.0,
                num_experts=2, num_answered=2, reward_mean=reward_mean, reward_std=spread, zero_variance=spread == 0.0,
                correct=0.5, fate=fate,
            )
        )  # fmt: skip
    assert summarise(log, CONTEXT)["learning"]["zero_variance_share"] == pytest.approx(2 / 3)


def test_requests_that_the_protocols_end_overtook_are_told_apart_from_lost_ones():
    def outcome(status, ended_at_s):
        return Outcome(
            request_id=0, client_id=0, device_class="phone", purpose="question", subject=0, sent_at_s=1.0,
            ended_at_s=ended_at_s, status=status, phase="done", cause="",
        )  # fmt: skip

    log = RecordLog()
    lost = (outcome("late", 9.0), outcome("late", 10.5), outcome("dropped", 11.0))
    for row in (outcome("ok", 9.0), outcome("ok", 10.25), *lost):
        log.add(row)
    summary = summarise(log, CONTEXT)
    assert (summary["requests_under_way"], summary["requests"]["total"]) == (2, 5)


def test_the_summary_is_a_pure_function():
    log = sample_log(num_updates=3)
    assert summarise(log, CONTEXT) == summarise(log, CONTEXT) == summarise(sample_log(num_updates=3), CONTEXT)


def test_the_lines_for_people_tell_accuracy_bytes_requests_and_time():
    accuracy = {"initial": 0.25, "final": 0.5}
    summary = {
        "protocol": "fedgrpo",
        "accuracy": {"greedy": accuracy, "pass_at_1": accuracy, "pass_at_8": accuracy, "num_questions": 40},
        "bytes": {"wire": {"uplink": 2048, "downlink": 4096}, "paper": {"uplink": 1024}},
        "requests": {"ok": 7, "late": 2, "cut": 1, "total": 10},
        "requests_under_way": 0,
        "updates": 3,
        "virtual_s": 90.0,
        "wall_s": 2.0,
        "stopped_by": "updates",
    }
    assert summary_lines(summary) == [
        ("protocol", "fedgrpo"),
        ("greedy accuracy", "0.250 -> 0.500 on 40 test questions"),
        ("pass@1", "0.250 -> 0.500 on 40 test questions"),
        ("pass@8", "0.250 -> 0.500 on 40 test questions"),
        ("bytes on the wire", "2.0 KiB up, 4.0 KiB down (paper account: 1.0 KiB up)"),
        ("requests", "7 ok, 3 without a usable reply"),
        ("updates", "3 in 1 min 30 s of virtual time and 2.0 s of real time (stopped by: updates)"),
    ]
    assert (
        "requests",
        "7 ok, 1 without a usable reply, 2 still under way when the run stopped",
    ) in summary_lines(summary | {"requests_under_way": 2})
    billed = summary | {"fidelity": "timing", "billed": "as Qwen2.5-3B"}
    assert summary_lines(billed)[1:3] == [("fidelity", TIMING), ("billed", "as Qwen2.5-3B")]
