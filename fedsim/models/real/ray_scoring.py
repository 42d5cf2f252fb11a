"""Scoring on Ray (extra ``ray``): a few actors hold the clients' models and compute what their evaluators are asked.

A model travels to an actor once, as the bytes of its folder, when the actor is first asked to score with it. What is queued
when a score is due is split over the actors by its questions. A score depends on weights, question and candidate alone,
however it is batched, so the results are those of `fedsim.models.real.evaluator.ModelEvaluator` bit for bit; an actor whose
weights hash to something else refuses. An actor that dies is started again, and asked again.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fedsim.errors import FedsimError
from fedsim.models.interfaces import Evaluator
from fedsim.models.real.evaluator import ModelEvaluator, drop_oldest
from fedsim.models.real.language import LanguageModel, Shapes
from fedsim.models.real.placement import PlacedEvaluator, Placement
from fedsim.models.real.weights import save_model, weights_sha256
from fedsim.models.real.zoo import load_folder
from fedsim.processes.ray_cluster import LIVES, LOCAL, ON_RAY, Cluster, first_line, worker_options
from fedsim.progress import Progress
from fedsim.records.run_folder import packed, unpack
from fedsim.tasks.matching import AnswerRule

if TYPE_CHECKING:
    from fedsim.processes.config import ComputeConfig


@dataclass(frozen=True, slots=True)
class HeldModel:
    """A model that actors can score with: what identifies it, and its folder in the object store."""

    sha256: str
    told: str = field(repr=False)
    archive: Any = field(repr=False)


class ScoringPool:
    """Actors that score, on a cluster that is opened for it.

    Args:
        cluster: where; closed with the pool.
        num_actors: how many; each takes ``threads`` cores of the cluster.
        threads: of each, as in ``compute.threads``.
        placement: where the models lie, and how precisely they compute; an actor on a GPU takes ``gpu_share`` of it.
    """

    def __init__(
        self, cluster: Cluster, num_actors: int, threads: int = 1, placement: Placement | None = None
    ) -> None:
        where = placement or Placement()
        self._cluster = cluster
        cluster.open()
        self._ray = cluster.ray
        options = worker_options(threads, where.device, where.gpu_share)
        actor = self._ray.remote(max_restarts=LIVES - 1, max_task_retries=LIVES - 1, **options)(Scorer)
        self._actors = [actor.remote(threads, json.dumps(asdict(where))) for _ in range(num_actors)]
        self._held: dict[int, HeldModel] = {}
        self._end = weakref.finalize(self, _end, self._ray, self._actors, cluster)

    def evaluator(
        self, language: LanguageModel, max_new_tokens: int, counted: AnswerRule | None = None
    ) -> PooledEvaluator:
        """An evaluator whose model is scored with here; a network that several share travels once.

        ``counted`` says which part of a candidate counts, as for `ModelEvaluator`; those who share a network share it too.
        """
        known = id(language.network)
        if known not in self._held:
            self._held[known] = self._hold(language, max_new_tokens, counted)
        return PooledEvaluator(self, self._held[known], language)

    def score(
        self, model: HeldModel, wanted: Mapping[str, Sequence[str]], questions: Sequence[str]
    ) -> tuple[dict[str, list[float]], dict[str, str]]:
        """Likelihoods of candidates by question, and own answers by question.

        Raises:
            FedsimError: an actor failed, or died too often.
        """
        count = len(self._actors)
        pairs = list(wanted.items())
        asked = []
        for place, actor in enumerate(self._actors):
            work = (pairs[place::count], questions[place::count])
            if any(work):
                asked.append(actor.score.remote(model.told, [model.archive], json.dumps(work)))
        likelihoods: dict[str, list[float]] = {}
        answers: dict[str, str] = {}
        try:
            for said in self._ray.get(asked):
                found = json.loads(said)
                likelihoods |= found["likelihoods"]
                answers |= found["answers"]
        except self._ray.exceptions.RayError as error:
            raise FedsimError(f"scoring on Ray failed: {first_line(error)}") from error
        return likelihoods, answers

    def close(self) -> None:
        """End the actors and leave the cluster; done when nobody needs the pool any more, at the latest."""
        self._end()

    def _hold(self, language: LanguageModel, max_new_tokens: int, counted: AnswerRule | None) -> HeldModel:
        with TemporaryDirectory() as made:
            save_model(language.network, language.tokenizer, Path(made))
            archive = self._ray.put(packed(Path(made)))
        sha256 = weights_sha256(language.network)
        told = {
            "sha256": sha256,
            "shapes": asdict(language.shapes),
            "max_new_tokens": max_new_tokens,
            "counted": None if counted is None else asdict(counted),
        }
        return HeldModel(sha256, json.dumps(told), archive)


def _end(ray: Any, actors: Sequence[Any], cluster: Cluster) -> None:
    if ray.is_initialized():
        for actor in actors:
            ray.kill(actor)
    cluster.close()


class Scorer:
    """What an actor does: hold models and score with them."""

    def __init__(self, threads: int, placement: str) -> None:
        import torch

        torch.set_num_threads(threads)
        self._placement = Placement(**json.loads(placement))
        self._models: dict[str, ModelEvaluator | PlacedEvaluator] = {}

    def score(self, told: str, archive: Sequence[Any], work: str) -> str:
        """Score ``[[question, candidates], ...]`` and answer ``[question, ...]`` with a model.

        Raises:
            ModelFileError: the model cannot be loaded.
            FedsimError: its weights are others than those that were sent.
        """
        if told not in self._models:
            self._models[told] = self._loaded(json.loads(told), archive)
        evaluator = self._models[told]
        pairs, questions = json.loads(work)
        for question, candidates in pairs:
            evaluator.expect(question, candidates)
        for question in questions:
            evaluator.expect_answer(question)
        found = {
            "likelihoods": {
                question: evaluator.likelihood(question, candidates) for question, candidates in pairs
            },
            "answers": dict(zip(questions, evaluator.answers(questions), strict=True)),
        }
        return json.dumps(found)

    def _loaded(self, model: Mapping[str, Any], archive: Sequence[Any]) -> ModelEvaluator | PlacedEvaluator:
        import ray

        with TemporaryDirectory() as made:
            unpack(ray.get(archive[0]), Path(made))
            network, tokenizer = load_folder(Path(made))
        if weights_sha256(network) != model["sha256"]:
            raise FedsimError("a model arrived with other weights than it was sent with")
        language = LanguageModel(network, tokenizer, Shapes(**model["shapes"]))
        counted = None if model["counted"] is None else AnswerRule(**model["counted"])
        evaluator = ModelEvaluator(language, model["max_new_tokens"], counted)
        return evaluator if self._placement.is_plain else PlacedEvaluator(evaluator, self._placement)


class PooledEvaluator:
    """Implements ``interfaces.Evaluator`` with the actors of a pool; remembers what it was told, as `ModelEvaluator` does."""

    def __init__(self, pool: ScoringPool, model: HeldModel, language: LanguageModel) -> None:
        self.language = language
        self._pool = pool
        self._model = model
        self._queue: dict[str, dict[str, None]] = {}
        self._likelihoods: dict[tuple[str, str], float] = {}
        self._answers: dict[str, str] = {}
        self._answers_due: dict[str, None] = {}

    def expect(self, question: str, candidates: Sequence[str]) -> None:
        """Queue a scoring that will be due later."""
        missing = [text for text in candidates if (question, text) not in self._likelihoods]
        if missing:
            self._queue.setdefault(question, {}).update(dict.fromkeys(missing))

    def expect_answer(self, question: str) -> None:
        """Queue an own answer that will be due later."""
        if question not in self._answers:
            self._answers_due[question] = None

    def likelihood(self, question: str, candidates: Sequence[str]) -> list[float]:
        """As `fedsim.models.real.evaluator.ModelEvaluator.likelihood`, computed by the pool with all that is queued."""
        drop_oldest(self._likelihoods)
        self.expect(question, candidates)
        if question in self._queue:
            self._compute()
        return [self._likelihoods[question, text] for text in candidates]

    def answers(self, questions: Sequence[str]) -> list[str]:
        """As `fedsim.models.real.evaluator.ModelEvaluator.answers`, computed by the pool with all that is queued."""
        for text in questions:
            self.expect_answer(text)
        if any(text not in self._answers for text in questions):
            self._compute()
        return [self._answers[text] for text in questions]

    def count_tokens(self, text: str) -> int:
        """Tokens of a text under this client's tokenizer."""
        return self.language.count_tokens(text)

    def _compute(self) -> None:
        wanted = {question: list(texts) for question, texts in self._queue.items()}
        likelihoods, answers = self._pool.score(self._model, wanted, list(self._answers_due))
        self._queue.clear()
        self._answers_due.clear()
        self._answers |= answers
        for question, scores in likelihoods.items():
            self._likelihoods.update(
                zip([(question, text) for text in wanted[question]], scores, strict=True)
            )


def scoring(
    evaluators: Sequence[ModelEvaluator], compute: ComputeConfig, max_new_tokens: int, progress: Progress
) -> list[Evaluator]:
    """The evaluators, where and as precisely as ``compute`` says; these very ones by default.

    A run that Ray itself performs scores in its own process: it is one of several that share the cluster, and no result
    depends on it.

    Raises:
        InputError: Ray is not installed, or there is no cluster at ``RAY_ADDRESS``.
        ModelFileError: a GPU is asked for, and there is none.
    """
    placement = Placement(compute.device, compute.autocast, compute.gpu_share)
    if compute.scorers and not os.environ.get(ON_RAY):
        address = os.environ.get("RAY_ADDRESS") or LOCAL
        cluster = Cluster(address, compute.scorers * compute.threads, progress, "compute.scorers")
        pool = ScoringPool(cluster, compute.scorers, compute.threads, placement)
        return [pool.evaluator(one.language, max_new_tokens, one.counted) for one in evaluators]
    if placement.is_plain:
        return list(evaluators)
    return [PlacedEvaluator(evaluator, placement) for evaluator in evaluators]
