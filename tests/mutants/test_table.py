"""The table of mutants fits the code: every mistake can be made, and its tests are there."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.mutants.__main__ import LEAST_KILLED, MOST_EQUIVALENT, ROOT, main
from tests.mutants.table import MUTANTS

AREAS = {
    "link", "staleness", "bytes", "advantages", "fusion", "selection", "resume", "invariants", "deadlines", "hazards", "cost",
    "partition",
}  # fmt: skip


def test_every_old_text_stands_exactly_once_in_its_file_and_the_new_one_is_python():
    for mutant in MUTANTS:
        compile(mutant.applied((ROOT / mutant.file).read_text(encoding="utf-8")), mutant.file, "exec")


def test_every_related_test_is_there():
    for mutant in MUTANTS:
        assert mutant.tests
        for one in mutant.tests:
            file, _, name = one.partition("::")
            assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8"), one


def test_there_are_eighty_mutants_and_five_of_every_area_each_under_a_name_of_its_own():
    counts = Counter(mutant.area for mutant in MUTANTS)
    assert set(counts) == AREAS
    assert counts.total() >= 80
    assert min(counts.values()) >= 5
    assert len({mutant.what for mutant in MUTANTS}) == len(MUTANTS)


def test_few_mutants_are_called_equivalent():
    assert (LEAST_KILLED, MOST_EQUIVALENT) == (0.95, 0.05)
    assert sum(bool(mutant.equivalent) for mutant in MUTANTS) <= MOST_EQUIVALENT * len(MUTANTS)


def test_a_text_that_does_not_stand_exactly_once_cannot_be_changed():
    with pytest.raises(ValueError, match="occurs 0 times"):
        MUTANTS[0].applied("")
    with pytest.raises(ValueError, match="occurs 2 times"):
        MUTANTS[0].applied(2 * MUTANTS[0].old)


def test_an_unknown_name_is_refused_with_the_areas_there_are(capsys):
    assert main(["--only", "no such mutant"]) == 2
    assert "areas are advantages, bytes, cost" in capsys.readouterr().out
