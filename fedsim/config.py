"""The base of every settings model: strict, frozen, closed to unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Settings as they came from outside: no unknown key, no silent conversion, never changed afterwards.

    Each room defines the settings it reads beside the code that reads them; ``scenario.py`` composes them.
    Every field carries ``Field(description=...)`` with its unit; ``fedsim schema`` and the docs print them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
