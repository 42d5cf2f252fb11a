"""The base of every settings model: strict, frozen, closed to unknown keys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fedsim.config.limits import MAX_SEED

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_KEY_PATH = re.compile(r"[^\s=.]+(?:\.[^\s=.]+)*")


def plain_name(name: str) -> str:
    """The name, if it can be that of a folder anywhere.

    Raises:
        ValueError: it has other characters (a path's separators among them), or too many.
    """
    if _NAME.fullmatch(name) is None:
        allowed = "1 to 64 of a-z, 0-9, '.', '-' and '_', and start with a letter or digit"
        raise ValueError(f"{name!r} must be {allowed}")
    return name


def key_path(key: str) -> str:
    """The key, if it has the form of one.

    Raises:
        ValueError: it is not words with dots between them.
    """
    if _KEY_PATH.fullmatch(key) is None:
        raise ValueError(f"{key!r} must look like path.to.key")
    return key


def _client_ids(ids: tuple[int, ...]) -> tuple[int, ...]:
    if not ids or min(ids) < 0 or len(set(ids)) < len(ids):
        raise ValueError("must be a list of different client ids, 0 or more each, e.g. [0, 3]")
    return ids


ClientIds = Annotated[tuple[int, ...], AfterValidator(_client_ids)]
PlainName = Annotated[str, AfterValidator(plain_name)]
KeyPath = Annotated[str, AfterValidator(key_path)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]

SHORTEST_CYCLE_S = 1.0
"""What comes and goes by itself does so at most once a second on average: the records have a row for each time."""


def refuse_flicker(cycle_s: float, what: str) -> None:
    """Refuse what would come and go so often that a day of it holds millions of rows.

    Args:
        cycle_s: mean time from one beginning to the next, seconds.
        what: the keys whose sum that is, for the message.

    Raises:
        ValueError: the cycle is shorter than `SHORTEST_CYCLE_S`.
    """
    if cycle_s < SHORTEST_CYCLE_S:
        raise ValueError(f"{what} come to {cycle_s:g} s together; must be at least {SHORTEST_CYCLE_S:g} s")


@dataclass(frozen=True, slots=True)
class AtMostClients:
    """Marks a count, in any settings, that cannot be more than there are clients: a run that asks for more is refused.

    Attributes:
        key: the key beside it that says whether it is read; empty where it always is.
        values: under which values of that key it is.
    """

    key: str = ""
    values: tuple[str, ...] = ()

    def is_read(self, settings: BaseModel) -> bool:
        """Whether the count matters in these settings."""
        return not self.key or getattr(settings, self.key) in self.values


class SettingError(ValueError):
    """What the validator of a whole model raises to name the key below it that is to blame: the message gives its line.

    Args:
        message: what is wrong.
        key: the key's path from the model whose validator raises.
    """

    def __init__(self, message: str, *key: str | int) -> None:
        super().__init__(message)
        self.key = key


class StrictModel(BaseModel):
    """Settings as they came from outside: no unknown key, no silent conversion, never changed afterwards.

    Each package defines the settings it reads beside the code that reads them; ``scenario/schema.py`` composes them.
    Every field carries ``Field(description=...)`` with its unit; ``fedsim schema`` and the docs print them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)

    @classmethod
    def defaults(cls) -> Self:
        """The same as ``cls()``, where every key has a default; only that it needs no validator, which takes long to build."""
        return cast("Self", cls.model_construct())
