"""What a request will take, foreseen: against the records of runs, for every protocol; and deadlines that nobody can meet."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsim import protocols
from fedsim.errors import ScenarioError
from fedsim.experiment import run as experiment
from fedsim.experiment.forecast.estimate import estimate
from fedsim.experiment.prepared import Prepared
from fedsim.experiment.request_times import RequestTimes, check_deadline, request_times
from fedsim.scenario.read import scenario_from
from fedsim.scenario.schema import Scenario

ROOT = Path(__file__).resolve().parents[3]
CALM = {"compute_jitter": 0.0, "rtt_jitter": 0.0, "up_jitter": 0.0, "down_jitter": 0.0}
ONE_AT_A_TIME = {"schedule": "group", "groups_per_update": 4, "in_flight": 1, "max_staleness": 9}


def scenario(**keys: Any) -> Scenario:
    """One question at a time to one expert among a phone and a slow-linked laptop; nothing varies unless asked for."""
    data: dict[str, Any] = {
        "name": "foreseen",
        "fidelity": "timing",
        "stop": {"updates": 4},
        "protocol": {"name": "fedgrpo", "num_experts": 1, "experts": "random", "update": ONE_AT_A_TIME},
        "tasks": {"domains": ["gcd"], "sizes": {"private": 60, "auxiliary": 20, "pool": 60}},
        "clients": {
            "phone": {"count": 2, **CALM},
            "laptop": {"count": 1, "up": "8 kbit/s", "down": "1 Mbit/s", "rtt": "200 ms", **CALM},
        },
    }
    return scenario_from({**data, **keys})


def foreseen(settings: Scenario) -> RequestTimes:
    found = request_times(Prepared(settings))
    assert found is not None
    return found


def outcomes(settings: Scenario, folder: Path) -> dict[int, list[float]]:
    """Seconds of the questions answered in a run, in the order of asking, by client."""
    run = experiment.run(settings, out=folder)
    rows = run.outcomes.filter((run.outcomes["purpose"] == "question") & (run.outcomes["status"] == "ok"))
    rows = rows.sort("sent_at_s")
    found: dict[int, list[float]] = {}
    for client_id, sent_at_s, ended_at_s in rows.select("client_id", "sent_at_s", "ended_at_s").iter_rows():
        found.setdefault(client_id, []).append(ended_at_s - sent_at_s)
    return found


@pytest.mark.parametrize("connection", ["keep_alive", "per_request"])
def test_the_nominal_times_are_those_of_a_run_in_which_nothing_varies_and_nobody_waits(
    tmp_path: Path, connection: str
) -> None:
    settings = scenario(network={"connection": connection})
    times, happened = foreseen(settings), outcomes(settings, tmp_path / "run")
    assert sorted(happened) == [0, 1, 2]
    for client_id, seconds in happened.items():
        # Questions and candidates differ by some bytes: 8 ms a byte on the laptop's uplink alone, whose replies are alike.
        assert times.nominal_s[client_id] == pytest.approx(float(np.mean(seconds)), rel=2e-3)
    assert times.drawn_s == pytest.approx(
        np.repeat(times.nominal_s[:, None], times.drawn_s.shape[1], axis=1), rel=5e-3
    )


def test_phases_are_worked_by_hand_from_the_bytes_and_the_profile() -> None:
    network = {"server_link": "unlimited", "transport": "ideal", "extra_rtt": "100 ms"}
    times = foreseen(scenario(network=network))
    # The laptop: 8 kbit/s up, 1 Mbit/s down, half of 200 + 100 ms each way.
    assert times.up_s[2] == pytest.approx(times.up_bytes / 1000 + 0.15)
    assert times.down_s[2] == pytest.approx(times.down_bytes / 125_000 + 0.15)
    assert times.compute_s[2] > 0.010  # the launch of a computation on a laptop


def test_the_slower_of_access_and_server_link_counts() -> None:
    network = {"server_link": {"up": "4 kbit/s", "down": "unlimited"}, "transport": "ideal"}
    times = foreseen(scenario(network=network))
    assert times.up_s[2] == pytest.approx(times.up_bytes / 500 + 0.1)


def test_an_edge_on_the_way_counts_by_its_rate_and_its_round_trip() -> None:
    edges = {"mast": {"up": "2 kbit/s", "down": "unlimited", "rtt": "1 s", "clients": [2]}}
    network = {"server_link": "unlimited", "transport": "ideal", "edges": edges}
    times = foreseen(scenario(network=network))
    assert times.up_s[2] == pytest.approx(times.up_bytes / 250 + 0.6)
    assert times.up_s[0] < 0.1


SPELLS = {"kind": "on_off", "factor": 5, "mean_fast": "20 s", "mean_slow": "20 s"}


@pytest.mark.parametrize("slowdowns", [[], [{"kind": "lognormal", "sigma": 0.7}], [SPELLS]])
def test_drawn_times_have_the_mean_log_of_the_times_in_a_run(
    tmp_path: Path, slowdowns: list[dict[str, Any]]
) -> None:
    settings = scenario(
        stop={"updates": 100},
        clients={"phone": {"count": 1, "peak": "1 MFLOP/s", "speeds": "lognormal", "compute_jitter": 0.3}},
        slowdowns=slowdowns,
    )
    drawn = np.log(foreseen(settings).drawn_s[0])
    happened = np.log(outcomes(settings, tmp_path / "run")[0])
    # Five standard errors of the difference of both means; spells of 40 s make a run's requests dependent, hence 20 s each.
    effective = len(happened) / (8 if slowdowns and slowdowns[0]["kind"] == "on_off" else 1)
    error = math.sqrt(drawn.var(ddof=1) / len(drawn) + happened.var(ddof=1) / effective)
    assert abs(drawn.mean() - happened.mean()) < 5 * error
    assert drawn.std() > 0.2


TYPICAL = {
    "fedgrpo": "question",
    "distil": "question",
    "fedpetuning": "adapter",
    "central_pooled": "control",
    "dpsda_fl": "control",
    "central_grpo": None,
    "zero_shot": None,
    "self_reward": None,
    "dp_sft": None,
    "dp_grpo": None,
}


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_every_protocol_has_a_typical_request_or_asks_nothing(name: str) -> None:
    times = request_times(Prepared(scenario(protocol={"name": name})))
    assert (None if times is None else times.purpose) == TYPICAL[name]
    assert times is None or (times.nominal_s > 0).all()


def test_devices_are_timed_also_where_nobody_can_ever_be_asked() -> None:
    gone = foreseen(scenario(dropout={"hazard": "1000000 /s"}))
    there = foreseen(scenario())
    assert gone.nominal_s == pytest.approx(there.nominal_s, rel=1e-3)


def test_more_devices_of_another_class_change_nobody_elses_times() -> None:
    clients = {"phone": {"count": 2, **CALM}}
    few = foreseen(scenario(clients=clients)).drawn_s
    many = foreseen(scenario(clients={**clients, "edge-server": 5})).drawn_s
    assert few[:, :32].mean(axis=1) == pytest.approx(many[:2, :32].mean(axis=1), rel=0.01)


# --------------------------------------------------------------------------------------------------- deadlines


def check_deadline_of(settings: Scenario) -> None:
    check_deadline(Prepared(settings))


def with_deadline(deadline: str, **keys: Any) -> Scenario:
    stragglers = {"policy": "deadline", "deadline": deadline, **keys}
    return scenario(protocol={"name": "fedgrpo", "num_experts": 1, "stragglers": stragglers})


def test_a_deadline_that_no_device_can_meet_is_refused_with_the_reason_and_an_estimate() -> None:
    with pytest.raises(ScenarioError) as refused:
        check_deadline_of(with_deadline("30 ms"))
    words = str(refused.value)
    assert words.startswith(
        "protocol.stragglers.deadline is 30 ms, but no client can answer by then: the fastest, client "
    )
    assert "(phone), takes about 55 ms (down 18 ms, compute 20 ms, up 18 ms); must be longer" in words


@pytest.mark.parametrize("deadline", ["1 us", "20 ms"])
@pytest.mark.parametrize(
    "protocol",
    [
        {"name": "fedgrpo", "num_experts": 1},
        {"name": "fedpetuning", "local_steps": 2},
        {"name": "fedpetuning", "local_steps": 2, "schedule": {"kind": "buffered"}},
        {"name": "distil"},
        {"name": "central_pooled"},
        {"name": "dpsda_fl"},
    ],
    ids=lambda protocol: f"{protocol['name']}-{protocol.get('schedule', {}).get('kind', '')}",
)
def test_a_deadline_before_any_question_has_arrived_is_refused_in_every_protocol(protocol, deadline) -> None:
    """The rehearsal must not wait by the user's own deadline: nobody would be heard, and nothing refused."""
    stragglers = {"policy": "deadline", "deadline": deadline}
    with pytest.raises(ScenarioError, match=f"deadline is {deadline}, but no client can answer by then"):
        check_deadline_of(scenario(protocol=protocol | {"stragglers": stragglers}))


