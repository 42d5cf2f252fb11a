"""Settings of the straggler policies, and which of them can never work.

What a policy needs stands in one table; a key that the chosen policy does not read is refused rather than ignored. A quorum
above the cohort, or spare clients where everybody is asked already, are refused before the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from fedsim.config.strict import SettingError, StrictModel
from fedsim.config.units import PositiveSeconds, Seconds, format_seconds
from fedsim.errors import ScenarioError

Policy = Literal["wait_all", "deadline", "quorum", "over_select", "hedged", "replace", "adaptive"]

_KEYS: Mapping[str, Mapping[str, Any]] = {
    "quorum": {"quorum": None, "grace": "0 s"},
    "over_select": {"extra": None},
    "hedged": {"hedge_after": None},
    "replace": {"replacements": 1},
    "adaptive": {"quantile": 0.9, "factor": 1.5, "warm_up": 20, "history": 1000},
}
"""The keys that only one policy reads, with their defaults; None where the scenario has to say."""

_USES_SPARES = ("over_select", "hedged", "replace")


class StragglerConfig(StrictModel):
    """How the server treats slow and lost clients."""

    policy: Policy = Field(
        "wait_all",
        description="wait_all: until every asked client has answered or failed; deadline: until then or the deadline; "
        "quorum: until enough have answered, and a grace; over_select: ask more, take the first; hedged: ask a spare for "
        "each that is silent or lost; replace: ask the next in line for each that is lost; adaptive: a deadline learned "
        "from reply times",
    )
    deadline: PositiveSeconds | None = Field(
        None,
        description="how long a group waits for its replies; needed by policy deadline, an upper limit of every other "
        "one but wait_all",
    )
    on_deadline: Literal["abandon", "cancel"] = Field(
        "abandon",
        description="what becomes of a device that nobody waits for any more; abandon: it goes on and its reply comes "
        "late; cancel: it is told to stop",
    )
    missing: Literal["mask", "zero", "drop_group"] = Field(
        "mask",
        description="a reward that did not come: mask it, count it as zero (the released code's bias), or drop the "
        "whole group",
    )
    quorum: int | None = Field(None, ge=1, description="policy quorum: so many replies suffice (count)")
    grace: Seconds | None = Field(
        None, description="policy quorum: wait so long for the others once there are enough (0 s)"
    )
    extra: int | None = Field(
        None, ge=1, description="policy over_select: so many more clients are asked than needed (count)"
    )
    hedge_after: PositiveSeconds | None = Field(
        None, description="policy hedged: a client silent for so long gets a spare beside it"
    )
    replacements: int | None = Field(
        None, ge=1, description="policy replace: most lost clients of one group that are replaced (count; 1)"
    )
    quantile: float | None = Field(
        None, gt=0, lt=1, description="policy adaptive: share of the known reply times (0.9) ..."
    )
    factor: float | None = Field(
        None, ge=1, description="... and what their quantile is multiplied by to get the deadline (1.5)"
    )
    warm_up: int | None = Field(
        None, ge=1, description="policy adaptive: reply times known before it sets a deadline (count; 20)"
    )
    history: int | None = Field(
        None, ge=1, description="policy adaptive: reply times remembered, the latest (count; 1000)"
    )
    partial: bool = Field(
        False,
        description="at the deadline ask for the candidates scored so far; what was not scored is missing",
    )
    partial_grace: PositiveSeconds | None = Field(
        None, description="with partial: wait so long for them after the deadline"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_the_policys_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        defaults = _KEYS.get(str(given.get("policy")), {})
        return given | {key: value for key, value in defaults.items() if given.get(key) is None}

    @model_validator(mode="after")
    def _keys_belong_to_the_policy(self) -> StragglerConfig:
        for policy, keys in _KEYS.items():
            for key in keys:
                if policy == self.policy and getattr(self, key) is None:
                    raise ValueError(f"policy {policy} needs {key}: {_description(key)}")
                if policy != self.policy and getattr(self, key) is not None:
                    raise ValueError(
                        f"{key} belongs to policy {policy}; policy {self.policy} does not read it"
                    )
        return self

    @model_validator(mode="after")
    def _deadlines_fit(self) -> StragglerConfig:
        if self.policy == "deadline" and self.deadline is None:
            raise ValueError("policy deadline needs a deadline, e.g. deadline: 30 s")
        if self.policy == "wait_all" and self.deadline is not None:
            raise ValueError("policy wait_all takes no deadline; policy deadline does")
        if self.hedge_after is not None and self.deadline is not None and self.hedge_after >= self.deadline:
            raise ValueError(
                f"hedge_after is {format_seconds(self.hedge_after)}, but the deadline ends the wait after "
                f"{format_seconds(self.deadline)}: no silent client would ever get a spare"
            )
        if self.warm_up is not None and self.history is not None and self.warm_up > self.history:
            raise ValueError(f"warm_up is {self.warm_up}, but only {self.history} reply times are remembered")
        return self

    @model_validator(mode="after")
    def _partial_has_its_deadline(self) -> StragglerConfig:
        if self.partial and self.deadline is None and self.policy != "adaptive":
            raise ValueError("partial asks for what is there at the deadline; give a deadline")
        if self.partial != (self.partial_grace is not None):
            raise ValueError(
                "partial: true and partial_grace belong together: how long to wait for what is there"
            )
        return self

    @property
    def without_spares(self) -> StragglerConfig:
        """The same patience for a message to everybody: its deadline alone, where nobody is spare and no number suffices."""
        policy: Policy = self.policy
        if policy not in ("wait_all", "deadline", "adaptive"):
            policy = "wait_all" if self.deadline is None else "deadline"
        return self.model_copy(update={"policy": policy, "partial": False})


def refuse_impossible(config: StragglerConfig, cohort: int | None, key: str) -> None:
    """Refuse a policy that cannot work whatever the federation is; for the validator of a protocol's settings.

    Args:
        config: the policy.
        cohort: how many clients are asked for one result; None for everybody there is.
        key: the setting that says so, for the message.

    Raises:
        SettingError: more replies suffice than clients are asked, or spares are needed where everybody is asked.
    """
    if cohort is not None and config.quorum is not None and config.quorum > cohort:
        raise SettingError(
            f"stragglers.quorum is {config.quorum}, but {key} asks {cohort} clients; must be at most {cohort}",
            *("stragglers", "quorum"),
        )
    if cohort is None and config.policy in _USES_SPARES:
        raise SettingError(
            f"stragglers.policy {config.policy} needs clients that were not asked yet, but {key} asks everybody",
            *("stragglers", "policy"),
        )


def refuse_rules_for_rewards(config: StragglerConfig, reply: str) -> None:
    """Refuse what only rewards can do; for the validator of a protocol whose clients send something else.

    Args:
        config: the policy.
        reply: what a client sends, for the message: ``an answer``.

    Raises:
        SettingError: ``missing`` says what a missing reward counts, or ``partial`` asks for the rewards that are there.
    """
    if config.missing != "mask":
        raise SettingError(
            f"stragglers.missing must be mask: {reply} that did not come is left out; {config.missing} is for rewards",
            *("stragglers", "missing"),
        )
    if config.partial:
        raise SettingError(
            f"stragglers.partial is for rewards: {reply} has no part that is done before it is",
            *("stragglers", "partial"),
        )


def refuse_shortage(config: StragglerConfig, cohort: int | None, num_clients: int) -> None:
    """Refuse a policy for which a run's clients are too few.

    Raises:
        ScenarioError: more replies suffice than clients are asked, or nobody is left to be a spare.
    """
    wanted = num_clients if cohort is None else min(cohort, num_clients)
    if config.quorum is not None and config.quorum > wanted:
        raise ScenarioError(
            f"protocol.stragglers.quorum is {config.quorum}, but {wanted} clients are asked; must be at most {wanted}"
        ).at("protocol", "stragglers", "quorum")
    if config.policy not in _USES_SPARES:
        return
    spares = config.extra or 1
    if wanted + spares > num_clients:
        raise ScenarioError(
            f"protocol.stragglers.policy {config.policy} asks {wanted} clients and {spares} more, but there are "
            f"{num_clients}; give more clients, or ask fewer"
        ).at("protocol", "stragglers", "policy" if config.extra is None else "extra")


def _description(key: str) -> str:
    return str(StragglerConfig.model_fields[key].description).split(": ", 1)[-1]
