"""Who owns what: private rows per client and domain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from fedsim.config.csv_files import read_csv
from fedsim.errors import RunFolderError
from fedsim.figures.labels import shown_name
from fedsim.figures.run.devices import device_classes
from fedsim.figures.style import new_figure, styled
from fedsim.records.run import Run
from fedsim.records.run_folder import PARTITION

Counts = npt.NDArray[np.int64]

# Beyond this many clients the numbers in the cells cannot be read.
_MAX_LABELLED = 32


def partition(run: Run) -> Figure | None:
    """Heat map of ``partition.csv`` (or ``.json``): clients by domains, with the counts in the cells.

    Colour follows the square root of the count, so that a client with few rows differs from one with none.
    """
    table = read_partition(run.folder)
    if table is None:
        return None
    domains, counts = table
    classes = device_classes(run)
    num_clients = len(counts)
    with styled():
        figure = new_figure(min(1.3 + 0.22 * num_clients, 8.0), width_in=min(7.2, 2.4 + 0.85 * len(domains)))
        axes = figure.subplots()
        norm = PowerNorm(0.5, vmin=0, vmax=max(1, int(counts.max(initial=0))))
        image = axes.imshow(counts, aspect="auto", cmap="Blues", norm=norm, interpolation="nearest")
        axes.set_xticks(
            range(len(domains)), [*map(shown_name, domains)], rotation=20, ha="right", rotation_mode="anchor"
        )
        axes.spines[:].set_visible(False)
        axes.set_xlabel("domain")
        axes.set_ylabel("client")
        if num_clients <= _MAX_LABELLED:
            labels = [
                f"{client}  {classes[client]}" if client in classes else str(client)
                for client in range(num_clients)
            ]
            axes.set_yticks(range(num_clients), labels)
            _write_counts(axes, counts)
        axes.tick_params(length=0)
        figure.colorbar(image, ax=axes, label="private rows", shrink=0.9, pad=0.02)
    return figure


def read_partition(folder: Path) -> tuple[list[str], Counts] | None:
    """Domains and counts ``[K, D]`` of a run folder, or None if it has no partition.

    ``partition.csv`` has a header ``client_id,<domain>,...``; ``partition.json`` holds ``domains`` and
    ``counts``.

    Raises:
        RunFolderError: the file is not such a table.
    """
    table, document = folder / PARTITION, folder / "partition.json"
    try:
        if table.exists():
            head, *rows = read_csv(table.read_bytes())
            domains, counts = head[1:], [[int(cell) for cell in row[1:]] for row in rows]
        elif document.exists():
            content = json.loads(document.read_text())
            domains, counts = list(content["domains"]), content["counts"]
        else:
            return None
        return domains, np.array(counts, dtype=np.int64).reshape(len(counts), len(domains))
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder}: the partition is not a table of clients by domains") from error


def _write_counts(axes: Axes, counts: Counts) -> None:
    dark = 0.3 * counts.max(initial=0)
    for client, row in enumerate(counts):
        for domain, count in enumerate(row):
            colour = "white" if count > dark else "black"
            axes.text(domain, client, f"{count}", ha="center", va="center", fontsize=7, color=colour)