def test_a_deadline_that_only_the_fastest_can_meet_is_the_users_choice() -> None:
    times = foreseen(scenario())
    check_deadline_of(with_deadline(f"{1.01 * times.nominal_s.min()} s"))
    with pytest.raises(ScenarioError):
        check_deadline_of(with_deadline(f"{0.99 * times.nominal_s.min()} s"))


def test_a_deadline_that_needs_luck_is_the_users_choice_too() -> None:
    # The round trip of a phone varies by 0.3, so that its 55 ms are often 50 ms and never 30 ms.
    phones = scenario(clients={"phone": 3}).clients
    check_deadline_of(with_deadline("50 ms").model_copy(update={"clients": phones}))
    with pytest.raises(ScenarioError):
        check_deadline_of(with_deadline("30 ms").model_copy(update={"clients": phones}))


def test_a_short_deadline_is_fine_where_what_is_scored_by_then_counts() -> None:
    check_deadline_of(with_deadline("30 ms", partial=True, partial_grace="5 s"))


def test_a_client_that_owns_answers_may_be_faster_than_its_model() -> None:
    slow = {"phone": {"count": 2, "peak": "1 MFLOP/s", **CALM}}
    settings = with_deadline("1 s").model_copy(update={"clients": scenario(clients=slow).clients})
    with pytest.raises(ScenarioError):
        check_deadline_of(settings)
    sizes = {"private": 60, "auxiliary": 20, "pool": 60}
    owning = scenario(tasks={"domains": ["gcd"], "sizes": sizes, "answers": {"coverage": 1.0}})
    check_deadline_of(settings.model_copy(update={"tasks": owning.tasks}))


def test_a_run_and_its_estimate_refuse_such_a_deadline_before_anything_starts(tmp_path: Path) -> None:
    settings = with_deadline("30 ms")
    with pytest.raises(ScenarioError, match="no client can answer by then"):
        estimate(settings)
    with pytest.raises(ScenarioError, match="no client can answer by then"):
        experiment.run(settings, out=tmp_path / "run")


def test_without_a_deadline_nothing_is_played() -> None:
    settings = scenario()
    impossible = settings.model_copy(update={"clients": None})  # whoever looks at the devices fails
    check_deadline_of(impossible)


def test_foreseeing_imports_neither_torch_nor_scipy_nor_matplotlib() -> None:
    code = (
        "import sys; from fedsim.scenario.read import read_scenario; "
        "from fedsim.experiment.forecast import device_table as p; "
        "t = p.population_table(read_scenario('quickstart')); list(p.lines(t)); "
        "print([m for m in ('torch', 'transformers', 'scipy', 'matplotlib', 'polars') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
