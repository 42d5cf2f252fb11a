"""The trained part of a model as it travels: packed into tensors, read back, and checked. Shared by protocols that average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fedsim.errors import FederationError
from fedsim.models.interfaces import Weights
from fedsim.sim.network import wire


def packed(weights: Weights, number_type: wire.NumberType) -> tuple[wire.Tensor, ...]:
    """Arrays as they travel: little-endian numbers of this type; beyond float16's range they become infinite."""
    with np.errstate(over="ignore"):
        return tuple(
            wire.Tensor(name, array.shape, array.astype(wire.DTYPES[number_type]).tobytes())
            for name, array in weights.items()
        )


def unpacked(
    tensors: Sequence[wire.Tensor], number_type: wire.NumberType
) -> dict[str, npt.NDArray[np.float32]]:
    """The numbers that arrived."""
    return {
        tensor.name: np.frombuffer(tensor.data, wire.DTYPES[number_type])
        .reshape(tensor.shape)
        .astype(np.float32)
        for tensor in tensors
    }


def received(client_id: int, round_index: int, upload: wire.AdapterUp) -> dict[str, npt.NDArray[np.float32]]:
    """The module that a client sent.

    Raises:
        FederationError: some of its numbers are not finite.
    """
    update = unpacked(upload.tensors, upload.number_type)
    if not all(np.isfinite(array).all() for array in update.values()):
        raise FederationError(
            f"client {client_id} sent numbers that are not finite in round {round_index}: its training diverged; lower "
            "local_learning_rate, or send number_type float32"
        )
    return update


def distance(before: Weights, after: Mapping[str, npt.NDArray[np.floating]]) -> float:
    """l2 norm of the step from one module to another."""
    return float(np.sqrt(sum(float(np.square(after[name] - before[name]).sum()) for name in before)))
