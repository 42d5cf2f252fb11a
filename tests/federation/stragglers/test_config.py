"""Settings of straggler policies: what each needs, and what is refused before a run."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fedsim.errors import ScenarioError
from fedsim.experiment import checks
from fedsim.federation.stragglers.config import StragglerConfig, refuse_shortage
from fedsim.scenario.read import scenario_from
from fedsim.scenario.schema import protocol_settings


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"policy": "deadline"}, "policy deadline needs a deadline"),
        ({"deadline": "3 s"}, "policy wait_all takes no deadline"),
        ({"policy": "wait_all", "deadline": "3 s"}, "policy wait_all takes no deadline"),
        ({"policy": "quorum"}, "policy quorum needs quorum: so many replies suffice"),
        ({"policy": "over_select"}, "policy over_select needs extra: so many more"),
        ({"policy": "hedged"}, "policy hedged needs hedge_after: a client silent for so long"),
        ({"policy": "deadline", "deadline": "3 s", "grace": "1 s"}, "grace belongs to policy quorum"),
        ({"policy": "quorum", "quorum": 1, "extra": 1}, "extra belongs to policy over_select"),
        ({"quantile": 0.5}, "quantile belongs to policy adaptive; policy wait_all does not read it"),
        (
            {"policy": "hedged", "hedge_after": "3 s", "deadline": "3 s"},
            "no silent client would ever get a spare",
        ),
        ({"policy": "adaptive", "warm_up": 30, "history": 20}, "only 20 reply times are remembered"),
        ({"policy": "adaptive", "factor": 0.9}, "greater than or equal to 1"),
        ({"partial": True, "partial_grace": "1 s"}, "give a deadline"),
        ({"policy": "deadline", "deadline": "3 s", "partial": True}, "partial_grace belong together"),
        ({"policy": "deadline", "deadline": "3 s", "partial_grace": "1 s"}, "partial_grace belong together"),
        ({"policy": "quorum", "quorum": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_do_not_fit_the_policy_are_refused(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        StragglerConfig(**keys)


def test_a_policy_brings_the_defaults_of_its_own_keys_and_of_no_others() -> None:
    adaptive = StragglerConfig(policy="adaptive")
    assert (adaptive.quantile, adaptive.factor, adaptive.warm_up, adaptive.history) == (0.9, 1.5, 20, 1000)
    assert StragglerConfig(policy="quorum", quorum=1).grace == 0.0
    assert StragglerConfig(policy="replace").replacements == 1
    assert StragglerConfig().quorum is StragglerConfig().replacements is None


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"policy": "deadline", "deadline": "10 s", "missing": "mask"},
        {"policy": "quorum", "quorum": 1, "deadline": "4 s"},
        {"policy": "adaptive", "partial": True, "partial_grace": "1 s"},
        {"policy": "hedged", "hedge_after": "2 s", "on_deadline": "cancel"},
    ],
)
def test_a_resolved_policy_reads_back_as_itself(keys: dict[str, Any]) -> None:
    config = StragglerConfig(**keys)
    assert StragglerConfig.model_validate_json(config.model_dump_json()) == config
    assert StragglerConfig.model_validate_json(config.model_dump_json(exclude_none=True)) == config


@pytest.mark.parametrize(
    ("keys", "policy"),
    [
        ({"policy": "quorum", "quorum": 1}, "wait_all"),
        ({"policy": "over_select", "extra": 1, "deadline": "5 s"}, "deadline"),
        ({"policy": "adaptive"}, "adaptive"),
        ({"policy": "deadline", "deadline": "5 s", "partial": True, "partial_grace": "1 s"}, "deadline"),
    ],
)
def test_a_message_to_everybody_keeps_the_deadline_alone(keys: dict[str, Any], policy: str) -> None:
    config = StragglerConfig(**keys)
    broadcast = config.without_spares
    assert (broadcast.policy, broadcast.deadline, broadcast.partial) == (policy, config.deadline, False)


def scenario(protocol: dict[str, Any], num_clients: int = 4) -> Any:
    return scenario_from(
        {
            "name": "t",
            "fidelity": "timing",
            "stop": {"updates": 1},
            "clients": {"laptop": num_clients},
            "protocol": protocol,
            "tasks": {"sizes": {"pool": 20}},
        }
    )


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        ({"name": "fedgrpo", "stragglers": {"policy": "quorum", "quorum": 3}},
         "stragglers.quorum is 3, but num_experts: 2 asks 2 clients; must be at most 2"),
        ({"name": "fedgrpo", "experts": "all", "stragglers": {"policy": "replace"}},
         "policy replace needs clients that were not asked yet, but experts: all asks everybody"),
        ({"name": "fedgrpo", "wire": "answers_up",
          "stragglers": {"policy": "deadline", "deadline": "1 s", "partial": True, "partial_grace": "1 s"}},
         "partial needs wire scores_up"),
        ({"name": "distil", "stragglers": {"policy": "adaptive", "partial": True, "partial_grace": "1 s"}},
         "partial is for rewards"),
        ({"name": "fedpetuning", "stragglers": {"policy": "adaptive", "partial": True, "partial_grace": "1 s"}},
         "partial is for rewards"),
        ({"name": "fedpetuning", "stragglers": {"policy": "over_select", "extra": 1}},
         r"clients_per_round \(not set\) asks everybody"),
        ({"name": "fedpetuning", "clients_per_round": 2, "stragglers": {"policy": "quorum", "quorum": 3}},
         "stragglers.quorum is 3, but clients_per_round asks 2 clients"),
        ({"name": "central_pooled", "stragglers": {"policy": "hedged", "hedge_after": "1 s"}}, "asks everybody"),
    ],
)  # fmt: skip
def test_a_policy_that_the_protocol_can_never_satisfy_is_refused(
    protocol: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ScenarioError, match=reason):
        scenario(protocol)


@pytest.mark.parametrize(
    ("protocol", "num_clients", "reason"),
    [
        ({"name": "fedgrpo", "stragglers": {"policy": "over_select", "extra": 3}}, 4, "asks 2 clients and 3 more"),
        ({"name": "fedgrpo", "stragglers": {"policy": "hedged", "hedge_after": "1 s"}}, 2, "asks 2 clients and 1 more"),
        ({"name": "fedgrpo", "stragglers": {"policy": "replace"}}, 2, "asks 2 clients and 1 more, but there are 2"),
        ({"name": "fedgrpo", "experts": "all", "stragglers": {"policy": "quorum", "quorum": 5}}, 4,
         "quorum is 5, but 4 clients are asked; must be at most 4"),
        ({"name": "central_pooled", "stragglers": {"policy": "quorum", "quorum": 5}}, 4, "must be at most 4"),
        ({"name": "fedpetuning", "clients_per_round": 4, "stragglers": {"policy": "replace"}}, 4, "4 clients and 1 more"),
    ],
)  # fmt: skip
def test_a_policy_that_needs_more_clients_than_there_are_is_refused_before_the_run(
    protocol: dict[str, Any], num_clients: int, reason: str
) -> None:
    with pytest.raises(ScenarioError, match=reason):
        checks.refuse_early(scenario(protocol, num_clients))


def test_enough_clients_are_no_shortage() -> None:
    refuse_shortage(StragglerConfig(policy="over_select", extra=2), 2, 4)
    refuse_shortage(StragglerConfig(policy="quorum", quorum=4), None, 4)
    refuse_shortage(StragglerConfig(policy="replace"), 3, 4)
    refuse_shortage(StragglerConfig(), None, 1)


WITHOUT_REWARDS = sorted(
    name
    for name, settings in protocol_settings().items()
    if "stragglers" in settings.model_fields and name != "fedgrpo"
)


def test_the_protocols_that_wait_for_something_else_than_rewards_are_known() -> None:
    assert {"distil", "fedpetuning", "central_pooled", "dpsda_fl"} <= set(WITHOUT_REWARDS)


@pytest.mark.parametrize("name", WITHOUT_REWARDS)
@pytest.mark.parametrize(
    ("stragglers", "reason"),
    [
        ({"missing": "zero"}, "missing must be mask: .* zero is for rewards"),
        ({"missing": "drop_group"}, "missing must be mask: .* drop_group is for rewards"),
        (
            {"policy": "deadline", "deadline": "1 s", "partial": True, "partial_grace": "1 s"},
            "partial is for rewards",
        ),
    ],
)
def test_a_rule_for_missing_rewards_is_refused_where_replies_are_no_rewards(
    name: str, stragglers: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ScenarioError, match=reason):
        scenario({"name": name, "stragglers": stragglers})


@pytest.mark.parametrize("name", WITHOUT_REWARDS)
def test_nobody_is_refused_for_the_default(name: str) -> None:
    assert scenario({"name": name, "stragglers": {"missing": "mask"}}).protocol.stragglers.missing == "mask"
