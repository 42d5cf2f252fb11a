"""Pooled training: what goes up and what it weighs, what is learned, and the shared training on fixed rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from fedsim.errors import FederationError
from fedsim.protocols.central_pooled import FIRST_ROW_ID, received_rows, send_rows
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.protocols.shared.state import ClientState
from fedsim.protocols.shared.supervised import row_batches
from fedsim.records.rows import Compute, Transfer
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.cost import training_work
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule
from tests.samples.fakes import (
    COUNTS,
    SPEC,
    FakeEvaluator,
    FakePolicy,
    device,
    play,
    question,
    settings,
    task_data,
)

ROWS = (
    tuple(question("a", number) for number in range(200, 205)),
    (),
    tuple(question("b", number) for number in range(300, 303)),
)


def owners(rows=ROWS):
    """Task data whose private rows these are."""
    return replace(task_data(num_clients=len(rows)), private=tuple(rows))


def sent(rows):
    """What a client with these rows sends up."""
    client = ClientState(0, FakeEvaluator(), SPEC, {}, AnswerRule(), COUNTS, rows=rows)
    return [send_rows(client, wire.RowsRequest(wire.pack_id(0))).message]


async def pooled(updates: int = 4, rows=ROWS, world=None, **keys):
    config = settings("central_pooled", **{"fit_batch_size": 4} | keys)
    crowd = [FakeEvaluator()] * len(rows)
    return await play(config, crowd, data=owners(rows), stop=StopConfig(updates=updates), **world or {})


async def test_every_row_goes_up_once_and_its_text_is_counted():
    ran = await pooled()
    replies = {told.client_id: told.reply for told in ran.told}
    assert sorted(replies) == [0, 1, 2]
    assert replies[0] == wire.Rows(
        wire.pack_id(0), ("a200", "a201", "a202", "a203", "a204"), ("200", "201", "202", "203", "204")
    )
    up = [row for row in ran.log.of(Transfer) if row.purpose == "data"]
    # Seven bytes a row: "a200" and "200".
    assert sorted(row.paper_bytes for row in up) == [0, 3 * 7, 5 * 7]
    assert {row.direction for row in up} == {"up"}
    assert sum(row.message_bytes for row in up) == sum(len(wire.encode(reply)) for reply in replies.values())
    down = [row for row in ran.log.of(Transfer) if row.direction == "down"]
    assert {row.purpose for row in down} == {"control"}
    assert all(row.paper_bytes == 0 for row in down)


async def test_sft_takes_every_row_once_per_epoch_and_steps_once_per_update():
    ran = await pooled(updates=6)
    fits = ran.policy.fits
    assert [len(rows) for rows in fits] == [4] * 6
    for epoch in range(3):
        seen = [row.text for rows in fits[2 * epoch : 2 * epoch + 2] for row in rows]
        assert sorted(seen) == sorted(row.text for rows in ROWS for row in rows)
    assert all(row.answer == row.text[1:] for rows in fits for row in rows)
    assert [row.policy_version for row in ran.updates] == [1, 2, 3, 4, 5, 6]
    # Orders differ from epoch to epoch.
    assert fits[0] + fits[1] != fits[2] + fits[3]


async def test_rows_arrive_without_their_domain_or_owner():
    ran = await pooled()
    rows = {row.question_id: row for fit in ran.policy.fits for row in fit}
    assert set(rows) == set(range(FIRST_ROW_ID, FIRST_ROW_ID + 8))
    assert {row.domain for row in rows.values()} == {"pooled"}


async def test_nothing_is_learned_before_the_rows_are_there_and_steps_take_the_servers_time():
    ran = await pooled(updates=2)
    updates = [row for row in ran.log.of(Compute) if row.kind == "update"]
    # Each client takes a second to answer, each step a quarter.
    assert [row.start_at_s - ran.started_at_s for row in updates] == pytest.approx([1.0, 1.25])
    batches = ran.policy.fits
    lengths = [[len(row.text) + len(row.answer) + 1 for row in rows] for rows in batches]
    assert [row.flop for row in updates] == [training_work(SPEC, one).flop for one in lengths]
    assert lengths[0][0] == COUNTS.question("a200") + COUNTS.candidate("200") + 1


async def test_grpo_is_rewarded_by_the_rows_answers():
    update = {"schedule": "barrier", "groups_per_update": 8}
    ran = await pooled(objective="grpo", update=update)
    assert {row.question_id for row in ran.groups} == set(range(FIRST_ROW_ID, FIRST_ROW_ID + 8))
    assert all(row.reward_mean == row.correct for row in ran.groups)
    assert len(ran.policy.steps) == 4
    assert ran.policy.fits == []


async def test_grpo_on_pooled_rows_equals_central_grpo_on_the_same_questions():
    """The same draws, candidates and advantages; only the bytes differ."""
    update = {"schedule": "barrier", "groups_per_update": 6}
    pool = tuple(question("a", number) for number in range(200, 212))
    central, gathered = FakePolicy(), FakePolicy()
    data = replace(task_data(num_clients=1), pool=pool)
    stop = StopConfig(updates=5)
    await play(
        settings("central_grpo", update=update), [FakeEvaluator()], data=data, policy=central, stop=stop
    )
    ran = await pooled(5, (pool,), {"policy": gathered}, objective="grpo", update=update)
    assert gathered.steps == central.steps
    assert ran.wire_bytes("data") > 0


async def test_rows_with_worked_solutions_arrive_whole_and_are_rewarded_by_their_answers():
    worked = tuple(
        replace(question("a", n), solution=f"so #### {n}", accepted=("many",)) for n in range(200, 204)
    )
    rule = AnswerRule("exact", r"#### (\d+)")
    rows = received_rows(sent(worked), "pooled", rule)
    assert [row.taught for row in rows] == [f"so #### {n}" for n in range(200, 204)]
    assert [row.answers for row in rows] == [(str(n),) for n in range(200, 204)]
    assert rule.right("it is #### 203", rows[3].answers)
    plain = received_rows(sent(ROWS[0]), "pooled", rule)
    assert [(row.answer, row.solution) for row in plain] == [(row.answer, "") for row in ROWS[0]]


async def test_clients_without_any_row_are_an_error_and_not_an_endless_run():
    with pytest.raises(FederationError, match="no private row"):
        await pooled(rows=((), ()))


async def test_a_failed_upload_is_repeated_and_its_rows_count_once():
    ran = await pooled(updates=2, world={"dropout": DropoutConfig(per_task=0.5), "seed": 3})
    statuses = Counter(row.status for row in ran.outcomes)
    assert statuses["dropped"] > 0
    assert statuses["ok"] == 3
    assert {row.text for fit in ran.policy.fits for row in fit} == {row.text for rows in ROWS for row in rows}


async def test_the_server_goes_on_at_the_deadline_with_those_who_answered():
    profiles = [device(1.0), device(1.0), device(50.0)]
    ran = await pooled(
        updates=2, world={"profiles": profiles}, stragglers={"policy": "deadline", "deadline": "5 s"}
    )
    assert {row.text for fit in ran.policy.fits for row in fit} == {row.text for row in ROWS[0]}
    updates = [row for row in ran.log.of(Compute) if row.kind == "update"]
    assert updates[0].start_at_s - ran.started_at_s == pytest.approx(5.0)
    assert {row.client_id: row.status for row in ran.outcomes} == {0: "ok", 1: "ok", 2: "late"}
    assert {row.fate for row in ran.log.of(Transfer) if row.client_id == 2} == {"late"}


def test_batches_are_a_function_of_the_seed_and_fewer_rows_make_one_batch():
    rows = [row for owned in ROWS for row in owned]

    def first(seed: int, size: int, count: int = 5):
        stream = row_batches(rows, size, seed)
        return [next(stream) for _ in range(count)]

    assert first(1, 3) == first(1, 3) != first(2, 3)
    assert [len(batch) for batch in first(1, 3)] == [3] * 5
    assert all(
        sorted(row.question_id for row in batch) == sorted(row.question_id for row in rows)
        for batch in first(1, 99)
    )


def test_no_row_is_nothing_to_learn_from():
    with pytest.raises(FederationError, match="no row"):
        next(row_batches([], 4, 0))
