"""Protocols: one file each. A protocol is ``Config``, ``run(federation, config, state)`` and ``HANDLERS`` (``contract``).

Where the handlers depend on the settings it also has ``handlers_for(config)``. What several of them use is in ``shared/``. The
table below is explicit; third parties register a module through the ``fedsim.protocols`` entry point (``plugins``).
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from fedsim.errors import PluginError, ScenarioError
from fedsim.protocols.contract import Handlers, ProtocolModule, faults_of_handlers, imported, refuse
from fedsim.protocols.plugins import plugins
from fedsim.sim.network import wire

PROTOCOLS = (
    "fedgrpo", "central_grpo", "central_pooled", "dpsda_fl", "zero_shot", "self_reward", "dp_sft", "dp_grpo", "distil",
    "fedpetuning",
)  # fmt: skip
_OURS = (wire.BaseModel, wire.Ready, wire.Cancel, wire.Hurry)
"""What the federation itself may send under any protocol."""


def names() -> list[str]:
    """Every protocol that can be named in a scenario, ours first."""
    return [*PROTOCOLS, *sorted({point.name for point in _third_parties()} - {*PROTOCOLS})]


def broken() -> dict[str, str]:
    """The plug-ins that cannot be used, by the name of their protocol, and why: a line each."""
    found = {
        point.name: f"protocol {point.name!r} of {point.value} is never used: fedsim has one of that name"
        for point in _third_parties()
        if point.name in PROTOCOLS
    }
    for name in names()[len(PROTOCOLS) :]:
        try:
            load(name)
        except PluginError as error:
            found[name] = str(error)
    return found


def is_known(name: str) -> bool:
    """Whether a protocol can be named so; what is installed is searched only for a name that is not ours."""
    return name in PROTOCOLS or name in names()


@cache
def load(name: str) -> ProtocolModule:
    """Import a protocol by its name; a third party's is looked for, and held to the contract, once a process.

    Raises:
        ScenarioError: nobody registered that name.
        PluginError: who registered it does not keep the contract, or two have.
    """
    if name in PROTOCOLS:
        return cast("ProtocolModule", import_module(f"{__name__}.{name}"))
    points = [point for point in _third_parties() if point.name == name]
    if not points:
        raise ScenarioError(f"there is no protocol {name!r}; there are {', '.join(names())}")
    if len(points) > 1:
        whose = " and ".join(sorted(f"{one.value} of {one.dist and one.dist.name}" for one in points))
        raise PluginError(f"protocol {name!r} is registered twice, by {whose}; uninstall one of them")
    return imported(points[0])


def handlers(config: Any) -> Handlers:
    """What clients answer to under these settings: the protocol's ``HANDLERS``, or those its ``handlers_for`` leaves.

    Raises:
        PluginError: what a third party's ``handlers_for`` gives is not that.
    """
    module = load(config.name)
    if not hasattr(module, "handlers_for"):
        return module.HANDLERS
    chosen: Handlers = module.handlers_for(config)
    if config.name not in PROTOCOLS:
        refuse(config.name, faults_of_handlers(chosen))
    return chosen


def messages(config: Any) -> list[type[wire.Message]]:
    """Every type of message that may travel under these settings, those that go down first."""
    asked = handlers(config)
    return list(dict.fromkeys([*asked, *(handler.replies for handler in asked.values()), *_OURS]))


def purposes(config: Any) -> dict[str, str | None]:
    """The purpose of every message under these settings, and what leaves a client with those of them that go up."""
    found: dict[str, str | None] = {kind.purpose: None for kind in messages(config)}
    for handler in handlers(config).values():
        kind = handler.replies
        told = {found[kind.purpose], wire.revealed(kind)} - {None}
        found[kind.purpose] = " and ".join(sorted(filter(None, told))) or None
    return found


def plugins_of(name: str) -> dict[str, dict[str, str]]:
    """Version and source of every plug-in, if the protocol is a third party's; ours import none, so none matters to them."""
    return {} if name in PROTOCOLS else plugins()


def _third_parties() -> list[EntryPoint]:
    return list(entry_points(group="fedsim.protocols"))
