"""Settings of the data: which domains, how many questions, whose rows, what is wrong in the public corpus."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import Field, JsonValue, field_validator, model_validator

from fedsim.config.strict import AtMostClients, StrictModel
from fedsim.tasks import worked
from fedsim.tasks.matching import AnswerRule, Match, check_pattern

QUICK_DOMAINS = ("chain_sum", "products", "gcd", "simple_equations", "spell_backward")

RowKey = Literal["question", "answer", "domain", "client", "split", "fact", "solution"]
ROW_KEYS: tuple[RowKey, ...] = get_args(RowKey)
"""What a row of an own file may hold."""

SPLITS = ("public", "private", "auxiliary", "pool", "validation", "test", "format")
"""In the order in which questions are cut into them; what a file calls by another name is an extra set to look at."""

_LOOK = re.compile(r"[a-z][a-z0-9_]{0,31}")

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]


def look_name(name: str) -> str:
    """The name, if a split of an own file may have it: ours, or that of an extra set of questions.

    Raises:
        ValueError: it is no lower-case identifier.
    """
    if _LOOK.fullmatch(name) is None:
        raise ValueError(
            f"must be one of {', '.join(SPLITS)}, or the name of an extra set: 1 to 32 of a-z, 0-9 and _, with a letter first"
        )
    return name


class SizesConfig(StrictModel):
    """How many questions each split holds, over all domains; every domain gets an equal part.

    The splits never share a question. Remainders go to the domains named first.
    """

    public: Count = Field(4000, description="rows of the server's pre-training corpus [questions]")
    private: Count = Field(6000, description="rows dealt to the clients, all together [questions]")
    private_per_client: Count | None = Field(
        None, description="rows per client on average [questions]; replaces `private`"
    )
    auxiliary: int = Field(
        100, ge=1, le=100_000, description="size of Dp, labelled exemplars at the server [questions]"
    )
    pool: int = Field(
        4000, ge=1, le=10_000_000, description="size of Ds, unlabelled questions to learn from [questions]"
    )
    validation: int = Field(
        500, ge=1, le=1_000_000, description="questions on which settings are chosen [questions]"
    )
    test: int = Field(2000, ge=1, le=1_000_000, description="questions that are only reported [questions]")

    format: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0, description="labelled rows, none of them in Dp, that show how an answer is written [questions]"
    )

    def num_private(self, num_clients: int) -> int:
        """Private rows over all clients [questions]."""
        return self.private if self.private_per_client is None else self.private_per_client * num_clients


class PublicErrorsConfig(StrictModel):
    """What is wrong in the public corpus.

    With ``by: operand_class`` a seeded half of each domain's operand classes is wrong with probability
    ``rate + spread`` and the other half with ``rate - spread``: which answers are wrong depends on the
    question.
    """

    rate: Share = Field(0.5, description="share of wrong public answers [0 to 1]")
    by: Literal["operand_class", "uniform"] = Field(
        "operand_class",
        description="what wrongness depends on: `operand_class` (first operand or initial) or `uniform` (nothing)",
    )
    spread: Share | None = Field(
        None,
        description="how far the wrong half's rate lies above `rate` and the right half's below "
        "[0 to min(rate, 1 - rate)]; default 0.4, or less where `rate` leaves no room",
    )
    kind: Literal["auto", "off_by_one", "reversed", "shuffled"] = Field(
        "auto",
        description="the mistake: `off_by_one` (last integer plus one; of worked solutions in a step), `reversed` "
        "(answer backward), `shuffled` (another row's answer: noise), `auto` (off by one where the answer holds a digit, "
        "else reversed)",
    )

    @model_validator(mode="after")
    def _spread_fits(self) -> PublicErrorsConfig:
        if self.spread is not None and self.spread > min(self.rate, 1 - self.rate) + 1e-12:
            raise ValueError(
                f"spread is {self.spread}; must be at most min(rate, 1 - rate), here "
                f"{min(self.rate, 1 - self.rate):g}"
            )
        return self

    def class_rates(self) -> tuple[float, float]:
        """The share of wrong answers in the mostly wrong and in the mostly right half of the classes."""
        if self.by == "uniform":
            return self.rate, self.rate
        spread = min(0.4, self.rate, 1 - self.rate) if self.spread is None else self.spread
        return min(1.0, self.rate + spread), max(0.0, self.rate - spread)


class PartitionConfig(StrictModel):
    """How private rows are dealt to the clients."""

    kind: Literal["iid", "dirichlet", "shared"] = Field(
        "dirichlet",
        description="`iid`: equal shares of every domain; `dirichlet`: skewed shares; `shared`: every row of a domain "
        "lies at each of its `holders`",
    )
    over: Literal["clients", "domains"] = Field(
        "clients",
        description="dirichlet only: `clients` deals each domain over clients by Dir(beta), `domains` gives each "
        "client its own mix of domains",
    )
    beta: float = Field(
        0.1, ge=1e-6, le=1e6, description="dirichlet concentration [no unit]; small is skewed"
    )
    holders: Annotated[int, AtMostClients("kind", ("shared",))] = Field(
        4, ge=1, description="shared only: clients that hold a domain, all of its rows each"
    )


class AnswersConfig(StrictModel):
    """Trusted answers that clients own for pool questions; they make answer-based evaluation (AE) happen."""

    coverage: Share = Field(
        0.0, description="share of pool questions with a trusted answer at one client [0 to 1]"
    )
    noise: Share = Field(0.0, description="share of trusted answers that are wrong [0 to 1]")


class TasksConfig(StrictModel):
    """The data of one federation: generated domains, or the user's own question file."""

    domains: tuple[str, ...] | dict[str, dict[str, JsonValue]] = Field(
        QUICK_DOMAINS,
        description="names of domains (any reasoning_gym data set), or {name: {generator option: value}}",
    )
    file: str | None = Field(
        None,
        description="own questions instead of domains: a file (JSON lines, JSON list, CSV, Parquet) or the folder of a "
        "Hugging Face data set (docs/questions.md)",
    )
    keys: dict[RowKey, Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        None,
        description="what an own file calls our keys, e.g. {question: problem, answer: solution}; dots go into what is "
        "nested (messages.0.content); default: as we do",
    )
    splits: dict[str, str | None] = Field(
        {},
        description="which split of ours a split of an own file or folder is, e.g. {train: pool, dev: validation}; "
        "null: its rows are cut by sizes",
    )
    sizes: SizesConfig = Field(SizesConfig.defaults(), description="questions per split")
    public_errors: PublicErrorsConfig | None = Field(
        None,
        description="errors in the public corpus; default: half wrong by operand class in generated domains, none in "
        "an own file",
    )
    partition: PartitionConfig = Field(PartitionConfig.defaults(), description="how private rows are dealt")
    answers: AnswersConfig = Field(AnswersConfig.defaults(), description="trusted answers at clients")
    prompt_template: str = Field(
        "{question}", max_length=4000, description="prompt text around a question; must hold {question} once"
    )
    answer_pattern: str | None = Field(
        None,
        description="regular expression whose last match (or its one group) in a model's text is the answer (see "
        "fedsim.tasks.matching); default: the whole text, of worked solutions the number after ####",
    )
    match: Match = Field(
        "exact",
        description="how answers are compared: `exact` text, `numeric` value (1/2 = 0.50), `caseless` text (case, "
        "blanks and a final full stop do not count) or `normalized` as by SQuAD (nor do punctuation and articles)",
    )

    answer_prefix: str = Field(
        "",
        max_length=100,
        description="text that every answer begins with, such as a blank: put before answers that are taught or scored",
    )
    stop: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(
        (),
        max_length=16,
        description="texts that end a sampled answer, as the end token does, e.g. a line break",
    )

    @field_validator("domains")
    @classmethod
    def _some_domains(
        cls, value: tuple[str, ...] | dict[str, dict[str, JsonValue]]
    ) -> tuple[str, ...] | dict[str, dict[str, JsonValue]]:
        if not value:
            raise ValueError("domains is empty; name at least one, e.g. [gcd]")
        if len(set(value)) != len(value):
            raise ValueError("domains holds a name twice")
        return value

    @field_validator("splits")
    @classmethod
    def _splits_of_ours(cls, value: dict[str, str | None]) -> dict[str, str | None]:
        for name, ours in value.items():
            if ours is not None:
                try:
                    look_name(ours)
                except ValueError as error:
                    raise ValueError(f"splits maps {name!r} to {ours!r}; {error}") from None
        return value

    @model_validator(mode="after")
    def _keys_of_a_file(self) -> TasksConfig:
        for name in ("keys", "splits"):
            if getattr(self, name) and self.file is None:
                raise ValueError(f"{name} says how an own file is read; give file too, or leave it out")
        return self

    @field_validator("prompt_template")
    @classmethod
    def _one_question(cls, value: str) -> str:
        if value.count("{question}") != 1:
            raise ValueError("prompt_template must hold {question} exactly once")
        return value

    @field_validator("answer_pattern")
    @classmethod
    def _safe_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            check_pattern(value)
        return value

    @model_validator(mode="after")
    def _stops_end_answers(self) -> TasksConfig:
        if len(set(self.stop)) < len(self.stop):
            raise ValueError("stop holds a text twice")
        for stop in self.stop:
            if stop in self.answer_prefix:
                raise ValueError(f"answer_prefix holds the stop text {stop!r}, which would end every answer")
        return self

    @model_validator(mode="after")
    def _worked_answers_can_be_read(self) -> TasksConfig:
        plain = [name for name in self.options if not worked.is_worked(name)]
        steps = [name for name in self.options if worked.is_worked(name)]
        if self.file is not None or not steps:
            return self
        if plain and self.answer_pattern is None:
            raise ValueError(
                f"domain {steps[0]} writes steps before its answer and {plain[0]} does not; give an answer_pattern that finds "
                "both, e.g. '(-?[0-9]+)'"
            )
        for name in steps:
            example = worked.example(name)
            if not self.answer_rule.right(example.text, example.answer):
                raise ValueError(
                    f"answer_pattern does not find the answer in {name}, e.g. in {example.text!r}; leave it out, or use "
                    f"{worked.ANSWER_PATTERN!r}"
                )
        if self.errors.kind == "reversed":
            raise ValueError(
                f"public_errors.kind reversed has no meaning in the steps of {steps[0]}; use off_by_one or shuffled"
            )
        return self

    @property
    def answer_rule(self) -> AnswerRule:
        """How answers are read and compared, the default resolved."""
        pattern = self.answer_pattern
        if pattern is None and self.file is None and all(map(worked.is_worked, self.options)):
            pattern = worked.ANSWER_PATTERN
        return AnswerRule(self.match, pattern)

    @property
    def options(self) -> dict[str, dict[str, JsonValue]]:
        """Domain name to the generator options given for it, in the order written."""
        return dict(self.domains) if isinstance(self.domains, dict) else {name: {} for name in self.domains}

    @property
    def errors(self) -> PublicErrorsConfig:
        """The public errors in force, the default resolved."""
        if self.public_errors is not None:
            return self.public_errors
        return PublicErrorsConfig() if self.file is None else PublicErrorsConfig(rate=0.0)

    def num_private(self, num_clients: int) -> int:
        """Private rows over all clients [questions]."""
        return self.sizes.num_private(num_clients)
