"""Each kind of mistake in a scenario file, with the exact line a person reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedsim import protocols
from fedsim.errors import ScenarioError
from fedsim.scenario.read import read_scenario, scenario_from
from fedsim.scenario.schema import Scenario

GOOD = """\
name: tiny
stop: {updates: 3}
protocol:
  name: fedgrpo
  group_size: 4
tasks:
  domains: [gcd]
clients:
  phone: 2
network:
  server_link:
    up: 1 Gbit/s
    down: 1 Gbit/s
"""

PROTOCOLS = ", ".join(protocols.names())
RATE_UNITS = "bit/s, kbit/s, Mbit/s, Gbit/s, Tbit/s, Pbit/s, B/s, kB/s, MB/s, GB/s, TB/s, PB/s, KiB/s, MiB/s, GiB/s, TiB/s"


def error_of(tmp_path: Path, content: str, *assignments: str) -> str:
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(ScenarioError) as caught:
        read_scenario(path, assignments)
    return str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "up: 1 Gbit/s",
            "up: -5 Mbit/s",
            "x.yaml:12: network.server_link.up is '-5 Mbit/s'; must be greater than zero",
        ),
        (
            "up: 1 Gbit/s",
            "up: 20",
            "x.yaml:12: network.server_link.up is 20, which has no unit; write it with a unit, e.g. '1 Gbit/s' "
            f"(units: {RATE_UNITS})",
        ),
        (
            "up: 1 Gbit/s",
            "up: 20 Mbits",
            "x.yaml:12: network.server_link.up is '20 Mbits', which has the unknown unit 'Mbits'; write it with a "
            f"unit, e.g. '1 Gbit/s' (units: {RATE_UNITS})",
        ),
        (
            "    up: 1 Gbit/s\n",
            "",
            "x.yaml:11: network.server_link.up is missing; it must be given",
        ),
        ("group_size: 4", "group_size: 0", "x.yaml:5: protocol.group_size is 0; must be at least 1"),
        ("group_size: 4", "group_size: '4'", "x.yaml:5: protocol.group_size is '4'; must be an integer"),
        ("group_size: 4", "group_size: 4.0", "x.yaml:5: protocol.group_size is 4.0; must be an integer"),
        ("group_size: 4", "group_size: true", "x.yaml:5: protocol.group_size is true; must be an integer"),
        ("group_size: 4", "group_size:", "x.yaml:5: protocol.group_size is empty; must be an integer"),
        (
            "group_size: 4",
            "temperature: hot",
            "x.yaml:5: protocol.temperature is 'hot'; must be a number",
        ),
        (
            "group_size: 4",
            "divide_by_std: yes",
            "x.yaml:5: protocol.divide_by_std is 'yes'; must be true or false",
        ),
        (
            "group_size: 4",
            "grouping: perexpert",
            "x.yaml:5: protocol.grouping is 'perexpert'; must be 'candidates', 'per_expert', 'joint' or 'literal'; "
            "did you mean 'per_expert'?",
        ),
        (
            "group_size: 4",
            "stragglers: {policy: deadline}",
            "x.yaml:5: protocol.stragglers: policy deadline needs a deadline, e.g. deadline: 30 s",
        ),
        ("name: tiny", "name: 5", "x.yaml:1: name is 5; must be text"),
        (
            "name: tiny",
            "name: ../../etc",
            "x.yaml:1: name is '../../etc'; must be 1 to 64 of a-z, 0-9, '.', '-' and '_', and start with a letter "
            "or digit",
        ),
        (
            "name: fedgrpo",
            "name: fedgpro",
            f"x.yaml:4: protocol.name is 'fedgpro'; must be one of {PROTOCOLS}; did you mean 'fedgrpo'?",
        ),
        (
            "  name: fedgrpo\n",
            "",
            f"x.yaml:3: protocol.name is missing; must be one of {PROTOCOLS}",
        ),
        ("domains: [gcd]", "domains: 5", "x.yaml:7: tasks.domains is 5; must be a list, e.g. [a, b] or a mapping "
         "(lines of `key: value`)"),
        ("domains: [gcd]", "domains: [gcd, 1]", "x.yaml:7: tasks.domains.1 is 1; must be text"),
        ("  domains: [gcd]\n", "  domains:\n    - gcd\n    - 7\n", "x.yaml:9: tasks.domains.1 is 7; must be text"),
        ("phone: 2", "phone: -1", "x.yaml:9: clients.phone is -1; must be at least 0"),
        (
            "phone: 2",
            "phone: {count: 2, up: 5}",
            "x.yaml:9: clients.phone.up is 5, which has no unit; write it with a unit, e.g. '20 Mbit/s' "
            f"(units: {RATE_UNITS})",
        ),
        (
            "stop: {updates: 3}",
            "stop: {}",
            "x.yaml:2: stop: no stop condition; give at least one of updates, virtual, wire_bytes, accuracy, wall",
        ),
        (
            "stop: {updates: 3}",
            "stop: {updates: 3}\navailability: {kind: session}",
            "x.yaml:3: availability.kind is 'session'; must be one of always, sessions, daily, phones, trace; "
            "did you mean 'sessions'?",
        ),
        (
            "stop: {updates: 3}",
            "stop: {updates: 3}\navailability: {}",
            "x.yaml:3: availability must say which kind it is: give it the key 'kind'",
        ),
        (
            "stop: {updates: 3}",
            "stop: {updates: 3}\navailability: {kind: sessions, mean_on: 5 min}",
            "x.yaml:3: availability.mean_off is missing; it must be given",
        ),
        (
            "stop: {updates: 3}",
            "stop: {updates: 3}\nmodels: {server: scratch-2m}",
            "x.yaml:3: models.server is 'scratch-2m', which is not a model preset "
            "(one of scratch-1m, scratch-450k, scratch-250k); "
            "did you mean 'scratch-1m'?",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_place_value_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    assert error_of(tmp_path, GOOD.replace(old, new)) == message


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [
        ("server_link:", "server_lnk:", "x.yaml:11: network.server_lnk is not a key of network; did you mean "
         "'server_link'? (allowed: server_link, transport, "),
        ("group_size:", "group_sise:", "x.yaml:5: protocol.group_sise is not a key of protocol; did you mean "
         "'group_size'? (allowed: "),
        ("tasks:", "task:", "x.yaml:6: task is not a key of a scenario; did you mean 'tasks'? (allowed: name, seed, "),
        ("phone: 2", "phone: {count: 2, lnk: lte}", "x.yaml:9: clients.phone.lnk is not a key of clients.phone; did "
         "you mean 'link'? (allowed: "),
        ("stop: {updates: 3}", "stop: {updates: 3}\navailability: {kind: sessions, mean_on: 1 h, mean_off: 1 h, "
         "shap: 1}", "x.yaml:3: availability.shap is not a key of availability; did you mean 'shape'? (allowed: "
         "kind, on_cut, spread, outage, join_within, mean_stay, distribution, shape, mean_on, mean_off)"),
        ("stop: {updates: 3}", "stop: {updates: 3}\nmodels: {server: {preset: scratch-1m, stepz: 5}}",
         "x.yaml:3: models.server.stepz is not a key of models.server; did you mean 'steps'? (allowed: preset, "),
        ("stop: {updates: 3}", "stop: {updates: 3}\nmodels: {server: {path: p, hub: h}}",
         "x.yaml:3: models.server.hub is not a key of models.server (allowed: lora, tuning, chat, path)"),
        ("phone: 2", "phon: 2", "x.yaml:8: clients: unknown device preset 'phon'; did you mean 'phone'? "),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest_valid_one_and_lists_all(
    tmp_path: Path, old: str, new: str, start: str
) -> None:
    assert error_of(tmp_path, GOOD.replace(old, new)).startswith(start)


def test_a_key_of_another_protocol_is_unknown_here(tmp_path: Path) -> None:
    content = GOOD.replace("name: fedgrpo", "name: zero_shot").replace("group_size: 4", "num_experts: 2")
    message = error_of(tmp_path, content)
    assert message.startswith("x.yaml:5: protocol.num_experts is not a key of protocol")


def test_the_first_of_several_mistakes_by_line_is_told_and_the_rest_counted(tmp_path: Path) -> None:
    content = GOOD.replace("phone: 2", "phone: -1").replace("group_size: 4", "group_size: 0")
    content = content.replace("stop: {updates: 3}", "stop: {updates: 0}")
    assert error_of(tmp_path, content) == "x.yaml:2: stop.updates is 0; must be at least 1 (and 2 more)"


def test_a_missing_section_comes_after_the_misspelt_key_that_explains_it(tmp_path: Path) -> None:
    message = error_of(tmp_path, GOOD.replace("clients:", "client:"))
    assert message.startswith("x.yaml:8: client is not a key of a scenario; did you mean 'clients'?")
    assert message.endswith("(and 1 more)")


def test_a_missing_section_alone_names_the_file(tmp_path: Path) -> None:
    content = GOOD.replace("stop: {updates: 3}\n", "")
    assert error_of(tmp_path, content) == "x.yaml: stop is missing; it must be given"


def test_an_override_is_blamed_by_its_own_words(tmp_path: Path) -> None:
    assert error_of(tmp_path, GOOD, "protocol.group_size=0") == (
        "--set protocol.group_size=0: protocol.group_size is 0; must be at least 1"
    )
    message = error_of(tmp_path, GOOD, "tasks.domain=5")
    assert message.startswith(
        "--set tasks.domain=5: tasks.domain is not a key of tasks; did you mean 'domains'?"
    )


def test_a_mistake_in_the_file_comes_before_one_in_an_override(tmp_path: Path) -> None:
    message = error_of(tmp_path, GOOD.replace("phone: 2", "phone: -1"), "protocol.group_size=0")
    assert message == "x.yaml:9: clients.phone is -1; must be at least 0 (and 1 more)"


def test_a_wrong_seed_option_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    with pytest.raises(ScenarioError, match=r"^--seed -1: seed is -1; must be at least 0$"):
        read_scenario(path, seed=-1)


def test_a_scenario_from_python_is_refused_in_the_same_words() -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario_from(
            {"name": "a", "stop": {"updates": 1}, "protocol": "zero_shot", "clients": {"phone": "2"}}
        )
    assert str(caught.value).startswith("scenario: clients.phone is '2'; must be")
    with pytest.raises(ScenarioError, match="must be plain data"):
        scenario_from({"name": object()})
    with pytest.raises(ScenarioError, match="must be plain data"):
        scenario_from({"seed": float("nan")})


def test_the_unbroken_scenario_of_these_tests_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    assert isinstance(read_scenario(path), Scenario)
