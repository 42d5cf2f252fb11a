"""Where runs gain: on the questions that the public corpus gets wrong on purpose, or on the others.

    python -m analysis.planted .evidence/controls

Half of each domain's operand classes are mostly wrong in the public corpus, always in the same way (`fedsim.tasks.mistakes`).
Test questions of these classes are the *corrupted* half, all others the *clean* one. A run's start and end policy answer them
greedily, as at the end of the run, whose own accuracies must come out. *Planted bits alone* is a control without training: the
start policy's answers, with the mistake undone by rule in the corrupted classes. Whoever knows one bit per class has that
much. ``planted.json`` in the comparison's folder is what the evidence page reads.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.command import exit_code, paths
from analysis.finished import format_list, head, read, row
from fedsim.errors import RunFolderError
from fedsim.experiment.components import load_components
from fedsim.experiment.prepared import Prepared
from fedsim.progress import SilentProgress
from fedsim.records.run import load
from fedsim.records.run_folder import write_json
from fedsim.scenario.read import scenario_from
from fedsim.sweeps.compare.tables import show
from fedsim.sweeps.stats import interval
from fedsim.tasks.config import TasksConfig
from fedsim.tasks.mistakes import operand_class, undone, wrong_classes
from fedsim.tasks.questions import Question, TaskData

if TYPE_CHECKING:
    from fedsim.models.real.language import LanguageModel

PLANTED = "planted.json"


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


def measure(folder: Path) -> Path:
    """Split every run of a finished comparison that left a policy, and write ``planted.json``.

    Raises:
        RunFolderError: not a finished comparison; a run has no planted classes, or its accuracies do not come out.
        InputError: a run's scenario names something that cannot be used any more.
    """
    compared = read(folder)
    variants = {
        name: [
            {"seed": seed} | asdict(split(place)) for seed, place in zip(compared.seeds, places, strict=True)
        ]
        for name, places in compared.folders.items()
        if all((place / "policy").is_dir() for place in places)
    }
    if not variants:
        raise RunFolderError(f"{folder}: no variant left its policies")
    document = {
        "name": compared.name,
        "seeds": compared.seeds,
        "made_by": compared.made_by,
        "variants": variants,
    }
    write_json(folder / PLANTED, document)
    return folder / PLANTED


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


def lines(folder: Path, made_by: str) -> Iterator[str]:
    """The section of the evidence page, whose other controls are ``made_by`` these commits.

    Raises:
        OSError, ValueError, KeyError: ``planted.json`` cannot be read.
    """
    path = folder / PLANTED
    if not path.is_file():
        yield "Not measured: `python -m analysis.planted` was not run on these runs."
        return
    document = json.loads(path.read_text(encoding="utf-8"))
    variants: Mapping[str, Sequence[Mapping[str, Any]]] = document["variants"]
    first, some = next(iter(variants.items()))
    total = some[0]["num_corrupted"] + some[0]["num_clean"]
    yield (
        "Half of each domain's operand classes are mostly wrong in the public corpus on purpose, always in the same way. "
        f"{_span(some, 'num_corrupted')} of the {total} test questions are of these classes (the corrupted half), the others "
        f"are the clean half. Greedy accuracy; comparison `{document['name']}`, code of {document['made_by']}, seeds "
        f"{format_list(document['seeds'])}, and by seed in this order."
    )
    if document["made_by"] != made_by:
        yield f"These are other runs than those of the tables above ({made_by}), whose accuracies differ from theirs."
    yield ""
    yield from head(
        "method",
        "end",
        "gain",
        "gain, corrupted half",
        "by seed",
        "gain, clean half",
        "by seed",
        "minus planted bits alone",
    )
    for name, runs in variants.items():
        bad = [run["end_corrupted"] - run["start_corrupted"] for run in runs]
        good = [run["end_clean"] - run["start_clean"] for run in runs]
        yield row(
            [
                name,
                show(interval([run["end"] for run in runs])),
                show(interval([run["end"] - run["start"] for run in runs]), signed=True),
                show(interval(bad), signed=True),
                _each(bad, "+.3f"),
                show(interval(good), signed=True),
                _each(good, "+.3f"),
                show(interval([run["end"] - run["planted_bits"] for run in runs]), signed=True),
            ]
        )
    yield ""
    ruled = [run["planted_bits"] for run in some]
    before = {half: show(interval([run[f"start_{half}"] for run in some])) for half in ("corrupted", "clean")}
    yield (
        f"Start of {first}, corrupted half: {before['corrupted']}; clean half: {before['clean']}. *Planted bits alone*, "
        "without any training: the start's answers, with the mistake undone by rule in the corrupted classes "
        f"({_span(some, 'num_bits')} classes, one bit each), are right on {show(interval(ruled))} of all test questions (by "
        f"seed: {_each(ruled, '.3f')})."
    )
    yield ""
    yield (
        "A gain on the clean half alone is one that was not planted. What this does not show: what a method gains where a "
        "corpus' mistakes have no such pattern."
    )


def _span(runs: Sequence[Mapping[str, Any]], key: str) -> str:
    low, high = min(run[key] for run in runs), max(run[key] for run in runs)
    return f"{low}" if low == high else f"{low} to {high}"


def _each(values: Sequence[float], form: str) -> str:
    return ", ".join(f"{value:{form}}" for value in values)


def main(arguments: list[str] | None = None) -> int:
    """Command line: the comparison's folder."""
    return exit_code(lambda: measure(*paths(arguments, "analysis.planted COMPARISON_FOLDER", 1)))


if __name__ == "__main__":
    sys.exit(main())
