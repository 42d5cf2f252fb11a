"""Results as tables: records and metrics as Parquet, and ``load`` to get them back as polars frames.

Parquet is written once, at the end, from the record log (``fedsim.records.parquet``). A run's records are read when they are
first
used: those of a long run may be larger than what is asked of them. polars is imported on first use.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.config.files import why
from fedsim.errors import RunFolderError
from fedsim.records.log import RecordLog
from fedsim.records.metrics import METRIC_COLUMNS, Metrics
from fedsim.records.parquet import FILES, Tables, columns, frame, write_parquet
from fedsim.records.rows import Ratio
from fedsim.records.run_folder import METRICS, RECORDS, SUMMARY, RunFolder, read_manifest, read_object

if TYPE_CHECKING:
    import polars as pl

_KINDS = {name: kind for kind, name in FILES.items()}
_LATER = (
    Ratio,
)  # kinds that runs of this format may lack: they are older than the kind, and had no such row


@dataclass(frozen=True, slots=True)
class Run:
    """One run read back from its folder.

    Attributes:
        folder: where it lies.
        manifest: ``manifest.json``.
        summary: ``summary.json``.
        metrics: one row per update and per evaluation, over virtual time (see ``Metrics``).
        records: one frame per kind of record, read when it is first used: ``transfers``, ``computes``, ``outcomes``,
            ``rewards``, ``groups``, ``updates``, ``evaluations``, ``presence``, ``members``, ``faults``, ``ratios``; their
            columns are the fields in ``fedsim.records.rows``.
    """

    folder: Path
    manifest: dict[str, Any] = field(repr=False)
    summary: dict[str, Any] = field(repr=False)
    metrics: pl.DataFrame = field(repr=False)
    records: Mapping[str, pl.DataFrame] = field(repr=False)

    @property
    def measures(self) -> bool:
        """Whether models sampled and scored: not in timing fidelity, where nothing of learning is measured."""
        return (self.manifest.get("scenario") or {}).get("fidelity") != "timing"

    def scan(self, name: str) -> pl.LazyFrame:
        """One kind of record as a lazy frame: of a long run, only what is asked of it comes into memory."""
        import polars as pl

        kind = _KINDS[name]
        path = self.folder / RECORDS / f"{name}.parquet"
        return (
            frame(kind, []).lazy()
            if kind in _LATER and not path.exists()
            else pl.scan_parquet(path, glob=False)
        )

    @property
    def transfers(self) -> pl.DataFrame:
        """Messages and their bytes."""
        return self.records["transfers"]

    @property
    def computes(self) -> pl.DataFrame:
        """Computations of devices and of the server."""
        return self.records["computes"]

    @property
    def outcomes(self) -> pl.DataFrame:
        """One row per request: how it ended."""
        return self.records["outcomes"]

    @property
    def rewards(self) -> pl.DataFrame:
        """Scores that clients returned."""
        return self.records["rewards"]

    @property
    def groups(self) -> pl.DataFrame:
        """Groups of candidates as their advantages became final."""
        return self.records["groups"]

    @property
    def updates(self) -> pl.DataFrame:
        """Optimiser steps."""
        return self.records["updates"]

    @property
    def evaluations(self) -> pl.DataFrame:
        """Accuracy of policy versions."""
        return self.records["evaluations"]

    @property
    def presence(self) -> pl.DataFrame:
        """Intervals in which devices were available."""
        return self.records["presence"]

    @property
    def members(self) -> pl.DataFrame:
        """One row per client: whether it takes part, and its one-off training."""
        return self.records["members"]

    @property
    def faults(self) -> pl.DataFrame:
        """Faults on purpose: when they held and whom, and the replies that they struck."""
        return self.records["faults"]

    @property
    def ratios(self) -> pl.DataFrame:
        """Effective sample share, clip fraction and divergence of every update by staleness (``record_ratios``)."""
        return self.records["ratios"]


def write_results(folder: RunFolder, log: RecordLog, summary: Mapping[str, Any]) -> None:
    """Write the records, the metrics and the summary of a run into its folder."""
    metrics = Metrics(log)
    with Tables(folder.path / RECORDS) as tables:
        for chunk in log.chunks():
            metrics.add(chunk)
            tables.add(chunk)
        tables.finish()
    write_parquet(folder.path / METRICS, metrics.frame())
    folder.write_json(SUMMARY, summary)


def load(folder: Path | str) -> Run:
    """Read a run folder that a finished (or an interrupted) run has written.

    Raises:
        RunFolderError: the folder is not a run of fedsim, was written by a newer version, is still being
            written, or lacks a file, or a file is cut short.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    try:
        summary = read_object(path / SUMMARY, "is damaged or cut short; run it again")
        records = _Records(path / RECORDS)
        metrics = _read_parquet(path / METRICS, METRIC_COLUMNS)
    except FileNotFoundError as error:
        missing = Path(error.filename).relative_to(path) if error.filename else "a file"
        hint = {"running": "the run has not ended yet", "finished": "the folder is not whole"}
        reason = hint.get(manifest["status"], f"the run {manifest['status']} before writing it")
        raise RunFolderError(f"{path}: {missing} is missing; {reason}") from error
    except OSError as error:
        raise RunFolderError(f"{error.filename or path}: cannot be read: {why(error)}") from None
    return Run(path, manifest, summary, metrics, records)


class _Records(Mapping[str, "pl.DataFrame"]):
    """The frames of a run's records, each read when it is first asked for.

    Raises:
        FileNotFoundError: a file is missing.
        RunFolderError: a file is cut short or damaged; of damage inside of it one hears when it is read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, pl.DataFrame] = {}
        for kind, name in FILES.items():
            if kind not in _LATER or self._path(name).exists():
                _check_columns(self._path(name), columns(kind))

    def __getitem__(self, name: str) -> pl.DataFrame:
        if name not in self._read:
            kind = _KINDS[name]
            path = self._path(name)
            absent = kind in _LATER and not path.exists()
            self._read[name] = frame(kind, []) if absent else _read_parquet(path, columns(kind))
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_KINDS)

    def __len__(self) -> int:
        return len(_KINDS)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.parquet"


def _check_columns(path: Path, wanted: Mapping[str, Any]) -> None:
    """Look at the end of a Parquet file, which says what is in it."""
    import polars as pl

    with path.open("rb") as stream:  # raises FileNotFoundError, which names the file
        try:
            found = pl.read_parquet_schema(stream)
        except pl.exceptions.PolarsError as error:
            raise RunFolderError(f"{path} is damaged or cut short; run it again") from error
    _refuse_absent(path, wanted, found)


def _read_parquet(path: Path, wanted: Mapping[str, Any]) -> pl.DataFrame:
    import polars as pl

    content = path.read_bytes()  # raises FileNotFoundError, which names the file
    try:
        table = pl.read_parquet(io.BytesIO(content))
    except pl.exceptions.PolarsError as error:
        raise RunFolderError(f"{path} is damaged or cut short; run it again") from error
    _refuse_absent(path, wanted, table.columns)
    return table


def _refuse_absent(path: Path, wanted: Iterable[str], found: Collection[str]) -> None:
    absent = [name for name in wanted if name not in found]
    if absent:
        raise RunFolderError(f"{path} lacks the column {absent[0]}; it was written by another version")
