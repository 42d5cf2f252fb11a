"""One federation's data: disjoint splits, correct private rows, trusted answers where the data is."""

import itertools
import json

import numpy as np
import pytest

from fedsim.errors import DataFileError, FederationError, ScenarioError
from fedsim.tasks.config import (
    AnswersConfig,
    PartitionConfig,
    PublicErrorsConfig,
    SizesConfig,
    TasksConfig,
)
from fedsim.tasks.dataset import build, split_sizes
from fedsim.tasks.questions import TextFormat

SIZES = SizesConfig(public=400, private=300, auxiliary=21, pool=200, validation=51, test=100)
TASKS = TasksConfig(domains=("gcd", "chain_sum"), sizes=SIZES, answers=AnswersConfig(coverage=0.5, noise=0.2))


def splits(data):
    private = tuple(itertools.chain.from_iterable(data.private))
    return (data.public, private, data.auxiliary, data.pool, data.validation, data.test)


def truth(question):
    numbers = [int(word.strip(".,")) for word in question.text.split() if word.strip(".,").isdigit()]
    if question.domain == "gcd":
        return str(np.gcd.reduce(numbers))
    signs = [-1 if word == "-" else 1 for word in question.text.split() if word in "+-"]
    return str(numbers[0] + sum(sign * number for sign, number in zip(signs, numbers[1:], strict=True)))


def test_splits_have_the_sizes_asked_for_and_share_no_question():
    data = build(TASKS, 4, 0)
    assert [len(split) for split in splits(data)] == [400, 300, 21, 200, 51, 100]
    everything = list(itertools.chain.from_iterable(splits(data)))
    assert len({question.text for question in everything}) == len(everything) == 1072
    assert sorted(question.question_id for question in everything) == list(range(1072))
    assert sum(question.domain == "gcd" for question in data.auxiliary) == 11


def test_everything_but_the_public_corpus_is_correct():
    data = build(TASKS, 4, 0)
    _, *correct = splits(data)
    assert all(question.answer == truth(question) for split in correct for question in split)
    wrong = np.mean([question.answer != truth(question) for question in data.public])
    assert wrong == pytest.approx(0.5, abs=0.08)


def test_no_errors_means_a_correct_corpus():
    data = build(TASKS.model_copy(update={"public_errors": PublicErrorsConfig(rate=0.0)}), 4, 0)
    assert all(question.answer == truth(question) for question in data.public)


def test_the_table_counts_the_private_rows():
    data = build(TASKS, 5, 0)
    assert data.num_clients == 5
    counted = [[sum(q.domain == domain for q in rows) for domain in data.domains] for rows in data.private]
    assert data.partition.tolist() == counted
    assert data.partition.dtype == np.int64


def test_near_empty_clients_are_legal():
    data = build(TASKS, 200, 0)
    assert sum(len(rows) == 0 for rows in data.private) > 50
    assert sum(map(len, data.private)) == 300


def test_a_prefix_of_a_split_is_a_mixture_of_the_domains():
    data = build(TASKS, 4, 0)
    for split in (data.public, data.pool, data.validation, data.test):
        assert {question.domain for question in split[:20]} == {"gcd", "chain_sum"}


