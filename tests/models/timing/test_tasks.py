"""Questions of a timing run: as many as were asked for, dealt as was asked for, and made once."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from fedsim.experiment import run as experiment
from fedsim.models.interfaces import Draw
from fedsim.models.timing.stand_ins import StandInPolicy
from fedsim.models.timing.tasks import task_data
from fedsim.scenario.read import scenario_from
from fedsim.tasks.config import TasksConfig
from fedsim.tasks.dataset import build

CONFIG = TasksConfig.model_validate_json(
    '{"domains": ["chain_sum", "gcd"], "sizes": {"private": 400, "auxiliary": 20, "pool": 300}, '
    '"answers": {"coverage": 0.4}}'
)
DATA = task_data(CONFIG, 5, seed=1)


def test_questions_that_are_kept_are_those_that_were_asked_for():
    base = CONFIG.model_dump()
    others = [
        (base | {"domains": ("gcd", "chain_sum")}, 5, 1),
        (base | {"sizes": {**base["sizes"], "private": 200}}, 5, 1),
        (base | {"partition": {**base["partition"], "beta": 9.0}}, 5, 1),
        (base | {"answers": {**base["answers"], "coverage": 0.9}}, 5, 1),
        (base, 6, 1),
        (base, 5, 2),
    ]
    for changed, num_clients, seed in others:
        other = task_data(TasksConfig(**changed), num_clients, seed)
        again = task_data(CONFIG, 5, seed=1)
        assert (again.pool, again.private, again.trusted) == (DATA.pool, DATA.private, DATA.trusted)
        assert (other.private, other.trusted) != (again.private, again.trusted)


def test_questions_are_made_once_for_the_same_scenario():
    first = task_data(CONFIG, 5, seed=1)
    assert task_data(CONFIG.model_copy(), 5, seed=1) is first
    with pytest.raises(ValueError, match="read-only"):
        first.partition[0, 0] = 7


def test_splits_have_the_sizes_that_were_asked_for_and_no_question_stands_in_two():
    assert (len(DATA.auxiliary), len(DATA.pool)) == (20, 300)
    assert sum(map(len, DATA.private)) == DATA.partition.sum() == 400
    rows = [*DATA.auxiliary, *DATA.pool, *(row for rows in DATA.private for row in rows)]
    assert len({row.question_id for row in rows}) == len({row.text for row in rows}) == len(rows)


def test_the_partition_table_counts_the_rows_that_each_client_has():
    for client_id, rows in enumerate(DATA.private):
        for column, domain in enumerate(DATA.domains):
            assert DATA.partition[client_id, column] == sum(row.domain == domain for row in rows)


def test_covered_questions_have_one_owner_each_who_has_the_truth():
    owned = [(number, answer) for answers in DATA.trusted for number, answer in answers.items()]
    assert len({number for number, _ in owned}) == len(owned)
    assert len(owned) / 300 == pytest.approx(0.4, abs=4 * math.sqrt(0.4 * 0.6 / 300))
    truth = {question.question_id: question.answer for question in DATA.pool}
    assert all(truth[number] == answer for number, answer in owned)


def test_data_is_a_function_of_the_seed():
    again, other = task_data(CONFIG, 5, seed=1), task_data(CONFIG, 5, seed=2)
    assert (again.pool, again.trusted) == (DATA.pool, DATA.trusted)
    assert np.array_equal(again.partition, DATA.partition)
    assert other.pool != DATA.pool


def test_own_questions_are_dealt_as_with_real_models(tmp_path):
    path = tmp_path / "own.jsonl"
    splits = ("pool", "auxiliary", "validation", "test", "reworded")
    rows = [{"question": f"q{n}", "answer": f"a{n}", "split": split} for n, split in enumerate(splits)]
    rows += [{"question": "q9", "answer": "a9", "client": [0, 2], "domain": "geo"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    config = TasksConfig(file=str(path))
    data, real = task_data(config, 3, seed=1), build(config, 3, seed=1)
    assert replace(data, partition=real.partition) == real
    assert data.partition.tolist() == real.partition.tolist() == [[1, 0], [0, 0], [1, 0]]
    path.write_text("\n".join(map(json.dumps, [*rows, {"question": "q7", "answer": "a7", "split": "pool"}])))
    assert len(task_data(config, 3, seed=1).pool) == 2


@pytest.mark.parametrize(
    "partition",
    [
        {"kind": "iid"},
        {"kind": "dirichlet", "beta": 0.3},
        {"over": "domains"},
        {"kind": "shared", "holders": 2},
    ],
)
def test_sizes_that_no_number_of_domains_divides_are_dealt_as_with_real_models(partition):
    sizes = {"public": 0, "private": 61, "auxiliary": 7, "pool": 11, "validation": 1, "test": 2}
    asked = {"domains": ["chain_sum", "gcd", "products"], "sizes": sizes, "partition": partition}
    config = TasksConfig.model_validate_json(json.dumps(asked))
    data, real = task_data(config, 4, seed=3), build(config, 4, seed=3)
    assert data.partition.tolist() == real.partition.tolist()
    assert data.partition.sum() == 61 * (2 if partition.get("holders") else 1)
    for split in ("auxiliary", "pool"):
        counts = [Counter(question.domain for question in getattr(one, split)) for one in (data, real)]
        assert counts[0] == counts[1] and sum(counts[0].values()) == sizes[split]


def test_a_timing_run_sends_the_texts_of_the_users_own_file(tmp_path):
    def question_bytes(extra, answer):
        rows = [
            {"question": f"{n} {'x' * extra}", "answer": answer.replace("?", str(n % 10))}
            | ({"client": n % 3} if n < 100 else {})
            for n in range(400)
        ]
        (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
        asked = {
            "name": "own", "seed": 0, "fidelity": "timing", "stop": {"updates": 2}, "clients": {"laptop": 3},
            "protocol": {
                "name": "fedgrpo", "group_size": 4, "num_experts": 2, "num_neighbours": 5,
                "update": {"schedule": "barrier", "groups_per_update": 40},
            },
            "tasks": {
                "file": str(tmp_path / "own.jsonl"),
                "sizes": {"public": 0, "private": 100, "auxiliary": 20, "pool": 250, "validation": 1, "test": 1},
            },
        }  # fmt: skip
        run = experiment.run(scenario_from(asked), out=tmp_path / f"run-{extra}-{len(answer)}")
        return run.transfers.filter(pl.col("purpose") == "question")["message_bytes"].mean()

    plain = question_bytes(10, "?")
    assert question_bytes(20, "?") == pytest.approx(plain + 10, abs=0.2)
    assert question_bytes(10, "abcdefghi?") == pytest.approx(plain + 4 * 9, abs=0.2)  # four candidates


def test_a_timing_run_with_own_questions_looks_at_them_and_asks_clients_about_the_exemplars(tmp_path):
    rows = [
        {"question": f"What is {n} + 1?", "answer": f"so\n#### {n + 1}", "split": split}
        for n, split in enumerate(("pool", "auxiliary", "validation", "test", "reworded") * 4)
    ]
    rows += [{"question": f"{n} + 1", "answer": f"#### {n + 1}", "client": [n % 2]} for n in range(6)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scenario = scenario_from(
        {
            "name": "own",
            "fidelity": "timing",
            "stop": {"updates": 2},
            "protocol": {"name": "fedgrpo", "update": {"groups_per_update": 2, "in_flight": 2}},
            "tasks": {"file": "own.jsonl", "answer_pattern": r"#### (\d+)"},
            "clients": {"phone": 2},
        },
        folder=tmp_path,
    )
    data = task_data(scenario.anchored().tasks, 2, 0)
    run = experiment.run(scenario, out=tmp_path / "run")
    assert run.summary["updates"] == 2
    assert run.summary["looks"]["reworded"]["num_questions"] == 4
    said = StandInPolicy(scenario.protocol, 0).sample(
        [Draw(n, question) for n, question in enumerate(data.pool)]
    )
    taught = [group.draw.question.taught in group.texts for group in said]
    assert any(taught) and all("####" in text for group in said for text in group.texts)


def test_worked_solutions_are_as_long_as_in_a_run_with_real_models():
    config = TasksConfig(
        domains=("worked_sums", "worked_products"), sizes=CONFIG.sizes.model_copy(update={"public": 0})
    )
    data = task_data(config, 5, seed=1)
    real = build(config, 5, seed=1)
    assert (data.pool, data.private, data.answers) == (real.pool, real.private, real.answers)
    mixed = config.model_copy(update={"domains": ("worked_sums", "gcd"), "answer_pattern": "(-?[0-9]+)"})
    assert not any(row.solution for row in task_data(mixed, 5, seed=1).pool)
