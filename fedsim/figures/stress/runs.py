"""A stress sweep as figures need it: ``stress.json`` read back, and checked to be one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsim.errors import RunFolderError


@dataclass(frozen=True, slots=True)
class Sweep:
    """One sweep.

    Attributes:
        folder: where it lies.
        name: its name.
        fidelity: ``timing`` (no accuracy) or ``real``.
        axes: per axis its ``key``, ``levels`` (None for a range), ``low``, ``high``, ``scale`` and ``unit``, in the file's
            order.
        x, y, panels: which axis is across, up, and has a panel for each level; None where there is none.
        points: per point its ``levels``, ``statuses``, ``reasons`` and every number (`fedsim.sweeps.stress.pages.document`).
        lost: per level of the panels' axis (``all`` where there is none), why rewards were lost.
    """

    folder: Path
    name: str
    fidelity: str
    seeds: tuple[int, ...]
    is_random: bool
    axes: Mapping[str, Mapping[str, Any]] = field(repr=False)
    x: str
    y: str | None
    panels: str | None
    points: tuple[Mapping[str, Any], ...] = field(repr=False)
    lost: Mapping[str, Mapping[str, Any]] = field(repr=False)

    def levels(self, axis: str | None) -> list[str]:
        """An axis's levels in order; one without a name where there is no such axis."""
        return [""] if axis is None else [str(level) for level in self.axes[axis]["levels"]]

    def at(self, panel: str) -> list[Mapping[str, Any]]:
        """The points of one panel."""
        return [
            point for point in self.points if self.panels is None or point["levels"][self.panels] == panel
        ]

    def label(self, axis: str) -> str:
        """An axis's name, with the unit of its numbers if it has one."""
        unit = self.axes[axis]["unit"]
        return f"{axis} ({unit})" if unit else axis

    @property
    def averaged(self) -> list[str]:
        """Axes that no figure shows: it takes a mean over their levels, or the median of all their runs."""
        return [name for name in self.axes if name not in (self.x, self.y, self.panels)]


def read_sweep(folder: Path | str) -> Sweep:
    """Read a finished sweep's folder.

    Raises:
        RunFolderError: it is none, or ``stress.json`` is damaged.
    """
    path = Path(folder) / "stress.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        shape = data["layout"]
        if not all("time_won" in point for point in data["points"]):
            raise RunFolderError(f"{path} is of an earlier version; sweep again, finished runs are kept")
        return Sweep(
            folder=Path(folder),
            name=data["name"],
            fidelity=data["fidelity"],
            seeds=tuple(data["seeds"]),
            is_random=data["random"],
            axes=data["axes"],
            x=shape["x"],
            y=shape["y"],
            panels=shape["panels"],
            points=tuple(data["points"]),
            lost={name: losses for name, losses in data["lost"].items() if losses["shares"]},
        )
    except OSError:
        raise RunFolderError(f"{folder} is not a finished sweep: it has no stress.json") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged ({error!r}); sweep again, finished runs are kept") from None