def test_every_split_is_shuffled_by_its_own_luck():
    alike = TASKS.model_copy(update={"sizes": SIZES.model_copy(update={"validation": SIZES.test})})
    data = build(alike, 4, 0)
    orders = [[question.domain for question in split] for split in (data.validation, data.test)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


def test_trusted_answers_cover_their_share_at_the_owners_of_the_domain():
    data = build(TASKS, 4, 0)
    pool = {question.question_id: question for question in data.pool}
    owned = [
        (client, pool[key], answer)
        for client, mine in enumerate(data.trusted)
        for key, answer in mine.items()
    ]
    assert len(owned) == len({question.question_id for _, question, _ in owned})
    assert len(owned) / len(pool) == pytest.approx(0.5, abs=0.15)
    wrong = [answer != question.answer for _, question, answer in owned]
    assert np.mean(wrong) == pytest.approx(0.2, abs=0.15)
    counts = np.zeros_like(data.partition)
    for client, question, _ in owned:
        counts[client, data.domains.index(question.domain)] += 1
    shares, expected = counts / counts.sum(axis=0), data.partition / data.partition.sum(axis=0)
    np.testing.assert_allclose(shares, expected, atol=0.2)


def test_coverage_ends_are_exact():
    none, full = (
        build(TASKS.model_copy(update={"answers": AnswersConfig(coverage=share)}), 3, 0)
        for share in (0.0, 1.0)
    )
    assert sum(map(len, none.trusted)) == 0
    assert sum(map(len, full.trusted)) == len(full.pool)
    answers = {question.question_id: question.answer for question in full.pool}
    assert all(answers[key] == answer for mine in full.trusted for key, answer in mine.items())


def test_the_same_seed_builds_the_same_data_and_another_seed_another():
    first, second, other = (build(TASKS, 4, seed) for seed in (7, 7, 8))
    assert splits(first) == splits(second)
    assert first.trusted == second.trusted
    assert first.partition.tolist() == second.partition.tolist()
    assert {q.text for q in first.test} != {q.text for q in other.test}


def test_how_private_rows_are_dealt_changes_no_question():
    skewed = build(TASKS, 4, 0)
    iid = build(TASKS.model_copy(update={"partition": PartitionConfig(kind="iid")}), 9, 0)
    assert skewed.public == iid.public
    assert skewed.test == iid.test
    assert {q for rows in skewed.private for q in rows} == {q for rows in iid.private for q in rows}
    assert set(map(len, iid.private)) == {33, 34}


def test_errors_change_answers_of_public_rows_only():
    spoiled = build(TASKS, 4, 0)
    clean = build(TASKS.model_copy(update={"public_errors": PublicErrorsConfig(rate=0.0)}), 4, 0)
    assert splits(spoiled)[1:] == splits(clean)[1:]
    assert [q.text for q in spoiled.public] == [q.text for q in clean.public]


def test_the_prompt_template_wraps_every_question_literally():
    data = build(TASKS.model_copy(update={"prompt_template": "{0} Q: {question}\nA:"}), 2, 0)
    assert all(q.text.startswith("{0} Q: ") and q.text.endswith("\nA:") for q in data.test)


def test_sizes_can_be_foretold():
    tasks = TasksConfig(sizes=SizesConfig(private_per_client=7))
    assert split_sizes(tasks, 10)["private"] == 70
    assert split_sizes(tasks, 10)["test"] == 2000


def test_too_few_questions_and_no_clients_are_said():
    with pytest.raises(ScenarioError, match="gcd has about 9 different questions"):
        build(TasksConfig(domains={"gcd": {"max_value": 3}}, sizes=SIZES), 2, 0)
    with pytest.raises(FederationError, match="at least 1"):
        build(TASKS, 0, 0)


# -------------------------------------------------------------------------------------- own question files

SMALL = SizesConfig(public=10, private=8, auxiliary=4, pool=6, validation=3, test=5)


def own_file(tmp_path, count, **columns):
    path = tmp_path / "my.jsonl"
    rows = [
        {"question": f"What is {i} plus 1?", "answer": i + 1} | {key: f(i) for key, f in columns.items()}
        for i in range(count)
    ]
    path.write_text("\n".join(json.dumps({k: v for k, v in row.items() if v is not None}) for row in rows))
    return str(path)


def test_an_own_file_is_shuffled_cut_and_left_correct(tmp_path):
    path = own_file(tmp_path, 36, domain=lambda i: "even" if i % 2 == 0 else "odd")
    data = build(TasksConfig(file=path, sizes=SMALL, match="numeric", answer_pattern=r"is (\d+)"), 3, 0)
    assert [len(split) for split in splits(data)] == [10, 8, 4, 6, 3, 5]
    assert data.domains == ("even", "odd")
    everything = list(itertools.chain.from_iterable(splits(data)))
    assert {q.text: q.answer for q in everything} == {f"What is {i} plus 1?": str(i + 1) for i in range(36)}
    assert data.answers.right("I say it is 7", "7.0")
    again = build(TasksConfig(file=path, sizes=SMALL), 3, 1)
    assert [q.text for q in again.test] != [q.text for q in data.test]


def test_a_client_column_decides_the_partition(tmp_path):
    path = own_file(tmp_path, 40, client=lambda i: i % 2 * 2 if i < 12 else None)
    data = build(TasksConfig(file=path, sizes=SMALL, answers=AnswersConfig(coverage=1.0)), 4, 0)
    assert data.partition.tolist() == [[6], [0], [6], [0]]
    assert {q.text for q in data.private[2]} == {f"What is {i} plus 1?" for i in range(1, 12, 2)}
    assert [len(mine) > 0 for mine in data.trusted] == [True, False, True, False]


def test_a_domain_without_private_rows_gives_its_trusted_answers_to_anybody(tmp_path):
    path = own_file(
        tmp_path, 60, client=lambda i: 0 if i < 5 else None, domain=lambda i: "mine" if i < 5 else "common"
    )
    sizes = SMALL.model_copy(update={"pool": 30, "test": 5})
    data = build(TasksConfig(file=path, sizes=sizes, answers=AnswersConfig(coverage=1.0)), 3, 0)
    assert sum(map(len, data.trusted)) == 30
    assert all(len(mine) > 0 for mine in data.trusted)


def rows_file(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join(json.dumps({"question": f"q{n}", "answer": f"a{n}"} | row) for n, row in enumerate(rows))
    )
    return str(path)


NEEDED = tuple({"split": name} for name in ("auxiliary", "pool", "validation", "test"))


def test_rows_that_name_their_splits_go_there_and_no_size_is_asked_for(tmp_path):
    named = ("format", "private", "public", "never_asked", "reworded", "pool", "pool")
    path = rows_file(tmp_path, *({"split": name} for name in named), *NEEDED)
    data = build(TasksConfig(file=path), 2, 0)
    private = [q.text for rows in data.private for q in rows]
    assert ([q.text for q in data.format_rows], private, [q.text for q in data.public]) == (
        ["q0"],
        ["q1"],
        ["q2"],
    )
    assert {name: [q.text for q in rows] for name, rows in data.looks.items()} == {
        "never_asked": ["q3"],
        "reworded": ["q4"],
    }
    assert {q.text for q in data.pool} == {"q5", "q6", "q8"}
    everything = [*itertools.chain.from_iterable(splits(data)), *data.format_rows, *data.looks["reworded"]]
    assert len({q.question_id for q in [*everything, *data.looks["never_asked"]]}) == len(named) + 4


def test_splits_that_no_row_names_are_cut_from_the_rest(tmp_path):
    path = rows_file(tmp_path, *({"split": "test"},) * 3, *({"client": n % 2} for n in range(5)), *({},) * 30)
    sizes = SMALL.model_copy(update={"test": 999, "private": 999, "format": 2})
    data = build(TasksConfig(file=path, sizes=sizes), 2, 0)
    assert [len(split) for split in splits(data)] == [10, 5, 4, 6, 3, 3]
    assert len(data.format_rows) == 2
    assert {q.text for q in data.test} == {"q0", "q1", "q2"}
    too_many = sizes.model_copy(update={"pool": 12})
    with pytest.raises(DataFileError, match=r"30 questions .* ask for 31 \(public 10, .* test 0, format 2\)"):
        build(TasksConfig(file=path, sizes=too_many), 2, 0)


def test_splits_that_must_hold_questions_are_named_together_when_they_are_empty(tmp_path):
    path = rows_file(tmp_path, *NEEDED[:2], {"split": "seen"})
    with pytest.raises(
        DataFileError, match=r"rows\.jsonl: has no question for validation and test; name the split"
    ):
        build(TasksConfig(file=path), 2, 0)


def test_format_rows_of_generated_domains_are_in_no_other_split():
    data = build(TASKS.model_copy(update={"sizes": SIZES.model_copy(update={"format": 30})}), 4, 0)
    assert [len(split) for split in splits(data)] == [400, 300, 21, 200, 51, 100]
    assert len(data.format_rows) == 30
    assert all(question.answer == truth(question) for question in data.format_rows)
    assert not {q.text for q in data.format_rows} & {q.text for split in splits(data) for q in split}


def test_a_row_of_several_clients_is_one_question_of_each(tmp_path):
    owned = (
        {"client": [0, 2], "domain": "geo"},
        {"client": 2},
        {"client": [1], "question": "q0", "answer": "a0"},
    )
    data = build(TasksConfig(file=rows_file(tmp_path, *owned, *NEEDED)), 4, 0)
    assert [[q.text for q in rows] for rows in data.private] == [["q0"], ["q0"], ["q0", "q1"], []]
    assert data.private[0][0] is data.private[2][0]
    assert data.domains == ("geo", "own")
    assert data.partition.tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]


