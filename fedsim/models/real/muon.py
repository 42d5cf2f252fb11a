"""Muon for small matrices on a CPU: matrices of one shape are orthogonalised together, in float32.

The mathematics is that of ``torch.optim.Muon``, whose Newton-Schulz iteration runs in bfloat16 one matrix at a time: on
a CPU without matrix units that took more than half of a training step here, this takes a quarter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz: ``W -= lr sqrt(max(1, rows / columns)) NS(beta M + (1 - beta) G)``.

    Weight decay is decoupled: ``W`` is first scaled by ``1 - lr decay``. ``M`` is the running mean
    ``beta M + (1 - beta) G`` of the gradients, used with Nesterov's look-ahead. For matrices only; embeddings and
    norms belong to AdamW.

    References:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """

    def __init__(
        self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step for every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes.setdefault(matrix.shape, []).append(matrix)
            for matrices in shapes.values():
                self._step_together(matrices, group["lr"], group["momentum"], group["weight_decay"])

    def _step_together(self, matrices: list[Tensor], lr: float, beta: float, decay: float) -> None:
        looks = []
        for matrix in matrices:
            state = self.state[matrix]
            if "mean" not in state:
                state["mean"] = torch.zeros_like(matrix)
            assert matrix.grad is not None
            state["mean"].lerp_(matrix.grad, 1.0 - beta)
            looks.append(matrix.grad.lerp(state["mean"], beta))
        rows, columns = matrices[0].shape
        scale = lr * max(1.0, rows / columns) ** 0.5
        for matrix, direction in zip(matrices, orthogonalised(torch.stack(looks)), strict=True):
            matrix.mul_(1.0 - lr * decay).sub_(direction, alpha=scale)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Nearly the nearest orthogonal matrices, ``U V^T`` of each ``U S V^T``: ``[n, rows, columns]``.

    Five steps of the quintic iteration ``X <- a X + (b X X^T + c (X X^T)^2) X`` from the normalised matrix. The singular
    values come out within about 0.7 to 1.2, which is all that Muon needs.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
