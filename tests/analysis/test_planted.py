"""Where the gain lies (analysis/planted.py): halves of the test questions worked by hand, and a real run's own accuracies."""

from __future__ import annotations

import json

import numpy as np
import pytest

from analysis import planted
from analysis.planted import Answer, Split, halves, split
from fedsim.errors import RunFolderError
from fedsim.experiment import run as experiment
from fedsim.scenario.read import scenario_from
from fedsim.tasks.config import TasksConfig
from fedsim.tasks.mistakes import mistake, undone, wrong_classes
from fedsim.tasks.questions import Question, TaskData
from tests.samples.real_runs import tiny

SUMS = ["What is 1 + 1?", "What is 2 + 1?", "What is 3 + 1?", "What is 4 + 1?"]
WORDS = ["Spell this word backward: cat", "Spell this word backward: dog"]


def asked(template="{question}"):
    """Four sums and two words; the public corpus holds each of them once, so every class is as frequent as any other."""
    rows = [("sums", text, str(int(text[8]) + 1)) for text in SUMS]
    rows += [("words", text, text[-3:][::-1]) for text in WORDS]
    questions = tuple(
        Question(number, domain, template.replace("{question}", text), answer)
        for number, (domain, text, answer) in enumerate(rows)
    )
    return TaskData(
        domains=("sums", "words"), public=questions, private=(), auxiliary=(), pool=(), validation=(), test=questions,
        trusted=(), partition=np.zeros((0, 2), dtype=np.int64),
    )  # fmt: skip


def corrupted(seed):
    """The questions of the wrong halves: two of four sums, one of two words (or both, or none: the last has a coin)."""
    found = {"sums": wrong_classes("sums", SUMS, seed), "words": wrong_classes("words", WORDS, seed)}
    return [text[8] in found["sums"] for text in SUMS] + [text[-3] in found["words"] for text in WORDS]


@pytest.mark.parametrize("template", ["{question}", "2 shots. {question} Answer:"])
def test_undoing_the_mistake_by_rule_in_the_corrupted_classes_is_worth_the_planted_bits(template):
    """The start makes the planted mistake in every corrupted class and gets one clean sum wrong; the end knows all but that."""
    data, wrong = asked(template), corrupted(0)
    tasks = TasksConfig(domains=("gcd",), prompt_template=template)
    truth = [question.answer for question in data.test]
    clean_miss = wrong.index(False)
    start = [mistake("auto", answer) if bad else answer for answer, bad in zip(truth, wrong, strict=True)]
    start[clean_miss] = "99"
    end = [*truth[:clean_miss], "99", *truth[clean_miss + 1 :]]
    found = halves(tasks, data, 0, [Answer(one, False) for one in start], [Answer(one, False) for one in end])
    assert sum(wrong) == 3
    assert found == Split(
        num_bits=6, num_corrupted=3, num_clean=3, start_corrupted=0.0, end_corrupted=1.0, start_clean=2 / 3, end_clean=2 / 3,
        start=2 / 6, end=5 / 6, planted_bits=5 / 6,
    )  # fmt: skip


def test_an_answer_that_was_cut_off_is_wrong_also_where_the_rule_would_mend_it():
    data, wrong = asked(), corrupted(0)
    tasks = TasksConfig(domains=("gcd",))
    spoiled = [Answer(mistake("auto", question.answer), True) for question in data.test]
    found = halves(tasks, data, 0, spoiled, [Answer(question.answer, False) for question in data.test])
    assert any(wrong) and found.planted_bits == 0.0 and found.start == 0.0 and found.end == 1.0


@pytest.mark.parametrize("answer", ["7", "-1", "0", "x = 12", "gnirps", "ab"])
def test_a_mistake_undone_is_the_answer(answer):
    assert undone("auto", mistake("auto", answer)) == answer


def test_the_accuracies_of_a_real_run_come_out_and_those_of_an_altered_one_are_refused(
    tmp_path, models_cache
):
    scenario = tiny(stop={"updates": 1})
    scenario["models"] = {side: model | {"steps": 20} for side, model in scenario["models"].items()}
    scenario["tasks"]["sizes"] |= {"test": 60}
    folder = tmp_path / "run"
    ran = experiment.run(scenario_from(scenario), out=folder, cache_dir=models_cache)
    found = split(folder, models_cache)
    greedy = ran.summary["accuracy"]["greedy"]
    assert (found.start, found.end) == (greedy["initial"], greedy["final"])
    assert found.num_corrupted + found.num_clean == 60 and 20 < found.num_corrupted < 40
    halves_right = found.end_corrupted * found.num_corrupted + found.end_clean * found.num_clean
    assert halves_right == pytest.approx(60 * found.end)
    path = folder / "summary.json"
    path.write_text(json.dumps(ran.summary | {"accuracy": {"greedy": greedy | {"final": 0.99}}}))
    with pytest.raises(RunFolderError, match=r"and [0-9.]+, 0\.99 in the run"):
        split(folder, models_cache)


def test_a_wrong_folder_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert planted.main([str(tmp_path)]) == 2
    assert planted.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