def test_private_rows_name_a_client_in_all_of_them_or_in_none(tmp_path):
    path = rows_file(tmp_path, {"client": 0}, {"split": "private"}, *NEEDED)
    with pytest.raises(
        DataFileError, match=r"rows\.jsonl:2: this private row names no client, and that of line 1 one"
    ):
        build(TasksConfig(file=path), 2, 0)
    path = rows_file(tmp_path, {"split": "private"}, {"client": [1]}, *NEEDED)
    with pytest.raises(
        DataFileError, match=r"rows\.jsonl:2: this private row names a client, and that of line 1 none"
    ):
        build(TasksConfig(file=path), 2, 0)
    path = rows_file(tmp_path, {"client": [0, 5]}, *NEEDED)
    with pytest.raises(DataFileError, match=r"rows\.jsonl:1: client is 5; must be below 2"):
        build(TasksConfig(file=path), 2, 0)


def test_all_wordings_of_a_fact_are_cut_into_one_split(tmp_path):
    path = rows_file(tmp_path, *({"question": [f"{n}a", f"{n}b", f"{n}c"]} for n in range(16)))
    sizes = SizesConfig(public=3, private=6, auxiliary=4, pool=9, validation=6, test=7)
    data = build(TasksConfig(file=path, sizes=sizes), 2, 0)
    assert [len(split) for split in splits(data)] == [3, 6, 4, 9, 6, 7]
    assert {q.fact for q in data.pool} <= {f"{n}a" for n in range(16)}
    for one, other in itertools.combinations(splits(data), 2):
        assert not {q.fact for q in one} & {q.fact for q in other}
    with pytest.raises(
        DataFileError, match=r"48 questions about 16 facts cannot be cut into .* in one split"
    ):
        build(TasksConfig(file=path, sizes=sizes.model_copy(update={"pool": 22})), 2, 0)


