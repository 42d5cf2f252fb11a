"""What a finished run gave away, measured by attacks on it: who was in the training data, and which private answers.

``measure(folder)`` builds the run's models and data again (from the cache), plays the server against its clients, and writes
``leakage.json`` into the folder. Attacks, by what travels:

* ``rewards``: is there a trusted answer? Scores of the run itself (*honest* server), with the evaluator *shown* (AE or ME: its
  speed tells it anyway) or *hidden* (how binary the scores look). Was a row in the model's training set? A *choosing* server
  sends the row's question with its true answer G times and takes the mean reward (as it is, or less what its own model gives:
  calibrated); an honest one never sees such a row scored and compares its final policy with the initial one;
* ``adapters``: every client's first upload is trained again, a pure function: the gain in log-likelihood of a row by that
  upload;
* ``synthetic``: how like the most alike synthetic row is (character trigrams);
* ``answers``: the share of trusted answers disclosed: by the run's own rewards of 1 or by text (honest), and by asking about
  each answer once with G candidates of the server's policy (choosing); the share that the same candidates tell without
  rewards stands beside it, for an answer that everybody gives is not disclosed.

Members are rows of one client; the others are validation and test questions of the same domains in the same numbers, on which
nobody trained. Clients are pooled. Attacks are simple ones: what they find is there, what they do not find may be. Hostile
clients are left out, and so are shadow models, several rounds of one client, and gradients inverted into text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedsim import protocols
from fedsim.errors import RunFolderError, ScenarioError
from fedsim.experiment.build import client_states
from fedsim.experiment.checks import check_files
from fedsim.experiment.components import load_components
from fedsim.experiment.prepared import Prepared
from fedsim.models.interfaces import CandidateGroup, Components, Draw, Evaluator
from fedsim.privacy.membership import (
    Estimate,
    Membership,
    answer_likeness,
    likeness,
    membership,
    share,
)
from fedsim.progress import Progress, SilentProgress
from fedsim.protocols.shared.state import ClientState
from fedsim.protocols.shared.weights_on_the_wire import packed, unpacked
from fedsim.records.run_folder import MANIFEST, write_json
from fedsim.sim import streams
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule
from fedsim.tasks.questions import Question

if TYPE_CHECKING:
    from fedsim.records.run import Run
    from fedsim.scenario.schema import Scenario

LEAKAGE = "leakage.json"
ROWS_PER_CLIENT = 200
_FIRST_DRAW = 2**40  # draws of the attacks: none of the run's own

Source = Literal["rewards", "adapters", "synthetic", "policy"]
Server = Literal["honest", "choosing"]


@dataclass(frozen=True, slots=True)
class Attack:
    """One membership attack on a run: what it reads, at which server, what it asks, and how well it did (None: nothing)."""

    source: Source
    server: Server
    target: str
    how: str
    result: Membership | None


@dataclass(frozen=True, slots=True)
class Disclosure:
    """Share of trusted answers that a server knows, and that it knew without the clients' replies."""

    server: Server
    how: str
    num_answers: int
    share: Estimate | None
    known_before: Estimate | None


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row of which an attack asks whether it was in a client's training data."""

    client_id: int
    row: Question
    is_member: bool


