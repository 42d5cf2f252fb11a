"""Settings of hostile experts: who lies about rewards, and how (`fedsim.federation.hostile` plays them).

hostile:
  - {kind: inverted, count: 2}
  - {kind: colluding, clients: [1, 4, 5]}
  - {kind: slow, share: 0.25, delay: 1 min}

Each client has one kind at most. Who it is, where ids are not given, is drawn by the seed: clients stand in one keyed order,
and the entries take theirs from its front one after the other. So two hostile experts are among the four of the next
scenario, and every kind strikes the same clients.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedsim.config.strict import ClientIds, StrictModel
from fedsim.config.units import PositiveSeconds


class OnExperts(StrictModel):
    """Which clients are of this kind: by id, or so many of them, or a share of them."""

    kind: str = Field(description="What they do.")
    clients: ClientIds | None = Field(None, description="Ids of the clients.")
    count: int | None = Field(None, ge=0, description="How many clients, chosen by the seed (0: none).")
    share: float | None = Field(
        None, gt=0, le=1, description="Share of all clients, chosen by the seed, rounded up."
    )

    @model_validator(mode="after")
    def _whom(self) -> OnExperts:
        if sum(one is not None for one in (self.clients, self.count, self.share)) != 1:
            raise ValueError("says not who: give one of clients, e.g. [0, 3], count or share")
        return self


class RandomScores(OnExperts):
    """Rewards are drawn from [0, 1]; nothing is computed."""

    kind: Literal["random"] = Field(description="Rewards are drawn from [0, 1].")


class InvertedScores(OnExperts):
    """Each reward r becomes 1 - r."""

    kind: Literal["inverted"] = Field(description="Each reward r becomes 1 - r.")


class ConstantScores(OnExperts):
    """All rewards are the same number; nothing is computed."""

    kind: Literal["constant"] = Field(description="All rewards are one number.")
    value: float = Field(1.0, ge=0, le=1, description="That number (in [0, 1]).")


class Colluding(OnExperts):
    """All of them give 1 to one and the same answer of a question, and 0 to every other; nothing is computed."""

    kind: Literal["colluding"] = Field(
        description="All of them give 1 to the same answer of a question, chosen by the seed, and 0 to every other."
    )


class Lazy(OnExperts):
    """Sends one list of rewards, each client its own, again and again; nothing is computed."""

    kind: Literal["lazy"] = Field(description="The same list of rewards again and again, a client its own.")


class NonFiniteScores(OnExperts):
    """Every other reward is NaN, the rest infinite; nothing is computed."""

    kind: Literal["non_finite"] = Field(description="Rewards are NaN and infinity.")


class OutOfRangeScores(OnExperts):
    """Each reward leaves [0, 1]: r becomes 1 + factor (1 + r)."""

    kind: Literal["out_of_range"] = Field(description="Each reward r becomes 1 + factor (1 + r).")
    factor: float = Field(10.0, gt=0, description="How far outside.")


class SlowOnPurpose(OnExperts):
    """True rewards, held back before they are sent."""

    kind: Literal["slow"] = Field(description="True rewards, held back before they are sent.")
    delay: PositiveSeconds = Field(60.0, description="How long, seconds.")


class CompetenceLiar(OnExperts):
    """Claims to answer every exemplar rightly, and scores badly."""

    kind: Literal["liar"] = Field(description="Claims every exemplar when probed, and scores badly.")
    scores: Literal["inverted", "random"] = Field("inverted", description="How it scores.")


class Excluded(OnExperts):
    """No attack but its oracle: the clients that another kind would have struck take no part."""

    kind: Literal["excluded"] = Field(
        description="The oracle: the clients that another kind would strike take no part in the run."
    )


HostileConfig = Annotated[
    RandomScores
    | InvertedScores
    | ConstantScores
    | Colluding
    | Lazy
    | NonFiniteScores
    | OutOfRangeScores
    | SlowOnPurpose
    | CompetenceLiar
    | Excluded,
    Field(discriminator="kind"),
]
