"""What the committed question files promise: no question is learnt on that is also measured, and owners are named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "scenarios" / "data"
LEARNT = {"format", "private", "auxiliary", "pool"}


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def facts(name: str, *splits: str) -> set[str]:
    return {row["fact"] for row in rows(name) if row["split"] in splits}


@pytest.mark.parametrize("name", ["skills.jsonl", "knowledge.jsonl"])
def test_every_row_has_the_keys_of_a_question_file_and_only_private_ones_an_owner(name):
    assert (DATA / name).stat().st_size < 300_000
    for row in rows(name):
        assert {"question", "answer", "domain", "split", "fact"} == set(row) - {"client"}
        assert ("client" in row) == (row["split"] == "private")


@pytest.mark.parametrize("name", ["skills.jsonl", "knowledge.jsonl"])
def test_what_is_tested_is_nowhere_learnt(name):
    assert not facts(name, "test") & facts(name, *LEARNT, "validation")
    assert not facts(name, "validation") & facts(name, *LEARNT)
    assert not facts(name, "format") & facts(name, "private", "auxiliary", "pool", "validation", "test")


def test_a_word_whose_form_is_tested_is_learnt_in_no_domain():
    forms = [row for row in rows("skills.jsonl") if row["split"] not in {"format", "reworded"}]
    split_of: dict[str, set[str]] = {}
    for row in forms:
        word = row["answer"] if row["domain"] == "singular" else row["fact"].partition(":")[2]
        split_of.setdefault(word, set()).add(row["split"])
    assert len(split_of) > 700
    assert {word: splits for word, splits in split_of.items() if len(splits) > 1} == {}
    asked = {word for row in rows("skills.jsonl") if row["split"] == "format" for word in words(row)}
    assert not asked & set(split_of)


def words(row: dict) -> set[str]:
    return {row["fact"].partition(":")[2], *re.findall(r"\w+", str(row["answer"]))}


def test_no_form_that_is_taught_is_among_the_format_rows():
    taught = {row["domain"] for row in rows("skills.jsonl") if row["split"] == "pool"}
    assert not taught & {row["domain"] for row in rows("skills.jsonl") if row["split"] == "format"}


def test_every_skill_is_held_by_two_clients_of_which_one_has_most_rows():
    held: dict[str, list[int]] = {}
    for row in rows("skills.jsonl"):
        if row["split"] == "private":
            held.setdefault(row["domain"], []).append(row["client"])
    for clients in held.values():
        most, least = sorted((clients.count(client) for client in set(clients)), reverse=True)
        assert 2 * least < most < 4 * least


def test_facts_that_are_rewarded_or_held_back_are_known_to_an_owner_in_other_words():
    known = facts("knowledge.jsonl", "private")
    for split in ("auxiliary", "pool", "reworded", "unasked"):
        assert facts("knowledge.jsonl", split) <= known
    assert facts("knowledge.jsonl", "reworded") == facts("knowledge.jsonl", "pool")
    assert not facts("knowledge.jsonl", "unasked") & facts("knowledge.jsonl", "pool")
    private = {row["question"] for row in rows("knowledge.jsonl") if row["split"] == "private"}
    assert not private & {row["question"] for row in rows("knowledge.jsonl") if row["split"] == "pool"}
