"""How the initial policy did is measured once, and read back only where nothing that decides it has changed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from fedsim.errors import CacheError
from fedsim.models.interfaces import Accuracy
from fedsim.models.real.initial_evaluation import FirstLooks
from fedsim.tasks.questions import Question

QUESTIONS = (Question(1, "gcd", "gcd of 4 and 6", "2"),)
FOUND = Accuracy(1 / 3, 0.1, math.nan, {"gcd": 0.1 + 0.2}, 1e-17, -0.0, 1)


class Measuring:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Accuracy:
        self.times += 1
        return FOUND


def test_what_is_read_back_has_the_same_bits(tmp_path: Path) -> None:
    measuring = Measuring()
    FirstLooks(tmp_path, {"server": "a"}).look(QUESTIONS, 8, measuring)
    again = FirstLooks(tmp_path, {"server": "a"}).look(QUESTIONS, 8, measuring)
    assert measuring.times == 1
    assert repr(again) == repr(FOUND)  # repr tells -0.0 from 0.0 and shows NaN


@pytest.mark.parametrize(
    ("parts", "questions", "num_samples"),
    [
        ({"server": "b"}, QUESTIONS, 8),
        ({"server": "a"}, QUESTIONS, 16),
        ({"server": "a"}, (Question(1, "gcd", "gcd of 4 and 6", "3"),), 8),
        ({"server": "a"}, (Question(2, "gcd", "gcd of 4 and 6", "2"),), 8),
    ],
)
def test_other_weights_samples_truths_or_ids_are_measured_again(
    tmp_path: Path, parts, questions, num_samples
) -> None:
    measuring = Measuring()
    FirstLooks(tmp_path, {"server": "a"}).look(QUESTIONS, 8, measuring)
    FirstLooks(tmp_path, parts).look(questions, num_samples, measuring)
    assert measuring.times == 2


def test_a_file_with_other_digits_is_refused_by_its_name(tmp_path: Path) -> None:
    looks = FirstLooks(tmp_path, {})
    looks.look(QUESTIONS, 8, Measuring())
    (kept,) = tmp_path.iterdir()
    digit = re.search(rb"0\.(\d)", kept.read_bytes())
    assert digit is not None
    changed = bytearray(kept.read_bytes())
    changed[digit.start(1)] ^= 1
    kept.write_bytes(changed)
    with pytest.raises(CacheError, match=rf"{kept.name} is not what was written; delete this cache folder: "):
        looks.look(QUESTIONS, 8, Measuring())
