"""Protocols: one file each. A protocol is ``Config``, ``run(federation, config, state)`` and ``HANDLERS``.

Where the handlers depend on the settings it also has ``handlers_for(config)``. What several of them use is in ``shared/``. The
table below is explicit; third parties register a module through the ``fedsim.protocols`` entry point.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol

from fedsim.config.strict import StrictModel
from fedsim.errors import ScenarioError
from fedsim.federation.handlers import Handler
from fedsim.protocols.plugins import plugins
from fedsim.sim.network import wire

PROTOCOLS: Mapping[str, str] = {
    "fedgrpo": "fedsim.protocols.fedgrpo",
    "central_grpo": "fedsim.protocols.central_grpo",
    "central_pooled": "fedsim.protocols.central_pooled",
    "dpsda_fl": "fedsim.protocols.dpsda_fl",
    "zero_shot": "fedsim.protocols.zero_shot",
    "self_reward": "fedsim.protocols.self_reward",
    "dp_sft": "fedsim.protocols.dp_sft",
    "dp_grpo": "fedsim.protocols.dp_grpo",
    "distil": "fedsim.protocols.distil",
    "fedpetuning": "fedsim.protocols.fedpetuning",
}


class ProtocolModule(Protocol):
    """What a protocol's file offers."""

    Config: type[StrictModel]
    HANDLERS: Mapping[type[wire.Message], Handler]
    run: Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


def names() -> list[str]:
    """Every protocol that can be named in a scenario, ours first."""
    return [*PROTOCOLS, *sorted(point.name for point in _third_parties() if point.name not in PROTOCOLS)]


def is_known(name: str) -> bool:
    """Whether a protocol can be named so; what is installed is searched only for a name that is not ours."""
    return name in PROTOCOLS or name in names()


def load(name: str) -> ProtocolModule:
    """Import a protocol by its name.

    Raises:
        ScenarioError: nobody registered that name.
    """
    if name in PROTOCOLS:
        return import_module(PROTOCOLS[name])
    for point in _third_parties():
        if point.name == name:
            module: ProtocolModule = point.load()
            return module
    raise ScenarioError(f"there is no protocol {name!r}; there are {', '.join(names())}")


def handlers(config: Any) -> Mapping[type[wire.Message], Handler]:
    """What clients answer to under these settings: the protocol's ``HANDLERS``, or those its ``handlers_for`` leaves."""
    module = load(config.name)
    chosen: Mapping[type[wire.Message], Handler] = (
        module.handlers_for(config) if hasattr(module, "handlers_for") else module.HANDLERS
    )
    return chosen


def plugins_of(name: str) -> dict[str, dict[str, str]]:
    """Version and source of every plug-in, if the protocol is a third party's; ours import none, so none matters to them."""
    return {} if name in PROTOCOLS else plugins()


def _third_parties() -> list[Any]:
    return list(entry_points(group="fedsim.protocols"))
