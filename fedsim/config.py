"""The base of every settings model: strict, frozen, closed to unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


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

    Each room defines the settings it reads beside the code that reads them; ``scenario.py`` composes them.
    Every field carries ``Field(description=...)`` with its unit; ``fedsim schema`` and the docs print them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