def measure(
    folder: Path | str,
    *,
    cache_dir: Path | str | None = None,
    rows_per_client: int = ROWS_PER_CLIENT,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Attack a finished run with real models, write ``leakage.json`` and return it.

    Args:
        folder: the run's folder.
        cache_dir: where trained models are kept.
        rows_per_client: most rows of a client that are attacked, and as many others.
        progress: where progress is shown; default nowhere.

    Raises:
        RunFolderError: no finished run with real models, or one of a protocol whose clients send nothing.
        InputError: its scenario names something that cannot be used any more.
    """
    from fedsim.records.run import load
    from fedsim.scenario.read import scenario_from

    run = load(folder)
    if run.manifest["status"] != "finished":
        raise RunFolderError(f"{folder} is {run.manifest['status']}; leakage is measured on a finished run")
    try:
        scenario = scenario_from(run.manifest.get("scenario"), Path(folder))  # type: ignore[arg-type]
    except ScenarioError as error:
        raise RunFolderError(f"{Path(folder) / MANIFEST}: {error}") from None
    if scenario.fidelity != "real":
        raise RunFolderError(f"{folder} ran on token counts (fidelity timing): there is nothing to attack")
    check_files(scenario)
    shown = progress or SilentProgress()
    components = load_components(Prepared(scenario, cache_dir), shown)
    rows = list(suspects(components, scenario.seed, rows_per_client))
    attacks, disclosures = _attacks(run, scenario, components, rows)
    if not attacks:
        raise RunFolderError(
            f"{folder} is of protocol {scenario.protocol.name}, whose clients send nothing that is attacked here"
        )
    report = {
        "protocol": scenario.protocol.name,
        "seed": scenario.seed,
        "rows_per_client": rows_per_client,
        "attacks": [asdict(attack) for attack in attacks],
        "disclosures": [asdict(disclosure) for disclosure in disclosures],
    }
    write_json(Path(folder) / LEAKAGE, report)
    return report


def suspects(components: Components, seed: int, rows_per_client: int) -> Iterator[Suspect]:
    """Rows of every client, and as many questions of the same domains on which nobody trained."""
    unseen = [*components.data.validation, *components.data.test]
    for client_id, own in enumerate(components.data.private):
        taken = _sample(own, rows_per_client, seed, "members", client_id)
        for domain in components.data.domains:
            members = [row for row in taken if row.domain == domain]
            strangers = [row for row in unseen if row.domain == domain]
            others = _sample(strangers, len(members), seed, "others", client_id, domain)
            # As many of both: a client's domains must not tell its members from the others.
            yield from (Suspect(client_id, row, True) for row in members[: len(others)])
            yield from (Suspect(client_id, row, False) for row in others)


def _attacks(
    run: Run, scenario: Scenario, components: Components, rows: Sequence[Suspect]
) -> tuple[list[Attack], list[Disclosure]]:
    settings, seed = scenario.protocol, scenario.seed
    attacks: list[Attack] = []
    disclosures: list[Disclosure] = []
    if settings.name == "fedgrpo":
        states = client_states(scenario, components)  # with fresh noise
        if settings.wire == "scores_up":
            attacks += _by_recorded_rewards(run, components, seed)
        attacks += _by_asking(scenario, components, states, rows)
        disclosures += _disclosed(run, scenario, components, states)
    if settings.name == "fedpetuning":
        attacks.append(_by_adapters(scenario, components, rows))
    if settings.name == "dpsda_fl":
        attacks.append(_by_synthetic_rows(scenario, components, rows))
    if attacks and settings.name != "fedpetuning":
        attacks.append(_by_final_policy(run, components, rows, seed))
    return attacks, disclosures


# ------------------------------------------------------------------------------------------------------- rewards


def _by_recorded_rewards(run: Run, components: Components, seed: int) -> list[Attack]:
    """Whether a client owns a trusted answer, from the rewards that the run brought."""
    hidden: dict[bool, list[float]] = {True: [], False: []}
    shown: dict[bool, list[float]] = {True: [], False: []}
    seen: set[tuple[int, int]] = set()
    for row in run.rewards.iter_rows(named=True):
        pair = (row["client_id"], row["question_id"])
        if pair in seen or not 0 <= pair[0] < len(components.data.trusted):
            continue
        seen.add(pair)
        owns = pair[1] in components.data.trusted[pair[0]]
        hidden[owns].append(answer_likeness(row["rewards"]))
        shown[owns].append(float(row["evaluator"] == "AE"))
    return [
        Attack("rewards", "honest", "trusted answer", how, membership(scores[True], scores[False], seed, how))
        for how, scores in (("evaluator hidden", hidden), ("evaluator shown", shown))
    ]


def _by_asking(
    scenario: Scenario, components: Components, states: Sequence[ClientState], rows: Sequence[Suspect]
) -> list[Attack]:
    """Whether a row was trained on, by sending its question with its true answer."""
    raw: list[float] = []
    handlers = protocols.handlers(scenario.protocol)
    copies = scenario.protocol.group_size
    before = _log_likelihoods(components.frozen, rows)
    for suspect in rows:
        states[suspect.client_id].evaluator.expect(suspect.row.text, [suspect.row.taught])
        states[suspect.client_id].evaluator.expect_answer(suspect.row.text)
    for place, suspect in enumerate(rows):
        client, draw = states[suspect.client_id], wire.pack_id(_FIRST_DRAW + place)
        if scenario.protocol.wire == "scores_up":
            asked = wire.Candidates(draw, suspect.row.text, (suspect.row.taught,) * copies)
            said = handlers[wire.Candidates].run(client, asked).message
            assert isinstance(said, wire.Rewards)
            score = sum(said.rewards) / copies
        else:
            said = handlers[wire.QuestionOnly].run(client, wire.QuestionOnly(draw, suspect.row.text)).message
            assert isinstance(said, wire.FinalAnswer)
            score = float(components.data.answers.right(said.answer, suspect.row.answers))
        raw.append(score)
    calibrated = [score - math.exp(own) for score, own in zip(raw, before, strict=True)]
    return [
        Attack("rewards", "choosing", "training row", how, _told(rows, scores, scenario.seed, how))
        for how, scores in (("mean reward", raw), ("mean reward, calibrated", calibrated))
    ]


def _by_final_policy(run: Run, components: Components, rows: Sequence[Suspect], seed: int) -> Attack:
    """Whether a row was trained on, from how much likelier the run made it."""
    from fedsim.models.real.evaluator import ModelEvaluator
    from fedsim.models.real.language import LanguageModel
    from fedsim.models.real.zoo import load_folder

    network, tokenizer = load_folder(run.folder / "policy")
    live: Any = components.policy
    final = ModelEvaluator(
        LanguageModel(network, tokenizer, live.language.shapes), live.config.max_new_tokens
    )
    gained = _gains(_log_likelihoods(final, rows), _log_likelihoods(components.frozen, rows))
    how = "final policy against the initial one"
    return Attack("policy", "honest", "training row", how, _told(rows, gained, seed, how))


# --------------------------------------------------------------------------------------- adapters, synthetic rows


def _by_adapters(scenario: Scenario, components: Components, rows: Sequence[Suspect]) -> Attack:
    """Whether a row was trained on, from the client's first upload."""
    from fedsim.models.real.evaluator import ModelEvaluator

    trainer, live, settings = components.trainer, components.policy, scenario.protocol
    assert trainer is not None
    as_sent = packed(trainer.start(), settings.number_type)
    start = unpacked(as_sent, settings.number_type)

    def gains(client_id: int, own: Sequence[Suspect]) -> list[float]:
        update = trainer.tune(client_id, 0, start, components.data.private[client_id])
        language: Any = live
        after = []
        for weights in (update.weights, start):
            trainer.install(unpacked(packed(weights, settings.number_type), settings.number_type))
            scorer = ModelEvaluator(language.language, settings.max_new_tokens)
            after.append(_log_likelihoods(scorer, own))
        return _gains(*after)

    gained: list[float] = []
    ordered: list[Suspect] = []
    for client_id in sorted({suspect.client_id for suspect in rows}):
        own = [suspect for suspect in rows if suspect.client_id == client_id]
        ordered += own
        gained += gains(client_id, own)
    how = "gain in log-likelihood by the first upload"
    return Attack("adapters", "honest", "training row", how, _told(ordered, gained, scenario.seed, how))


def _by_synthetic_rows(scenario: Scenario, components: Components, rows: Sequence[Suspect]) -> Attack:
    """Whether a row stood behind the client's synthetic rows."""
    synthesiser, settings = components.synthesiser, scenario.protocol.synthesis
    assert synthesiser is not None
    made: dict[int, tuple[tuple[str, str], ...]] = {}
    for client_id, own in enumerate(components.data.private):
        count = settings.num_rows(len(own))
        made[client_id] = synthesiser.synthesise(client_id, own, count).rows if count else ()
    alike = [
        likeness((one.row.text, one.row.taught), made[one.client_id]) for one in rows if made[one.client_id]
    ]
    told = [one for one in rows if made[one.client_id]]
    how = "likeness to the most alike synthetic row"
    return Attack("synthetic", "honest", "training row", how, _told(told, alike, scenario.seed, how))


# ------------------------------------------------------------------------------------------------ private answers


def _disclosed(
    run: Run, scenario: Scenario, components: Components, states: Sequence[ClientState]
) -> list[Disclosure]:
    """The share of trusted answers that a server knows."""
    owned = [(k, number) for k, answers in enumerate(components.data.trusted) for number in answers]
    if not owned:
        return []
    by_text, noise = scenario.protocol.wire == "answers_up", getattr(scenario.protocol, "reward_noise", None)
    seed, found = scenario.seed, []
    if by_text:
        arrived = run.outcomes.filter(
            (run.outcomes["purpose"] == "question") & (run.outcomes["phase"] == "done")
        )
        sent = set(zip(arrived["client_id"].to_list(), arrived["question_id"].to_list(), strict=True))
        told = share([pair in sent for pair in owned], seed, "told")
        found.append(Disclosure("honest", "sent as text in the run", len(owned), told, None))
    elif noise is None:
        ones = {
            (row["client_id"], row["question_id"])
            for row in run.rewards.iter_rows(named=True)
            if row["evaluator"] == "AE" and 1.0 in row["rewards"]
        }
        told = share([pair in ones for pair in owned], seed, "told")
        found.append(Disclosure("honest", "a candidate with reward 1 in the run", len(owned), told, None))
    question_of = {question.question_id: question for question in components.data.pool}
    draws = [Draw(_FIRST_DRAW + place, question_of[number]) for place, (_, number) in enumerate(owned)]
    groups = components.policy.sample(draws)
    components.policy.forget([draw.index for draw in draws])
    handlers, rule = protocols.handlers(scenario.protocol), components.data.answers
    knows, knew = [], []
    for (client_id, number), group in zip(owned, groups, strict=True):
        truth, client = components.data.trusted[client_id][number], states[client_id]
        kind = wire.QuestionOnly if by_text else wire.Candidates
        said = handlers[kind].run(client, _message(group, by_text)).message
        if isinstance(said, wire.FinalAnswer):
            knows.append(rule.right(said.answer, truth))
        else:
            assert isinstance(said, wire.Rewards)
            knows.append(rule.right(best_candidate(group.texts, said.rewards, rule), truth))
        knew.append(rule.right(best_candidate(group.texts, [1.0] * len(group.texts), rule), truth))
    how = "asked once about each"
    return [
        *found,
        Disclosure("choosing", how, len(owned), share(knows, seed, "knows"), share(knew, seed, "knew")),
    ]


def best_candidate(texts: Sequence[str], rewards: Sequence[float], rule: AnswerRule) -> str:
    """A text with the answer whose mean reward is highest, of several the most frequent, then the first.

    >>> best_candidate(["7", "8", "8"], [0.5, 1.0, 0.5], AnswerRule())
    '8'
    >>> best_candidate(["7", "8", "8.0"], [1.0, 1.0, 1.0], AnswerRule("numeric"))
    '8'
    """
    first: dict[str, str] = {}
    of: dict[str, list[float]] = {}
    for text, reward in zip(texts, rewards, strict=True):
        answer = rule.key(text)
        first.setdefault(answer, text)
        of.setdefault(answer, []).append(reward)
    return first[max(of, key=lambda answer: (sum(of[answer]) / len(of[answer]), len(of[answer])))]


def _message(group: CandidateGroup, by_text: bool) -> wire.Message:
    draw, question = wire.pack_id(group.draw.index), group.draw.question.text
    return (
        wire.QuestionOnly(draw, question) if by_text else wire.Candidates(draw, question, tuple(group.texts))
    )


# -------------------------------------------------------------------------------------------------- shared steps


def _log_likelihoods(scorer: Evaluator, rows: Sequence[Suspect]) -> list[float]:
    for one in rows:
        scorer.expect(one.row.text, [one.row.taught])
    return [math.log(max(scorer.likelihood(one.row.text, [one.row.taught])[0], 1e-300)) for one in rows]


def _gains(after: Sequence[float], before: Sequence[float]) -> list[float]:
    return [now - then for now, then in zip(after, before, strict=True)]


def _told(rows: Sequence[Suspect], scores: Sequence[float], seed: int, how: str) -> Membership | None:
    pairs: Mapping[bool, list[float]] = {True: [], False: []}
    for one, score in zip(rows, scores, strict=True):
        pairs[one.is_member].append(score)
    return membership(pairs[True], pairs[False], seed, how)


def _sample(rows: Sequence[Question], count: int, *key: streams.Part) -> list[Question]:
    order = streams.generator(*key).permutation(len(rows))[:count]
    return [rows[int(place)] for place in order]
