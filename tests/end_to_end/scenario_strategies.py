"""Hypothesis strategies for whole scenarios, in timing fidelity, as the plain data that a YAML file holds.

Most of it is read off the settings models: for every key its type, its bounds, its unit and its forms, so that a key which is
added to a model is fuzzed without a word here. By hand stands what a type does not say: names that must exist, sizes that keep
a run to milliseconds, and files beside the scenario (`FILES`).

A key is kept only if the section is still valid with it, alone or together with one other key (``partial`` and
``partial_grace``), and so is a section of the whole. Now and then nothing is checked: what comes out is then mostly
refused, which must happen in one line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fedsim import protocols
from fedsim.config.strict import StrictModel
from fedsim.config.units import Quantity, Seconds
from fedsim.config.validation import branches
from fedsim.federation.hostile_config import OnExperts
from fedsim.federation.stragglers.config import StragglerConfig
from fedsim.federation.text_lengths import length_presets
from fedsim.models.config import ModelsConfig
from fedsim.models.sources import PRESETS, ScratchModel
from fedsim.privacy.rewards import RewardNoiseConfig
from fedsim.protocols.shared.monitor import EvaluationConfig
from fedsim.protocols.shared.server_optimizers import AveragingConfig
from fedsim.scenario.schema import Scenario, scenario_model
from fedsim.sim.devices.availability_config import TraceConfig
from fedsim.sim.devices.config import ClientsConfig, ServerConfig
from fedsim.sim.devices.presets import DeviceSettings, architectures, device_presets, link_names
from fedsim.sim.faults.config import REWARD_KINDS, OnDevices
from fedsim.sim.network.config import NetworkConfig
from fedsim.sim.network.edges import EdgeConfig, EdgesConfig
from fedsim.tasks.config import QUICK_DOMAINS, TasksConfig

Data = dict[str, Any]

FILES: Mapping[str, str] = {
    "devices.csv": "class,link,rtt\nphone,,\nphone,lte,40 ms\nlaptop,wifi,\nedge-server,,\n",
    "trace.csv": "client,start,end\n0,0,600\n0,1200,1500.5\n1,,\n2,30,90\n",
    "questions.jsonl": "".join(
        json.dumps({"question": f"{a} plus {b}?", "answer": a + b, "domain": ("sums", "more")[a % 2]}) + "\n"
        for a in range(12)
        for b in range(12)
    ),
    "tree.graphml": """\
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key id="up" for="edge" attr.name="up" attr.type="string"/>
  <key id="down" for="edge" attr.name="down" attr.type="string"/>
  <key id="share" for="node" attr.name="share" attr.type="double"/>
  <graph edgedefault="directed">
    <node id="server"/>
    <node id="west"><data key="share">0.5</data></node>
    <edge source="west" target="server"><data key="up">10 Mbit/s</data><data key="down">20 Mbit/s</data></edge>
  </graph>
</graphml>
""",
}
"""Files that lie beside every scenario; another name under a key ``file`` is of a file that is not there."""

STEPS = 10_000
"""Step budget of a run: it ends within so many steps, or with `LimitExceeded`."""

_MOST_TRIED = 120
_COMMON = {
    "30 s": ("s", "s", "s", "ms", "min", "h"),
    "1.5 MiB": ("GB", "MB", "kB"),
    "20 Mbit/s": ("Mbit/s", "kbit/s", "Gbit/s", "GB/s"),
    "1 Gbit/s": ("Mbit/s", "kbit/s", "Gbit/s"),
    "2 TFLOP/s": ("TFLOP/s", "GFLOP/s"),
    "1 /h": ("/h", "/min", "/s"),
}
"""Common units of a quantity, by its example."""


# ------------------------------------------------------------------------------------------------------- one value


def _numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers as people write them, and any others, between two bounds."""
    plain = [number for number in (0, 0.1, 0.25, 0.5, 0.9, 1, 2, 5, 30, 200) if low <= number <= high]
    spread = st.floats(low, min(high, max(low, 1) * 1e3))
    return st.one_of(
        *([st.sampled_from(plain)] if plain else []), spread, *map(st.just, {low, high} - {1e308})
    )


@st.composite
def _mostly(draw: st.DrawFn, common: st.SearchStrategy[Any], rare: st.SearchStrategy[Any]) -> Any:
    """One time in eight the rare one (``one_of`` counts alternatives that are the same only once)."""
    return draw(rare) if draw(st.integers(0, 7)) == 7 else draw(common)


