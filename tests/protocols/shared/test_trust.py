"""What the server believes of its experts (shared/trust.py): what counts as their conduct, and which audits are sent."""

from __future__ import annotations

import asyncio

import pytest

from fedsim.errors import ClientDropped
from fedsim.protocols.shared.trust import AUDIT_DRAWS, Trust
from fedsim.sim.network import wire
from tests.samples.fakes import FakeEvaluator, FakePolicy, play, settings, stage, task_data

REPLY = wire.Rewards(wire.pack_id(0), (0.5, 0.25))


def trusting(**keys):
    config = settings("fedgrpo", num_experts=1, **keys)
    on = stage(config, [FakeEvaluator()] * 2)
    return Trust(on.federation, config, on.state), on


async def answers(seconds: float = 1.0):
    await asyncio.sleep(seconds)
    return REPLY


async def is_lost():
    raise ClientDropped("compute")


@pytest.mark.parametrize(("num_answered", "reasons"), [(3, []), (2, ["silent"])])
async def test_an_expert_is_silent_when_less_than_the_stated_share_of_its_replies_came(num_answered, reasons):
    trust, _ = trusting(trust={"silent_below": 0.3, "at_least": 10})
    for n in range(10):
        try:
            await trust.ask(0, answers(0.0) if n < num_answered else is_lost())
        except ClientDropped:
            assert n >= num_answered
    row = trust.report()[0]
    assert (row["asked"], row["answered"], row["reasons"]) == (10, num_answered, reasons)


async def test_what_the_end_of_the_run_cuts_short_is_no_experts_conduct():
    trust, on = trusting()
    await trust.ask(0, answers(2.0))
    asking = asyncio.ensure_future(trust.ask(0, answers(50.0)))
    await asyncio.sleep(1.0)
    on.monitor.end("updates")
    asking.cancel()
    await asyncio.wait([asking])
    row = trust.report()[0]
    assert (row["asked"], row["mean_wait_s"]) == (1, 2.0)


@pytest.mark.parametrize(("texts", "are_audited"), [(("{}", "no"), True), (("{}", "{}"), False)])
async def test_candidates_of_one_kind_make_no_audit(texts, are_audited):
    """Where every candidate of an exemplar is right, whoever scores them tells nothing."""
    config = settings("fedgrpo", num_experts=1, fusion="reliability", audits=4)
    policy = FakePolicy(lambda draw, _: [text.format(draw.question.answer) for text in texts])
    ran = await play(config, [FakeEvaluator("ab")] * 2, data=task_data(num_clients=2), policy=policy)
    assert any(row.subject >= AUDIT_DRAWS for row in ran.outcomes) == are_audited
