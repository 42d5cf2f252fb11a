import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.protocols.shared.correct_candidates import CorrectCandidates


@given(st.dictionaries(st.integers(0, 5000), st.lists(st.booleans(), min_size=3, max_size=3)))
def test_marks_are_a_mapping_from_draws(expected):
    marks = CorrectCandidates()
    for draw, right in expected.items():
        marks.put(draw, [not one for one in right])
        marks.put(draw, right)
    assert marks == expected
    assert len(marks) == len(expected)
    assert marks.get(6000) is None


def test_groups_of_two_sizes_are_refused():
    marks = CorrectCandidates()
    marks.put(0, [True, False])
    with pytest.raises(ValueError, match="a group of 3 candidates among groups of 2"):
        marks.put(1, [True, False, True])