def quantities(quantity: Quantity) -> st.SearchStrategy[str]:
    """Quantities of a kind, e.g. ``35 ms``; mostly ordinary ones."""
    common = st.sampled_from(_COMMON.get(quantity.example, list(quantity.units)))
    numbers = st.one_of(st.integers(1, 600), st.floats(1e-3, 1e3), st.integers(1, 30))
    ordinary = st.builds(lambda number, unit: f"{number!r} {unit}", numbers, common)
    odd = st.builds(
        lambda number, unit: f"{number!r} {unit}",
        st.sampled_from([0, 1, 1e-9, 1e9, 0.333]),
        st.sampled_from(sorted(quantity.units)),
    )
    words = [st.just("unlimited")] if quantity.unlimited else []
    return _mostly(ordinary, st.one_of(odd, *words))


def _bounds(metadata: list[Any]) -> tuple[float | None, float | None]:
    low = high = None
    for one in metadata:
        for name in ("ge", "gt"):
            low = getattr(one, name, low)
        for name in ("le", "lt"):
            high = getattr(one, name, high)
        inner = getattr(one, "metadata", None)  # Field(...) inside an Annotated
        if isinstance(inner, list):
            deeper = _bounds(inner)
            low, high = deeper[0] if low is None else low, deeper[1] if high is None else high
    return low, high