def test_accepted_answers_solutions_and_facts_reach_the_questions(tmp_path):
    row = {"question": "2+3?", "answer": ["five", 5], "fact": 7, "solution": "so #### five"}
    path = rows_file(tmp_path, *({"split": split} | row for split in ("pool",)), *NEEDED)
    tasks = TasksConfig(
        file=path,
        answer_pattern=r"#### (.*)",
        answer_prefix=" ",
        stop=("\n",),
        prompt_template="Q: {question}",
    )
    data = build(tasks, 2, 0)
    (question,) = (q for q in data.pool if q.text == "Q: 2+3?")
    assert (question.answer, question.accepted, question.taught) == ("five", ("5",), "so #### five")
    assert question.fact == "7"
    assert data.text_format == TextFormat(" ", ("\n",))
    assert data.answers.right("it is\n#### 5", question.answers)


def test_a_public_answer_that_is_made_wrong_is_so_at_the_end_of_its_solution(tmp_path):
    row = {"answer": ["12", "twelve"], "solution": "12 = 12, so #### 12", "fact": "dozen"}
    path = rows_file(tmp_path, {"split": "public"} | row, *NEEDED)
    errors = PublicErrorsConfig(rate=1.0, spread=0.0)
    data = build(TasksConfig(file=path, answer_pattern=r"#### (.*)", public_errors=errors), 2, 0)
    assert (data.public[0].answers, data.public[0].taught, data.public[0].fact) == (
        ("13",),
        "12 = 12, so #### 13",
        "dozen",
    )


def test_a_file_too_small_or_for_other_clients_is_refused(tmp_path):
    with pytest.raises(
        DataFileError, match=r"35 questions without a client or a split; tasks\.sizes ask for 36"
    ):
        build(TasksConfig(file=own_file(tmp_path, 35), sizes=SMALL), 3, 0)
    path = own_file(tmp_path, 40, client=lambda i: 7 if i == 4 else None)
    with pytest.raises(DataFileError, match=r"my\.jsonl:5: client is 7; must be below 3"):
        build(TasksConfig(file=path, sizes=SMALL), 3, 0)
