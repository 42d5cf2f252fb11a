"""Each straggler policy by hand: who is asked when, who counts, and what becomes of the others."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.errors import ClientDropped
from fedsim.federation.handlers import Hurry
from fedsim.federation.stragglers.policies import ReplyTimes, StragglerConfig, Stragglers, seated
from fedsim.sim.clock import VirtualLoop
from fedsim.sim.network import wire
from tests.samples.worlds import ROUND, SmallWorld, Timetable, small_world
from tests.samples.worlds import ask as question

POLICIES: dict[str, dict[str, Any]] = {
    "wait_all": {},
    "deadline": {"deadline": "30 s"},
    "quorum": {"quorum": 2, "grace": "1 s"},
    "over_select": {"extra": 1},
    "hedged": {"hedge_after": "4 s"},
    "replace": {},
    "adaptive": {"warm_up": 1},
}


def config(policy: str, **keys: Any) -> StragglerConfig:
    return StragglerConfig(policy=policy, **(POLICIES[policy] | keys))  # type: ignore[arg-type]


async def collect(
    world: SmallWorld,
    how: StragglerConfig,
    seconds: Sequence[float],
    chosen: Sequence[int],
    spares: Iterable[int],
) -> list[int]:
    """Client k computes for ``seconds[k]``; its reply comes 7 s after that, and it was asked at the instant it was."""
    replies = await Stragglers(how, world.loop.time).collect(
        lambda k, _: world.federation.clients[k].request(question(seconds[k])), chosen, spares
    )
    assert all(type(reply) is wire.Rewards for reply in replies.values())
    return list(replies)


def ended(world: SmallWorld) -> dict[int, tuple[float, float, str]]:
    """Sent at, ended at, and how, by client."""
    return {row.client_id: (row.sent_at_s, row.ended_at_s, row.status) for row in world.outcomes}


# ------------------------------------------------------------------------------------------------------------ quorum


@pytest.mark.parametrize(
    ("keys", "answered", "at_s"),
    [
        ({"grace": "0 s"}, [0, 1], 10.0),
        ({"grace": "1 s"}, [0, 1, 2], 11.0),  # a reply at the end of the grace is in time
        ({"grace": "90 s"}, [0, 1, 2, 3], 27.0),
        ({"grace": "90 s", "deadline": "12 s"}, [0, 1, 2], 12.0),
        ({"quorum": 3, "deadline": "9 s"}, [0], 9.0),
    ],
)
async def test_a_quorum_waits_for_enough_and_then_for_its_grace(
    keys: dict[str, Any], answered: list[int], at_s: float
) -> None:
    world = small_world([ROUND] * 4)
    assert await collect(world, config("quorum", **keys), [1.0, 3.0, 4.0, 20.0], range(4), ()) == answered
    assert world.loop.time() == at_s
    await world.settle()
    assert {client_id: status for client_id, (_, _, status) in ended(world).items()} == {
        client_id: "ok" if client_id in answered else "late" for client_id in range(4)
    }


async def test_without_grace_a_reply_at_the_very_instant_of_the_quorum_counts_too() -> None:
    world = small_world([ROUND] * 3)
    assert await collect(world, config("quorum", grace="0 s"), [1.0, 3.0, 3.0], range(3), ()) == [0, 1, 2]


async def test_a_quorum_that_can_no_longer_be_reached_ends_with_the_last_request() -> None:
    world = small_world([ROUND] * 3, availability=Timetable({0: [(0.0, 3.0)], 1: []}))
    assert await collect(world, config("quorum"), [1.0, 3.0, 4.0], range(3), ()) == [2]
    assert world.loop.time() == 11.0


# ------------------------------------------------------------------------------------------------------- over-select


async def test_over_selection_takes_the_first_m_and_charges_the_others_as_over_selected() -> None:
    world = small_world([ROUND] * 4)
    assert await collect(world, config("over_select"), [5.0, 1.0, 2.0, 0.0], (0, 1), (2, 3)) == [1, 2]
    assert world.loop.time() == 9.0
    await world.settle()
    assert ended(world) == {1: (0.0, 8.0, "ok"), 2: (0.0, 9.0, "ok"), 0: (0.0, 12.0, "over_selected")}
    assert world.bytes(client_id=0, fate="over_selected") == world.bytes(client_id=0) == [100, 50]


async def test_over_selection_asks_as_many_more_as_extra_says() -> None:
    world = small_world([ROUND] * 5)
    how = config("over_select", extra=2)
    assert await collect(world, how, [20.0, 20.0, 1.0, 2.0, 0.0], (0, 1), (2, 3, 4)) == [2, 3]
    await world.settle()
    assert {client_id: status for client_id, (_, _, status) in ended(world).items()} == {
        0: "over_selected", 1: "over_selected", 2: "ok", 3: "ok",
    }  # fmt: skip


async def test_of_two_replies_at_one_instant_only_as_many_count_as_are_missing() -> None:
    world = small_world([ROUND] * 3)
    assert len(await collect(world, config("over_select"), [2.0, 2.0, 2.0], (0, 1), (2,))) == 2
    await world.settle()
    assert sorted(status for _, _, status in ended(world).values()) == ["ok", "ok", "over_selected"]


async def test_of_replies_that_wake_the_server_together_as_many_count_as_were_chosen() -> None:
    everybody = asyncio.Event()

    async def ask(client_id: int, hurry: Hurry | None) -> int:
        await everybody.wait()
        return client_id

    loop = asyncio.get_running_loop()
    loop.call_later(1.0, everybody.set)
    replies = await Stragglers(config("over_select", extra=2), loop.time).collect(ask, (0, 1), (2, 3))
    assert list(replies) == [0, 1]


async def test_a_lost_one_does_not_count_among_the_first() -> None:
    world = small_world([ROUND] * 3, availability=Timetable({1: [(0.0, 3.0)]}))
    assert await collect(world, config("over_select"), [5.0, 1.0, 2.0], (0, 1), (2,)) == [0, 2]
    assert world.loop.time() == 12.0


async def test_over_selection_can_tell_the_others_to_stop() -> None:
    world = small_world([ROUND] * 3)
    how = config("over_select", on_deadline="cancel")
    assert await collect(world, how, [20.0, 1.0, 2.0], (0, 1), (2,)) == [1, 2]
    await world.settle()
    assert ended(world)[0][2] == "cancelled"
    assert world.bytes(purpose="cancel", fate="useful") == [13]


# ------------------------------------------------------------------------------------------------------------ hedged


async def test_a_silent_client_gets_a_spare_beside_it_and_the_first_of_the_pair_counts() -> None:
    world = small_world([ROUND] * 3)
    assert await collect(world, config("hedged", hedge_after="9 s"), [20.0, 1.0, 1.0], (0, 1), (2,)) == [1, 2]
    assert world.loop.time() == 17.0
    await world.settle()
    assert ended(world) == {1: (0.0, 8.0, "ok"), 2: (9.0, 17.0, "ok"), 0: (0.0, 27.0, "over_selected")}


async def test_the_first_one_asked_may_still_win_its_pair() -> None:
    world = small_world([ROUND] * 2)
    assert await collect(world, config("hedged", hedge_after="9 s"), [3.0, 1.0], (0,), (1,)) == [0]
    assert world.loop.time() == 10.0
    await world.settle()
    assert ended(world)[1] == (9.0, 17.0, "over_selected")


async def test_of_a_pair_that_answers_at_one_instant_one_reply_counts() -> None:
    world = small_world([ROUND] * 2)
    assert len(await collect(world, config("hedged", hedge_after="9 s"), [10.0, 1.0], (0,), (1,))) == 1
    await world.settle()
    assert {ended_at_s for _, ended_at_s, _ in ended(world).values()} == {17.0}


async def test_a_reply_at_the_hedges_own_instant_needs_no_spare() -> None:
    world = small_world([ROUND] * 2)
    assert await collect(world, config("hedged", hedge_after="9 s"), [2.0, 1.0], (0,), (1,)) == [0]
    assert list(ended(world)) == [0]


async def test_a_lost_client_gets_its_spare_at_once() -> None:
    world = small_world([ROUND] * 2, availability=Timetable({0: [(0.0, 3.0)]}))
    assert await collect(world, config("hedged", hedge_after="9 s"), [2.0, 1.0], (0,), (1,)) == [1]
    assert ended(world) == {0: (0.0, 3.0, "dropped"), 1: (3.0, 11.0, "ok")}


async def test_when_both_of_a_pair_are_lost_or_nobody_is_spare_the_others_go_on() -> None:
    away = Timetable({0: [(0.0, 3.0)], 2: [(0.0, 5.0)], 3: []})
    world = small_world([ROUND] * 4, availability=away)
    assert await collect(
        world, config("hedged", hedge_after="20 s"), [2.0, 9.0, 2.0, 1.0], (0, 1, 3), (2,)
    ) == [1]
    assert world.loop.time() == 16.0
    await world.settle()


async def test_the_deadline_ends_both_of_a_pair() -> None:
    world = small_world([ROUND] * 2)
    how = config("hedged", hedge_after="4 s", deadline="10 s")
    assert await collect(world, how, [20.0, 20.0], (0,), (1,)) == []
    assert world.loop.time() == 10.0
    await world.settle()
    assert {status for _, _, status in ended(world).values()} == {"late"}


# ----------------------------------------------------------------------------------------------------------- replace


@pytest.mark.parametrize(("replacements", "answered", "at_s"), [(1, [1], 8.0), (2, [1, 3], 12.0)])
async def test_a_lost_one_is_replaced_by_the_next_in_line_at_once(
    replacements: int, answered: list[int], at_s: float
) -> None:
    """Client 0 leaves at 3 s, its replacement 2 at 4 s, whose replacement 3 answers 8 s later."""
    world = small_world([ROUND] * 4, availability=Timetable({0: [(0.0, 3.0)], 2: [(0.0, 4.0)]}))
    how = config("replace", replacements=replacements)
    assert await collect(world, how, [2.0, 1.0, 1.0, 1.0], (0, 1), (2, 3)) == answered
    assert world.loop.time() == at_s
    assert {client_id: sent for client_id, (sent, _, _) in ended(world).items()} == {
        0: 0.0,
        1: 0.0,
        2: 3.0,
    } | ({3: 4.0} if replacements == 2 else {})


async def test_a_client_that_is_away_when_asked_is_replaced_at_that_instant() -> None:
    world = small_world([ROUND] * 3, availability=Timetable({0: [], 1: []}))
    assert await collect(world, config("replace", replacements=2), [1.0, 1.0, 1.0], (0,), (1, 2)) == [2]
    assert world.loop.time() == 8.0


async def test_each_loss_is_replaced_once() -> None:
    world = small_world([ROUND] * 5, availability=Timetable({0: [(0.0, 3.0)], 1: [(0.0, 4.0)]}))
    how = config("replace", replacements=3)
    assert await collect(world, how, [9.0, 9.0, 1.0, 1.0, 1.0], (0, 1), (2, 3, 4)) == [2, 3]
    assert {client_id: sent for client_id, (sent, _, _) in ended(world).items()} == {
        0: 0.0, 1: 0.0, 2: 3.0, 3: 4.0,
    }  # fmt: skip


async def test_two_lost_at_one_instant_are_both_replaced() -> None:
    world = small_world([ROUND] * 4, availability=Timetable({0: [(0.0, 3.0)], 1: [(0.0, 3.0)]}))
    how = config("replace", replacements=2)
    assert await collect(world, how, [2.0, 2.0, 1.0, 1.0], (0, 1), (2, 3)) == [2, 3]
    assert world.loop.time() == 11.0


async def test_spares_are_drawn_only_when_they_are_needed() -> None:
    drawn: list[int] = []

    def spares() -> Iterator[int]:
        drawn.append(1)
        yield 1

    patient: dict[str, dict[str, Any]] = {
        "replace": {}, "hedged": {"hedge_after": "90 s"}, "wait_all": {}, "quorum": {"quorum": 1},
    }  # fmt: skip
    for policy, keys in patient.items():
        world = small_world([ROUND] * 2)
        how = config(policy, **keys)
        assert await collect(world, how, [2.0, 2.0], (0,), spares()) == [0]
    assert drawn == []


# ---------------------------------------------------------------------------------------------------------- adaptive


def sleeper(times: dict[int, float]) -> Any:
    async def ask(client_id: int, hurry: Hurry | None) -> int:
        await asyncio.sleep(times[client_id])
        return client_id

    return ask


def learned(times: Iterable[float], **keys: Any) -> float | None:
    stragglers = Stragglers(config("adaptive", **keys), lambda: 0.0)
    for seconds in times:
        stragglers._times.add(seconds)
    return stragglers.deadline_s()


async def test_an_adaptive_deadline_is_a_multiple_of_a_quantile_of_the_reply_times() -> None:
    how = config("adaptive", warm_up=10, quantile=0.9, factor=2.0)
    stragglers = Stragglers(how, asyncio.get_running_loop().time)
    ten = {k: float(k + 1) for k in range(10)}
    assert stragglers.deadline_s() is None
    assert list(await stragglers.collect(sleeper(ten), range(10))) == list(range(10))
    assert stragglers.deadline_s() == 18.0
    begun_s = asyncio.get_running_loop().time()
    assert list(await stragglers.collect(sleeper({0: 17.5, 1: 18.5}), (0, 1))) == [0]
    assert asyncio.get_running_loop().time() == begun_s + 18.0


def test_whoever_was_given_up_counts_as_endless_so_that_the_deadline_does_not_creep_down() -> None:
    nine = [1.0] * 8 + [2.0]
    assert learned([*nine, math.inf], quantile=0.9, factor=3.0) == 6.0
    assert learned([*nine, math.inf, math.inf], quantile=0.9) is None
    assert learned([*nine, math.inf, math.inf], quantile=0.9, deadline="40 s") == 40.0
    assert learned([*nine, math.inf], quantile=0.9, factor=3.0, deadline="5 s") == 5.0


async def test_whoever_a_learned_deadline_cuts_off_is_remembered_as_endless() -> None:
    """Replies take 1 s, so the deadline is 2 s; once three of eight were cut off at it, the upper quartile is endless."""
    stragglers = Stragglers(
        config("adaptive", warm_up=4, quantile=0.75, factor=2.0), asyncio.get_running_loop().time
    )
    await stragglers.collect(sleeper(dict.fromkeys(range(4), 1.0)), range(4))
    assert stragglers.deadline_s() == 2.0
    assert list(await stragglers.collect(sleeper({0: 1.0, 1: 3.0}), (0, 1))) == [0]
    await asyncio.sleep(0)  # client 1 is told to stop, and does so
    assert stragglers.deadline_s() == 2.0
    assert await stragglers.collect(sleeper({0: 3.0, 1: 3.0}), (0, 1)) == {}
    await asyncio.sleep(0)
    assert stragglers.deadline_s() is None


def test_before_the_warm_up_only_the_stated_deadline_holds() -> None:
    assert learned([1.0] * 4, warm_up=5) is None
    assert learned([1.0] * 4, warm_up=5, deadline="9 s") == 9.0
    assert learned([1.0] * 5, warm_up=5, factor=2.0) == 2.0


async def test_lost_requests_teach_nothing_about_reply_times() -> None:
    async def ask(client_id: int, hurry: Hurry | None) -> int:
        raise ClientDropped("compute")

    stragglers = Stragglers(config("adaptive", warm_up=1), asyncio.get_running_loop().time)
    assert await stragglers.collect(ask, (0, 1)) == {}
    assert stragglers.deadline_s() is None


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 20), st.floats(0.01, 0.99))
def test_reply_times_give_the_quantile_of_the_latest(times: list[float], kept: int, share: float) -> None:
    known = ReplyTimes(kept)
    for seconds in times:
        known.add(seconds)
    latest = times[-kept:]
    assert len(known) == len(latest)
    quantile = known.quantile(share)
    assert quantile in latest
    assert sum(one <= quantile for one in latest) >= share * len(latest) - 1e-9
    assert sum(one < quantile for one in latest) < share * len(latest) + 1e-9


def test_no_quantile_without_a_reply_time() -> None:
    with pytest.raises(ValueError, match="no reply time"):
        ReplyTimes(3).quantile(0.5)


# ----------------------------------------------------------------------------------------------------------- partial


def hurried(seconds: dict[int, float], after_s: dict[int, float]) -> Any:
    """Client k is done after so many seconds, or hands in what it has so long after it was told to hurry."""

    async def ask(client_id: int, hurry: Hurry | None) -> str:
        assert hurry is not None
        told = asyncio.Event()
        hurry.listen(told.set)
        try:
            await asyncio.wait_for(told.wait(), seconds[client_id])
        except TimeoutError:
            return "whole"
        await asyncio.sleep(after_s[client_id])
        return "part"

    return ask


async def test_at_the_deadline_everybody_is_hurried_and_waited_for_a_little() -> None:
    how = config("deadline", deadline="10 s", partial=True, partial_grace="2 s")
    asking = hurried({0: 5.0, 1: 60.0, 2: 60.0, 3: 60.0}, {1: 1.0, 2: 1.75, 3: 2.5})
    replies = await Stragglers(how, asyncio.get_running_loop().time).collect(asking, range(4))
    assert replies == {0: "whole", 1: "part", 2: "part"}
    assert asyncio.get_running_loop().time() == 12.0


async def test_when_all_parts_have_come_nobody_waits_for_the_grace_to_end() -> None:
    how = config("deadline", deadline="10 s", partial=True, partial_grace="60 s")
    replies = await Stragglers(how, asyncio.get_running_loop().time).collect(
        hurried({0: 60.0}, {0: 1.0}), (0,)
    )
    assert (replies, asyncio.get_running_loop().time()) == ({0: "part"}, 11.0)


async def test_nobody_is_hurried_when_everything_came_in_time_or_nothing_asks_for_parts() -> None:
    hurries: list[Hurry | None] = []

    async def ask(client_id: int, hurry: Hurry | None) -> int:
        hurries.append(hurry)
        if hurry is not None:
            hurry.listen(lambda: pytest.fail("nobody was late"))
        return client_id

    in_parts = config("deadline", deadline="10 s", partial=True, partial_grace="2 s")
    for how in (in_parts, config("deadline")):
        assert await Stragglers(how, asyncio.get_running_loop().time).collect(ask, (0,)) == {0: 0}
    assert isinstance(hurries[0], Hurry) and hurries[1] is None


# ---------------------------------------------------------------------------------------------------- every policy


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_run_that_ends_gives_up_what_is_under_way_and_reports_nothing_unretrieved(
    policy: str,
) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    reports: list[object] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    world = small_world([ROUND] * 4, availability=Timetable({1: []}))
    how = config(policy, on_deadline="cancel")
    waiting = asyncio.ensure_future(collect(world, how, [2.0, 2.0, 30.0, 40.0], (0, 1, 2), (3,)))
    await asyncio.sleep(9.5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await world.settle()
    del waiting
    gc.collect()
    await asyncio.sleep(0)
    assert reports == []
    status = {client_id: how for client_id, (_, _, how) in ended(world).items()}
    assert (status[0], status[1], status[2]) == ("ok", "offline", "late")
    assert world.bytes(purpose="cancel") == []


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_bug_in_a_request_propagates_under_every_policy(policy: str) -> None:
    async def ask(client_id: int, hurry: Hurry | None) -> int:
        if client_id == 1:
            raise ZeroDivisionError
        await asyncio.sleep(2.0)
        return client_id

    with pytest.raises(ZeroDivisionError):
        await Stragglers(config(policy), asyncio.get_running_loop().time).collect(ask, (0, 1, 2), (3,))


@pytest.mark.asyncio(loop_factories=["virtual", "ordinary"])
@pytest.mark.parametrize("policy", POLICIES)
async def test_policies_are_plain_asyncio_and_run_on_a_real_clock_too(policy: str) -> None:
    async def ask(client_id: int, hurry: Hurry | None) -> int:
        await asyncio.sleep(0.001)
        if client_id == 1:
            raise ClientDropped("up")
        return client_id

    now_s = asyncio.get_running_loop().time
    replies = await Stragglers(config(policy), now_s).collect(ask, (0, 1, 2), (3,))
    assert list(replies) == ([0, 2, 3] if policy in ("over_select", "hedged", "replace") else [0, 2])


@pytest.mark.parametrize("policy", POLICIES)
async def test_nobody_chosen_is_nobody_asked_not_even_a_spare(policy: str) -> None:
    async def ask(client_id: int, hurry: Hurry | None) -> int:
        pytest.fail("nobody was to be asked")

    assert await Stragglers(config(policy), asyncio.get_running_loop().time).collect(ask, (), (0, 1)) == {}


@given(st.permutations(range(8)), st.integers(1, 4), st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)))
def test_everybody_who_answered_has_one_seat_and_chosen_ones_their_own(
    order: list[int], wanted: int, came: set[int], more: set[int]
) -> None:
    chosen, spares = order[:wanted], order[wanted:]
    answered = ([k for k in chosen if k in came] + [k for k in spares if k in more])[:wanted]
    seats = seated(chosen, answered)
    assert len(set(seats)) == len(seats) == wanted
    assert set(answered) <= set(seats)
    assert all(seats[place] == k for place, k in enumerate(chosen) if k in answered)
    assert set(seats) <= set(chosen) | set(answered)