def values(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    """Values of an annotated type, within its bounds, in every form that it has."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values(arguments[0], [*arguments[1:], *metadata])
    shorter = [
        values(one.json_schema_input_type, [])
        for one in metadata
        if getattr(one, "json_schema_input_type", PydanticUndefined) is not PydanticUndefined
    ]
    quantity = next((one for one in metadata if isinstance(one, Quantity)), None)
    low, high = _bounds(metadata)
    if quantity is not None:
        plain: st.SearchStrategy[Any] = quantities(quantity)
    elif origin is Literal:
        plain = st.sampled_from(arguments)
    elif origin in (Union, type(int | str)):
        forms = [values(part, []) for part in arguments if part is not type(None)]
        plain = st.one_of(*forms)
        if type(None) in arguments:
            plain = _mostly(plain, st.none())
    elif origin is tuple:
        plain = st.lists(values(arguments[0], []), max_size=3)
    elif origin is dict:
        plain = st.dictionaries(values(arguments[0], []), values(arguments[1], []), max_size=2)
    elif annotation is bool:
        plain = st.booleans()
    elif annotation is int:
        least = int(low or 0)
        most = least + 40 if high is None else min(int(high), least + 40)
        plain = st.one_of(st.integers(least, min(most, least + 4)), st.integers(least, most))
    elif annotation is float:
        plain = _numbers(-5.0 if low is None else low, 1e308 if high is None else high)
    elif annotation is str:
        plain = st.sampled_from(["phone", "gcd", "x", "sums"])
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        plain = settings_of(annotation)
    else:
        plain = st.sampled_from([1, True, "x", 0.5])
    return st.one_of(plain, *shorter)


# ----------------------------------------------------------------------------------------------------- one section


@st.composite
def settings_of(draw: st.DrawFn, model: type[BaseModel]) -> Data:
    """The keys of a settings model that a scenario might write."""
    required: Data = {}
    optional: Data = {}
    for name, info in model.model_fields.items():
        if info.is_required():
            required[info.alias or name] = draw(_key(model, name, info))
        elif draw(st.integers(0, 11)) >= _rarity(model, info):
            optional[info.alias or name] = draw(_key(model, name, info))
    return kept(draw, model, required, optional)


def _rarity(model: type[BaseModel], info: FieldInfo) -> int:
    if model in _DENSE:
        return 1
    if issubclass(model, OnDevices | OnExperts):  # each must say when and whom, in one of several ways
        return 5
    return 5 if _DENSE & set(branches(info.annotation)) else 9


def kept(draw: st.DrawFn, model: type[BaseModel], required: Data, optional: Data) -> Data:
    """The optional keys with which the section stays valid, tried one by one and then in pairs; now and then all of them."""
    if draw(st.integers(0, 40)) == 40:
        return required | optional
    data, waiting = dict(required), dict(optional)
    if not _is_valid(model, data):
        for number in range(
            1, 4
        ):  # e.g. clients that are nobody, edges that are none: what is missing may be optional
            for keys in combinations(waiting, number):
                if _is_valid(model, data | {key: waiting[key] for key in keys}):
                    data |= {key: waiting.pop(key) for key in keys}
                    return _grown(model, data, waiting)
        return required | optional
    return _grown(model, data, waiting)


def _grown(model: type[BaseModel], data: Data, waiting: Data) -> Data:
    grows = True
    while grows and waiting:
        grows = False
        for keys in [*combinations(waiting, 1), *combinations(waiting, 2)][:_MOST_TRIED]:
            if all(key in waiting for key in keys):
                more = data | {key: waiting[key] for key in keys}
                if _is_valid(model, more):
                    data, grows = more, True
                    for key in keys:
                        del waiting[key]
    for key, value in waiting.items():
        if isinstance(value, dict):
            data |= _part_of(model, data, key, value)
    return data


def _part_of(model: type[BaseModel], data: Data, key: str, section: Data) -> Data:
    """A section without the one or two keys that do not go with the rest of the scenario."""
    for number in (1, 2):
        for left_out in combinations(section, number):
            part = {name: value for name, value in section.items() if name not in left_out}
            if _is_valid(model, data | {key: part}):
                return {key: part}
    return {}


def _is_valid(model: type[BaseModel], data: Data) -> bool:
    try:
        model.model_validate_json(json.dumps(data))
    except ValidationError:
        return False
    return True


def _key(model: type[BaseModel], name: str, info: FieldInfo) -> st.SearchStrategy[Any]:
    for owner in model.__mro__:
        if (owner, name) in _BY_HAND:
            return _BY_HAND[owner, name]()
    if name == "classes":
        return st.lists(_classes(), min_size=1, max_size=2, unique=True)
    return values(info.annotation, info.metadata)


def _classes() -> st.SearchStrategy[str]:
    return st.sampled_from(list(device_presets()))


# -------------------------------------------------------------------------------------------------- what types hide


@st.composite
def clients(draw: st.DrawFn) -> Data:
    """A few device classes, 1 to 30 clients in all, or the file."""
    if draw(st.integers(0, 11)) == 11:
        return {"file": draw(st.sampled_from([*["devices.csv"] * 9, "missing.csv"]))}
    classes: Data = {}
    for name in draw(st.lists(_classes(), min_size=1, max_size=3, unique=True)):
        count = draw(st.integers(0, 10) if classes else st.integers(1, 10))
        detailed = draw(st.integers(0, 2)) == 2
        classes[name] = {**draw(settings_of(DeviceSettings)), "count": count} if detailed else count
    return classes


@st.composite
def edges(draw: st.DrawFn, present: Data) -> Data:
    """A small tree of edges, or the file."""
    if draw(st.integers(0, 5)) == 5:
        return {"file": "tree.graphml"}
    names = ["west", "east", "north"][: draw(st.integers(1, 3))]
    tree: Data = {}
    for place, name in enumerate(names):
        edge = _on_those_present(draw(settings_of(EdgeConfig)), present)
        edge.pop("parent", None)
        if place and draw(st.booleans()):
            edge["parent"] = names[place - 1]
        edge.setdefault("share", draw(st.sampled_from([0, 0.3, 0.5, 1])))
        tree[name] = edge
    return tree


@st.composite
def _domains(draw: st.DrawFn) -> Any:
    names = draw(
        st.lists(
            st.sampled_from([*QUICK_DOMAINS, "odd: name", "véry", "1"]), min_size=1, max_size=4, unique=True
        )
    )
    return {name: {} for name in names} if draw(st.integers(0, 4)) == 4 else names


@st.composite
def _scratch(draw: st.DrawFn) -> Any:
    if draw(st.integers(0, 2)):
        return draw(st.sampled_from(list(PRESETS)))
    if draw(st.integers(0, 9)) == 9:
        return draw(st.sampled_from([{"hub": "someone/something"}, {"path": "nothing"}]))
    heads = draw(st.integers(1, 4))
    own = draw(settings_of(ScratchModel))
    return {
        **own,
        "num_heads": heads,
        "hidden_size": 2 * heads * draw(st.integers(4, 20)),
        "preset": draw(st.sampled_from([*PRESETS, "custom"])),
    }


@st.composite
def _billed(draw: st.DrawFn) -> Any:
    sides = st.sampled_from(list(architectures()))
    return draw(sides) if draw(st.booleans()) else {"server": draw(sides), "clients": draw(sides)}


@st.composite
def _stop(draw: st.DrawFn) -> Data:
    """Small ends. ``wall`` is never the one that is met: such a run cannot be reproduced."""
    stop: Data = {}
    if draw(st.integers(0, 9)) < 9:
        stop["updates"] = draw(st.integers(1, 4))
    if draw(st.integers(0, 3)) == 3:
        stop["virtual"] = draw(values(Seconds, []).filter(lambda text: not text.startswith("0 ")))
    if draw(st.integers(0, 5)) == 5:
        stop["wire_bytes"] = draw(st.sampled_from(["0 B", "1 B", "10 kB", "3 MB", "1 GB"]))
    if draw(st.integers(0, 5)) == 5:
        stop["accuracy"] = draw(st.sampled_from([0.01, 0.5, 1]))
    if draw(st.integers(0, 9)) == 9:
        stop["wall"] = "1 h"
    return stop if stop and stop.keys() != {"accuracy"} else {"updates": 2} | stop


@st.composite
def _text(draw: st.DrawFn) -> Data:
    count = st.integers(1, 300)
    lengths = st.one_of(
        count,
        st.sampled_from(sorted(length_presets())),
        st.builds(lambda low, more: {"low": low, "high": low + more}, count, count),
        st.builds(lambda median, ratio: {"median": median, "p95": median * ratio}, count, st.floats(1, 5)),
        st.builds(lambda name, most: {"preset": name, "at_most": most}, st.sampled_from(sorted(length_presets())), count),
        st.builds(lambda median, most: {"median": median, "p95": median, "at_most": most}, count, count),
    )  # fmt: skip
    text = {"question": draw(lengths), "answer": draw(lengths)}
    if draw(st.booleans()):
        text["rationale"] = draw(st.one_of(lengths, st.just(0)))
    if draw(st.booleans()):
        text["bytes_per_token"] = draw(st.sampled_from([4, 0.5, 3.7, 1e-3, 100]))
    return text


_DENSE: frozenset[Any] = frozenset({StragglerConfig, AveragingConfig})
"""Sections most of whose keys belong to one choice: fewer than most of them say little."""

_BY_HAND: Mapping[tuple[Any, str], Callable[[], st.SearchStrategy[Any]]] = {
    (ClientsConfig, "file"): lambda: st.just("devices.csv"),
    (StragglerConfig, "quorum"): lambda: st.integers(1, 2),
    (StragglerConfig, "extra"): lambda: st.integers(1, 2),
    (RewardNoiseConfig, "noise"): lambda: st.sampled_from([0.1, 1e-6, 0.49, 2]),
    (DeviceSettings, "link"): lambda: st.sampled_from(sorted(link_names())),
    (ServerConfig, "preset"): _classes,
    (TraceConfig, "file"): lambda: st.sampled_from([*["trace.csv"] * 9, "missing.csv"]),
    (TasksConfig, "domains"): _domains,
    (TasksConfig, "file"): lambda: st.just("questions.jsonl"),
    (TasksConfig, "prompt_template"): lambda: st.sampled_from(["{question}", "Q: {question}\nA:", "# {question} "]),
    (TasksConfig, "answer_pattern"): lambda: st.sampled_from(["[0-9]+", "answer: (.+)", r"\d+", "("]),
    (ModelsConfig, "server"): _scratch,
    (ModelsConfig, "clients"): _scratch,
    (ModelsConfig, "bill_as"): _billed,
    (EvaluationConfig, "samples"): lambda: st.just(8),
}  # fmt: skip


# --------------------------------------------------------------------------------------------------- whole scenarios


@st.composite
def scenarios(draw: st.DrawFn, protocol_name: str | None = None) -> Data:
    """A whole scenario of timing fidelity, of one protocol or any: every part of the schema that such a run reads."""
    name = protocol_name or draw(st.sampled_from(protocols.names()))
    model = scenario_model(name)
    section = model.model_fields["protocol"].annotation
    assert isinstance(section, type) and issubclass(section, StrictModel)
    protocol = _smaller(draw, {**draw(settings_of(section)), "name": name})
    required = {
        "name": "fuzz",
        "seed": draw(st.sampled_from([0, 1, 7, 2**53 - 1])),
        "fidelity": "timing",
        "stop": draw(_stop()),
        "protocol": protocol,
        "clients": draw(clients()),
        "tasks": _small_tasks(draw),
        "limits": {"events": STEPS, "virtual": draw(st.sampled_from(["1 d", "1 h", "3 d"]))},
    }
    optional: Data = {}
    if draw(st.integers(0, 2)) == 2:
        optional["text"] = draw(_text())
    for key, info in Scenario.model_fields.items():
        if key in required or key == "text" or key in _LEFT_OUT or draw(st.integers(0, 9)) < 6:
            continue
        section = draw(_own_section(key, info, required["clients"]))
        optional[key] = [law for law in section if _can_strike(law, name)] if key == "faults" else section
    return kept(draw, model, required, optional)


_LEFT_OUT = frozenset({"compute"})  # threads of torch, which timing fidelity does not import


def _own_section(key: str, info: FieldInfo, present: Data) -> st.SearchStrategy[Any]:
    if key == "network":
        return _network(present)
    if key in ("faults", "hostile", "slowdowns"):
        (kind,) = branches(info.annotation)
        laws = values(get_args(kind)[0], [])
        return st.lists(laws.map(lambda law: _on_those_present(law, present)), min_size=1, max_size=3)
    return values(info.annotation, info.metadata)


@st.composite
def _network(draw: st.DrawFn, present: Data) -> Data:
    network = draw(settings_of(NetworkConfig))
    network.pop("edges", None)
    if draw(st.integers(0, 3)) == 3:
        tree = draw(edges(present))
        if _is_valid(EdgesConfig, tree):
            network["edges"] = tree
    return network


def _can_strike(law: Data, protocol_name: str) -> bool:
    return protocol_name == "fedgrpo" or law["kind"] not in REWARD_KINDS


def _on_those_present(law: Data, present: Data) -> Data:
    """Ids and classes that there are, mostly: a fault of nobody is refused, and refusals are cheap to find."""
    if law.get("classes") and "file" not in present:
        law = law | {"classes": [name for name in law["classes"] if name in present] or list(present)[:1]}
    if law.get("clients"):
        law = law | {"clients": sorted({client_id % 2 for client_id in law["clients"]})}
    return law


@st.composite
def _sizes(draw: st.DrawFn) -> Data:
    few = st.integers(1, 40)
    sizes = {name: draw(few) for name in ("auxiliary", "pool", "validation", "test")}
    sizes |= {name: draw(st.integers(0, 200)) for name in ("public", "private")}
    if draw(st.integers(0, 3)) == 3:
        sizes["private_per_client"] = draw(st.integers(0, 20))
    return sizes


def _small_tasks(draw: st.DrawFn) -> Data:
    return {**draw(settings_of(TasksConfig)), "sizes": draw(_sizes())}


_SMALL: Mapping[str, st.SearchStrategy[Any]] = {
    "num_experts": st.integers(1, 3),
    "questions_per_update": st.integers(1, 8),
    "clients_per_round": st.integers(1, 4),
}


def _smaller(draw: st.DrawFn, protocol: Data) -> Data:
    """The protocol with rounds of a few questions: its defaults (96 questions, 192 in flight) take a second."""
    fields = protocols.load(protocol["name"]).Config.model_fields
    small = {key: draw(size) for key, size in _SMALL.items() if key in protocol}
    if "questions_per_update" in fields:
        small["questions_per_update"] = draw(_SMALL["questions_per_update"])
    if "update" in fields:
        given = dict(protocol.get("update", {}))
        given["groups_per_update"] = min(given.get("groups_per_update", draw(st.integers(1, 6))), 8)
        given["in_flight"] = min(given.get("in_flight", draw(st.integers(1, 8))), 16)
        small["update"] = given
    if "group_size" in fields:
        small["group_size"] = min(protocol.get("group_size", 4), 12)
    return protocol | small


# ------------------------------------------------------------------------------------------------------ spoiled ones

_JUNK: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [None, [], {}, "", "x", -1, 0, 1, 1e308, -0.0, True, "5 parsecs", "1e400 s", "-3 s", "0 s", "nan", "a\nb", "é",
         [[]], [{}], {"kind": "x"}, {"": 1}, {"a": {"b": {"c": 1}}}, "x" * 300, "unlimited", "- a: &b *c", "'", "%", "#", "? "]
    ),
    st.text(max_size=8),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**17), 40),
)  # fmt: skip
"""What does not belong where it stands. No large counts: who asks for 10^17 candidates is given them while memory lasts."""


@st.composite
def spoiled(draw: st.DrawFn, protocol_name: str | None = None) -> Data:
    """A scenario in which something was written that does not belong there, somewhere at any depth."""
    data = draw(scenarios(protocol_name))
    _spoil(draw, data)
    data["fidelity"] = "timing"  # its default is the other one, in which models are trained for minutes
    return data


def _spoil(draw: st.DrawFn, data: Data) -> None:
    place: Any = data
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 3)):
            place = place[key]
            continue
        match draw(st.integers(0, 3)):
            case 0 if isinstance(place, dict):
                del place[key]
            case 1 if isinstance(place, dict):
                place[draw(st.sampled_from(["groupsize", "kind", "x", "ﬁle", "a.b", "true"]))] = draw(_JUNK)
            case _:
                place[key] = draw(_JUNK)
        return
