"""Owners of a domain as the slow or absent devices: a permutation of devices, an order of presence."""

import json
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedsim.errors import ScenarioError
from fedsim.experiment import checks
from fedsim.experiment.components import load_components
from fedsim.experiment.prepared import Prepared
from fedsim.experiment.simulation import Simulation
from fedsim.progress import SilentProgress
from fedsim.records.log import RecordLog
from fedsim.scenario.read import scenario_from
from fedsim.sim.clock import run
from fedsim.sim.devices import population
from fedsim.sim.devices.availability import availability
from fedsim.sim.devices.config import ClientsConfig
from fedsim.sim.devices.correlate import (
    CorrelateConfig,
    deal_devices,
    dealt,
    normal_scores,
    owned_rows,
    presence_scores,
    ranks,
)

PARTITION = np.array([[5, 0], [0, 9], [3, 3], [1, 0]])
DOMAINS = ("a", "b")


def devices(**classes):
    return population.draw(ClientsConfig.model_validate(classes), 3)


def scenario(**keys):
    return scenario_from(
        {
            "name": "correlated",
            "fidelity": "timing",
            "protocol": "fedgrpo",
            "clients": {"phone": 8, "laptop": 4},
            "stop": {"updates": 1},
            **keys,
        }
    )


def test_what_a_client_owns_is_its_rows_of_one_domain_or_of_all():
    assert owned_rows("domain", PARTITION, DOMAINS).tolist() == [5, 0, 3, 1]
    assert owned_rows("domain", PARTITION, DOMAINS, "b").tolist() == [0, 9, 3, 0]
    assert owned_rows("data_size", PARTITION, DOMAINS).tolist() == [5, 9, 6, 1]


def test_ranks_and_scores_worked_by_hand():
    ranked = ranks(np.array([5, 0, 3, 1]), seed=0)
    assert ranked == [3, 0, 2, 1]
    # Phi^-1(1/8, 3/8, 5/8, 7/8).
    assert normal_scores(ranked) == pytest.approx([1.15035, -1.15035, 0.31864, -0.31864], abs=1e-5)


def test_clients_that_own_equally_much_are_ordered_by_the_seed_not_by_their_number():
    tied = [ranks(np.zeros(30, dtype=np.int64), seed) for seed in range(2)]
    assert all(sorted(ranked) == list(range(30)) for ranked in tied)
    assert tied[0] != tied[1]
    assert list(range(30)) not in tied


def test_the_owners_get_the_slowest_of_the_drawn_devices():
    drawn = devices(laptop=2, phone=2)
    speeds = [drawn.profile(k).peak_flop_per_s * drawn.profile(k).compute_efficiency for k in range(4)]
    dealt_anew = deal_devices(CorrelateConfig(speed="domain"), drawn, PARTITION, DOMAINS, 0)
    mine = [
        dealt_anew.profile(k).peak_flop_per_s * dealt_anew.profile(k).compute_efficiency for k in range(4)
    ]
    assert sorted(mine) == sorted(speeds)
    assert [sorted(speeds, reverse=True).index(speed) for speed in mine] == [3, 0, 2, 1]


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(9)))
def test_dealing_is_a_permutation_of_whole_devices(ranked):
    drawn = devices(**{"phone": 5, "laptop": 3, "edge-server": 1})
    anew = dealt(drawn, ranked)
    assert len(anew) == len(drawn) and anew.counts == drawn.counts
    profiles = [repr(drawn.profile(k)) for k in range(9)]
    assert sorted(repr(anew.profile(k)) for k in range(9)) == sorted(profiles)


def test_without_correlation_nothing_is_dealt_anew():
    drawn = devices(phone=4)
    assert deal_devices(None, drawn, PARTITION, DOMAINS, 0) is drawn
    only_presence = CorrelateConfig(availability="domain")
    assert deal_devices(only_presence, drawn, PARTITION, DOMAINS, 0) is drawn
    assert presence_scores(None, PARTITION, DOMAINS, 0) is None
    assert presence_scores(CorrelateConfig(speed="domain"), PARTITION, DOMAINS, 0) is None


def played(built):
    prepared, silent = Prepared(built), SilentProgress()
    components = load_components(prepared, silent)
    return Simulation(prepared, components, RecordLog(), silent.phase("test")), components


def test_a_run_gives_the_owners_of_its_first_domain_the_slow_and_absent_devices():
    built = scenario(
        correlate={"speed": "domain", "availability": "domain"},
        availability={"kind": "sessions", "mean_on": "3 h", "mean_off": "1 h", "spread": 2.0},
        dropout={"per_task": 0.2, "spread": 1.5},
    )
    simulation, components = played(built)
    run(simulation.main)
    owned = components.data.partition[:, 0].tolist()
    most, least = max(range(12), key=owned.__getitem__), min(range(12), key=owned.__getitem__)
    speed = [profile.peak_flop_per_s * profile.compute_efficiency for profile in simulation.profiles]
    assert speed[most] == min(speed)
    risks = [simulation.world.dropout.per_task_of(client_id) for client_id in range(12)]
    assert risks[most] == max(risks) > 0.5
    assert statistics.fmean(risks) == pytest.approx(0.2, abs=1e-9)
    scores = presence_scores(built.correlate, components.data.partition, components.data.domains, built.seed)
    presence = availability(built.availability, built.seed, scores=scores)
    for client_id in range(12):
        expected = presence.intervals(client_id, 0.0, 1e5)
        assert simulation.world.availability.intervals(client_id, 0.0, 1e5) == expected
    there = [presence.share_of(client_id) for client_id in range(12)]
    assert there[most] == min(there) < 0.5 < max(there)
    assert owned[most] > owned[least]


def test_ordering_what_does_not_differ_is_refused():
    with pytest.raises(ScenarioError, match="nothing to order"):
        scenario(correlate={"availability": "domain"})
    with pytest.raises(ScenarioError, match="spreads per_task, which is 0"):
        scenario(correlate={"availability": "domain"}, dropout={"spread": 1.0})
    scenario(correlate={"availability": "data_size"}, availability={"kind": "phones"})
    scenario(correlate={"availability": "data_size"}, dropout={"spread": 1.0, "per_task": 0.1})


def test_an_unknown_domain_is_refused_before_the_run_and_the_nearest_named():
    built = scenario(correlate={"speed": "domain", "of": "gdc"})
    with pytest.raises(ScenarioError, match=r"correlate\.of: unknown domain 'gdc'; did you mean 'gcd'"):
        checks.refuse_early(built)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "does nothing"),
        ({"speed": "data_size", "of": "gcd"}, "neither speed nor availability is domain"),
        ({"speed": "rows"}, "domain"),
    ],
)
def test_settings_that_make_no_sense_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        CorrelateConfig.model_validate(keys)


def test_a_resolved_scenario_keeps_its_correlation():
    built = scenario(correlate={"speed": "data_size"})
    assert scenario_from(json.loads(json.dumps(built.resolved()))) == built
