"""Where runs gain: on the questions that the public corpus gets wrong on purpose, or on the others.

    python -m analysis.planted .evidence/controls/runs

Half of each domain's operand classes are mostly wrong in the public corpus, always in the same way (`fedsim.tasks.mistakes`).
Test questions of these classes are the *corrupted* half, all others the *clean* one. A run's start and end policy answer them
greedily, as at the end of the run, whose own accuracies must come out. *Planted bits alone* is a control without training: the
start policy's answers, with the mistake undone by rule in the corrupted classes. Whoever knows one bit per class has that
much. ``planted.json`` in a run's folder is what tables of results keep of it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.command import exit_code, paths
from analysis.results import PLANTED
from fedsim.errors import RunFolderError
from fedsim.experiment.components import load_components
from fedsim.experiment.prepared import Prepared
from fedsim.progress import SilentProgress
from fedsim.records.run import load
from fedsim.records.run_folder import MANIFEST, write_json
from fedsim.scenario.read import scenario_from
from fedsim.tasks.config import TasksConfig
from fedsim.tasks.mistakes import operand_class, undone, wrong_classes
from fedsim.tasks.questions import Question, TaskData

if TYPE_CHECKING:
    from fedsim.models.real.language import LanguageModel


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer; one that was cut off is wrong, as in the runs' own accuracies."""

    text: str
    truncated: bool


@dataclass(frozen=True, slots=True)
class Split:
    """Greedy accuracy of one run's start and end on the two halves of the test questions.

    Attributes:
        num_bits: operand classes in the public corpus, one bit each.
        num_corrupted, num_clean: test questions.
        planted_bits: accuracy on all of them of the start's answers with the mistake undone in the corrupted classes.
    """

    num_bits: int
    num_corrupted: int
    num_clean: int
    start_corrupted: float
    end_corrupted: float
    start_clean: float
    end_clean: float
    start: float
    end: float
    planted_bits: float


def measure(store: Path) -> str:
    """Split every finished run in a folder of runs that left a policy and has planted mistakes: ``planted.json`` in each.

    A run that was split before is left as it is, so the work can be interrupted and taken up again.

    Raises:
        RunFolderError: there is no such run, or a run's accuracies do not come out.
        InputError: a run's scenario names something that cannot be used any more.
    """
    folders = [place.parent for place in sorted(store.glob("*/policy")) if _is_planted(place.parent)]
    if not folders:
        raise RunFolderError(
            f"{store}: no run left its policy and has a mistake by operand class that can be undone"
        )
    for folder in folders:
        if not (folder / PLANTED).is_file():
            write_json(folder / PLANTED, asdict(split(folder)))
    return f"{len(folders)} runs in {store}"


def _is_planted(folder: Path) -> bool:
    if not (folder / MANIFEST).is_file():
        return False
    scenario = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["scenario"]
    errors = scenario["tasks"].get("public_errors") or {}
    return (
        scenario["fidelity"] == "real"
        and not scenario["tasks"]["file"]
        and errors.get("by") == "operand_class"
    )


def split(folder: Path, cache_dir: Path | None = None) -> Split:
    """Answer the test questions with the run's first and last policy; raises as `measure` does.

    Models are read from ``cache_dir``, by default from where runs keep them.
    """
    run = load(folder)
    scenario = scenario_from(run.manifest["scenario"], folder)
    errors = scenario.tasks.errors
    if scenario.fidelity != "real" or errors.by != "operand_class" or errors.kind == "shuffled":
        raise RunFolderError(
            f"{folder}: no mistake by operand class that can be undone was put into its corpus"
        )
    components: Any = load_components(Prepared(scenario, cache_dir), SilentProgress())
    if components.hashes["server"] != run.manifest["model_hashes"]["server"]:
        raise RunFolderError(f"{folder}: its start policy cannot be made again here; run it on this machine")
    from fedsim.models.real.language import LanguageModel
    from fedsim.models.real.zoo import load_folder

    language = components.policy.language
    end = LanguageModel(*load_folder(folder / "policy"), language.shapes)
    started, ended = (answers(one, components.data.test, scenario.protocol) for one in (language, end))
    found = halves(scenario.tasks, components.data, scenario.seed, started, ended)
    wanted = run.summary["accuracy"]["greedy"]
    if (found.start, found.end) != (wanted["initial"], wanted["final"]):
        raise RunFolderError(
            f"{folder}: greedy accuracy is {found.start}, {found.end} here and {wanted['initial']}, {wanted['final']} in the "
            "run; this is other code or another machine"
        )
    return found


def answers(language: LanguageModel, questions: Sequence[Question], config: Any) -> list[Answer]:
    """Greedy answers, in the order of the questions."""
    from fedsim.models.real.language import by_width
    from fedsim.models.real.sampling import greedy_answers

    found = {}
    for batch in by_width(language, questions, lambda question: question.text, config.questions_per_pass):
        prompts = [language.prompt_ids(question.text) for question in batch]
        for question, answer in zip(
            batch, greedy_answers(language, prompts, config.max_new_tokens), strict=True
        ):
            found[question.question_id] = Answer(language.answer_text(answer.ids), answer.truncated)
    return [found[question.question_id] for question in questions]


def halves(
    tasks: TasksConfig, data: TaskData, seed: int, started: Sequence[Answer], ended: Sequence[Answer]
) -> Split:
    """Accuracies of two lists of answers to the test questions; a pure function."""
    corrupted, num_bits = _corrupted(tasks, data, seed)

    def right(given: Sequence[Answer], repaired: bool = False) -> list[bool]:
        return [
            not answer.truncated
            and data.answers.right(
                undone(tasks.errors.kind, answer.text) if repaired and wrong else answer.text,
                question.answers,
            )
            for answer, question, wrong in zip(given, data.test, corrupted, strict=True)
        ]

    def accuracy(marks: Sequence[bool], half: bool | None = None) -> float:
        chosen = [mark for mark, wrong in zip(marks, corrupted, strict=True) if half in (None, wrong)]
        return math.fsum(chosen) / len(chosen) if chosen else math.nan

    before, after = right(started), right(ended)
    return Split(
        num_bits=num_bits,
        num_corrupted=sum(corrupted),
        num_clean=len(corrupted) - sum(corrupted),
        start_corrupted=accuracy(before, True),
        end_corrupted=accuracy(after, True),
        start_clean=accuracy(before, False),
        end_clean=accuracy(after, False),
        start=accuracy(before),
        end=accuracy(after),
        planted_bits=accuracy(right(started, repaired=True)),
    )


def _corrupted(tasks: TasksConfig, data: TaskData, seed: int) -> tuple[list[bool], int]:
    """Of every test question whether its class is a mostly wrong one, and the number of classes."""
    before, after = tasks.prompt_template.split("{question}")

    def bare(question: Question) -> str:
        return question.text.removeprefix(before).removesuffix(after)

    public = {name: [bare(one) for one in data.public if one.domain == name] for name in data.domains}
    wrong = {name: wrong_classes(name, texts, seed) for name, texts in public.items()}
    num_bits = sum(len(set(map(operand_class, texts))) for texts in public.values())
    return [operand_class(bare(question)) in wrong[question.domain] for question in data.test], num_bits


def main(arguments: list[str] | None = None) -> int:
    """Command line: the folder of runs."""
    return exit_code(lambda: measure(*paths(arguments, "analysis.planted FOLDER_OF_RUNS", 1)))


if __name__ == "__main__":
    sys.exit(main())
