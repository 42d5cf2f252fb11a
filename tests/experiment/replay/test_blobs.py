"""Weights beside the tape: the same numbers, in the same order, or a clear word."""

from __future__ import annotations

import numpy as np
import pytest

from fedsim.errors import RunFolderError
from fedsim.experiment.replay.blobs import Blobs

WEIGHTS = {
    f"{layer}.{name}": np.full((2, 3), 0.1 * place, np.float32)
    for place, layer in enumerate("zqamxb")
    for name in ("lora_A", "lora_B")
}


def test_arrays_come_back_bit_for_bit_and_in_their_own_order(tmp_path):
    kept = Blobs(tmp_path).put(WEIGHTS)
    found = Blobs(tmp_path).get(kept)
    assert list(found) == list(WEIGHTS)  # not that of a file, which sorts
    for name, array in WEIGHTS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_set_that_is_known_is_written_once(tmp_path):
    blobs = Blobs(tmp_path)
    assert blobs.put(WEIGHTS) == blobs.put(dict(WEIGHTS))
    assert len(list(tmp_path.iterdir())) == 1


def test_damaged_and_missing_weights_are_told(tmp_path):
    kept = Blobs(tmp_path).put(WEIGHTS)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunFolderError, match="is damaged; run the scenario again"):
        Blobs(tmp_path).get(kept)
    path.unlink()
    with pytest.raises(RunFolderError, match="weights on the tape are missing"):
        Blobs(tmp_path).get(kept)
