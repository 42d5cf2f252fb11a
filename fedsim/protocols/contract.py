"""What a protocol's file must offer (docs/plugins.md); a third party's is held to it when it is loaded, in one line."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint
from inspect import iscoroutinefunction
from typing import Any, Literal, Protocol, cast, get_args, get_origin

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
        module = point.load()
    except (Exception, SystemExit) as error:
        raise _broken(point.name, f"{point.value} cannot be imported: {_said(error)}") from error
    return _checked(point.name, module)


@lru_cache(maxsize=64)
def _checked(name: str, module: Any) -> ProtocolModule:
    where = getattr(module, "__name__", repr(module))
    lacking = [part for part in ("Config", "run", "HANDLERS") if not hasattr(module, part)]
    if lacking:
        raise _broken(name, f"{where} has no {' and no '.join(lacking)}")
    settings = module.Config
    if not (isinstance(settings, type) and issubclass(settings, StrictModel)):
        raise _broken(
            name, f"Config of {where} must be a class derived from fedsim.config.strict.StrictModel"
        )
    try:
        settings.model_json_schema()
    except Exception as error:
        raise _broken(name, f"Config of {where} is no settings model: {_said(error)}") from error
    own = settings.model_fields.get("name")
    if own is not None and (get_origin(own.annotation), get_args(own.annotation)) != (Literal, (name,)):
        raise _broken(
            name, f"Config.name of {where} must be Literal[{name!r}], as the entry point says, or be left out"
        )
    if not iscoroutinefunction(module.run):
        raise _broken(name, f"run of {where} must be `async def run(federation, config, state)`")
    if getattr(module, "CLIENT_RUNS", "clients") not in _RUNS:
        raise _broken(
            name, f"CLIENT_RUNS of {where} is {module.CLIENT_RUNS!r}; must be one of {', '.join(_RUNS)}"
        )
    check_handlers(name, module.HANDLERS)
    return cast("ProtocolModule", module)


def check_handlers(name: str, handlers: Any) -> None:
    """Refuse a clients' half that is no mapping of types of message, all on the register, to handlers.

    Raises:
        PluginError: it is not.
    """
    known = set(wire.kinds())
    if not isinstance(handlers, Mapping):
        raise _broken(
            name,
            f"its HANDLERS are of type {type(handlers).__name__}; must map types of message to handlers",
        )
    for kind, handler in handlers.items():
        if not isinstance(handler, Handler):
            raise _broken(
                name, f"its HANDLERS have a {type(handler).__name__} for {_name(kind)}; must be a Handler"
            )
        for one in (kind, handler.replies):
            if one not in known:
                raise _broken(
                    name,
                    f"its HANDLERS name {_name(one)}, which is no wire.Message with a purpose of its own",
                )


def _said(error: BaseException) -> str:
    """What kind of error it is, and its first line (pydantic says where to read on in the next)."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _name(kind: Any) -> str:
    return getattr(kind, "__qualname__", repr(kind))


def _broken(name: str, why: str) -> PluginError:
    return PluginError(f"plug-in protocol {name!r} cannot be used: {why}")
