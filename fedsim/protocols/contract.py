"""What a protocol's file must offer (docs/plugins.md); a third party's is held to it when it is loaded, in one line."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint
from inspect import iscoroutinefunction
from typing import Any, Literal, Protocol, get_args, get_origin

from fedsim.config.strict import StrictModel
from fedsim.errors import PluginError
from fedsim.federation.handlers import Handler
from fedsim.sim.network import wire

Handlers = Mapping[type[wire.Message], Handler]

_RUNS = ("clients", "server", "nothing")


class ProtocolModule(Protocol):
    """What a protocol's file offers."""

    Config: type[StrictModel]
    HANDLERS: Handlers
    run: Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


def imported(point: EntryPoint) -> ProtocolModule:
    """A third party's protocol, checked.

    Raises:
        PluginError: it cannot be imported, or lacks something.
    """
    try:
        module: ProtocolModule = point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a third party's module raises
        refuse(point.name, [f"{point.value} cannot be imported: {_said(error)}"])
    refuse(point.name, _faults(point.name, module))
    return module


def refuse(name: str, faults: Iterator[str] | list[str]) -> None:
    """Refuse a plug-in for the first of its faults, if it has one.

    Raises:
        PluginError: it has.
    """
    for fault in faults:
        raise PluginError(f"plug-in protocol {name!r} cannot be used: {fault}")


def faults_of_handlers(handlers: Any) -> Iterator[str]:
    """Why this is no mapping of types of message, all on the register, to handlers."""
    if not isinstance(handlers, Mapping):
        yield f"its HANDLERS are of type {type(handlers).__name__}; must map types of message to handlers"
    for kind, handler in handlers.items():
        if not isinstance(handler, Handler):
            yield f"its HANDLERS have a {type(handler).__name__} for {_name(kind)}; must be a Handler"
        for one in (kind, handler.replies):
            if one not in wire.kinds():
                yield f"its HANDLERS name {_name(one)}, which is no wire.Message with a purpose of its own"


def _faults(name: str, module: Any) -> Iterator[str]:
    """What a module lacks, each only looked for where what was looked for before is there."""
    where = getattr(module, "__name__", repr(module))
    lacking = [part for part in ("Config", "run", "HANDLERS") if not hasattr(module, part)]
    if lacking:
        yield f"{where} has no {' and no '.join(lacking)}"
    settings = module.Config
    if not (isinstance(settings, type) and issubclass(settings, StrictModel)):
        yield f"Config of {where} must be a class derived from fedsim.config.strict.StrictModel"
    if not_a_model := _not_a_model(settings):
        yield f"Config of {where} is no settings model: {not_a_model}"
    own = settings.model_fields.get("name")
    if own is not None and (get_origin(own.annotation), get_args(own.annotation)) != (Literal, (name,)):
        yield f"Config.name of {where} must be Literal[{name!r}], as the entry point says, or be left out"
    if not iscoroutinefunction(module.run):
        yield f"run of {where} must be `async def run(federation, config, state)`"
    if getattr(module, "CLIENT_RUNS", "clients") not in _RUNS:
        yield f"CLIENT_RUNS of {where} is {module.CLIENT_RUNS!r}; must be one of {', '.join(_RUNS)}"
    yield from faults_of_handlers(module.HANDLERS)


@lru_cache(maxsize=64)
def _not_a_model(settings: type[StrictModel]) -> str:
    try:
        settings.model_json_schema()
    except Exception as error:  # noqa: BLE001 - pydantic's own errors and those of a third party's validators
        return _said(error)
    return ""


def _said(error: BaseException) -> str:
    """What kind of error it is, and its first line (pydantic says where to read on in the next)."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _name(kind: Any) -> str:
    return getattr(kind, "__qualname__", repr(kind))
