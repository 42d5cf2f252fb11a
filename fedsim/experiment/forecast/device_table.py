"""The devices of a scenario as a table that people read: quantiles per class, a client a row, and the heterogeneity index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedsim.config.csv_files import csv_table
from fedsim.config.units import format_bytes
from fedsim.config.validation import located
from fedsim.errors import RunFolderError
from fedsim.experiment.forecast.heterogeneity import Heterogeneity, expected_reply_s, heterogeneity
from fedsim.experiment.prepared import Prepared
from fedsim.experiment.probe_run import ProbeRun
from fedsim.experiment.request_times import Forecast, RequestTimes
from fedsim.records.run_folder import write_atomically, write_json

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario

FloatArray = npt.NDArray[np.float64]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SUMMARY, TABLE = "devices.json", "devices.csv"


@dataclass(frozen=True, slots=True)
class Quantity:
    """One property of a device: its column in the files, its name for people, and units to show it in.

    ``units`` are (value of one unit, its name), the largest first; the largest that the middle of the values reaches is shown.
    """

    column: str
    title: str
    units: tuple[tuple[float, str], ...]
    logarithmic: bool = True

    def unit(self, values: FloatArray) -> tuple[float, str]:
        """The unit in which these values are easily read; their middle is the geometric mean of the extremes."""
        positive = values[np.isfinite(values) & (values > 0)]
        middle = float(np.sqrt(positive.min() * positive.max())) if positive.size else 0.0
        return next((unit for unit in self.units if middle >= unit[0]), self.units[-1])


_FLOP = ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"))
_MEMORY = ((1e9, "GB/s"), (1e6, "MB/s"))
_RATE = ((1.25e8, "Gbit/s"), (1.25e5, "Mbit/s"), (1.25e2, "kbit/s"))
_TIME = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
_SHARE = ((0.01, "%"),)

QUANTITIES = (
    Quantity("flop_per_s", "compute", _FLOP),
    Quantity("memory_bytes_per_s", "memory bandwidth", _MEMORY),
    Quantity("up_bytes_per_s", "uplink", _RATE),
    Quantity("down_bytes_per_s", "downlink", _RATE),
    Quantity("rtt_s", "round trip", (*_TIME[-2:],)),
    Quantity("there", "time there", _SHARE, logarithmic=False),
    Quantity("gives_up", "gives a request up", _SHARE, logarithmic=False),
    Quantity("down_s", "request: down", _TIME),
    Quantity("compute_s", "request: compute", _TIME),
    Quantity("up_s", "request: up", _TIME),
    Quantity("request_s", "request: nominal", _TIME),
    Quantity("drawn_s", "request: with its luck", _TIME),
    Quantity("reply_s", "to a usable reply", _TIME),
)


@dataclass(frozen=True)
class PopulationTable:
    """The K devices of a scenario.

    Attributes:
        name: the scenario's.
        seed: likewise.
        device_class: ``[K]``.
        columns: ``[K]`` by column of ``QUANTITIES``; compute and memory bandwidth as the runtime reaches them. NaN for times of
            a client that takes no part, and where the protocol asks its clients nothing.
        times: the typical request; None if there is none.
        index: the heterogeneity; None without a typical request, or if no client can be expected to reply.
    """

    name: str
    seed: int
    device_class: tuple[str, ...]
    columns: Mapping[str, FloatArray]
    times: RequestTimes | None
    index: Heterogeneity | None

    @property
    def classes(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Which clients are of a class, ``[K]``, in order of first appearance."""
        names = np.array(self.device_class)
        return {name: names == name for name in dict.fromkeys(self.device_class)}

    @property
    def quantities(self) -> list[Quantity]:
        """Those with a value for some client."""
        return [one for one in QUANTITIES if np.isfinite(self.columns[one.column]).any()]


@located
def population_table(scenario: Scenario) -> PopulationTable:
    """Draw the devices, foresee their requests and measure how unequal they are.

    Raises:
        InputError: the scenario asks for the impossible.
        FederationError: no device can hold the model.
    """
    forecast = Forecast(Prepared(scenario))
    profiles = forecast.simulation.profiles
    columns = {
        "flop_per_s": np.array([one.peak_flop_per_s * one.compute_efficiency for one in profiles]),
        "memory_bytes_per_s": np.array([one.memory_bytes_per_s * one.memory_efficiency for one in profiles]),
        "up_bytes_per_s": np.array([one.up_bytes_per_s for one in profiles]),
        "down_bytes_per_s": np.array([one.down_bytes_per_s for one in profiles]),
        "rtt_s": np.array([one.rtt_s + scenario.network.extra_rtt for one in profiles]),
        "there": _there(forecast.simulation),
    }
    times, index = forecast.request_times(), None
    columns["gives_up"] = _gives_up(forecast.simulation, times)
    names = [quantity.column for quantity in QUANTITIES if quantity.column not in columns]
    columns |= {name: np.full(len(profiles), np.nan) for name in names}
    if times is not None:
        ids = times.client_ids
        there, gives_up = columns["there"][ids], columns["gives_up"][ids]
        columns["down_s"][ids], columns["compute_s"][ids] = times.down_s, times.compute_s
        columns["up_s"][ids], columns["request_s"][ids] = times.up_s, times.nominal_s
        columns["drawn_s"][ids] = times.drawn_s.mean(axis=1)
        columns["reply_s"][ids] = expected_reply_s(times.drawn_s, there, gives_up)
        index = heterogeneity(times.drawn_s, there, gives_up, len(profiles) - len(ids))
    return PopulationTable(
        name=scenario.name,
        seed=scenario.seed,
        device_class=tuple(profile.device_class for profile in profiles),
        columns=columns,
        times=times,
        index=index,
    )


def _there(simulation: ProbeRun) -> FloatArray:
    """Long-run share of time that each client is there while it takes part, ``[K]``."""
    stated = simulation.prepared.availability
    return np.array([stated.share_of(client_id) for client_id in range(len(simulation.profiles))])


def _gives_up(simulation: ProbeRun, times: RequestTimes | None) -> FloatArray:
    """Probability that a client gives a request up, ``[K]``: ``1 - (1 - p_k) exp(-sum over phases of h d)``, nominal d."""
    dropout = simulation.world.dropout
    per_task = np.array([dropout.per_task_of(id_) for id_ in range(len(simulation.profiles))])
    if times is None:
        return per_task
    spent = (
        dropout.hazard_per_s("down") * times.down_s
        + dropout.hazard_per_s("compute") * times.compute_s
        + dropout.hazard_per_s("up") * times.up_s
    )
    per_task[times.client_ids] = 1 - (1 - per_task[times.client_ids]) * np.exp(-spent)
    return per_task


def lines(table: PopulationTable) -> Iterator[str]:
    """The table for a terminal: a block of quantiles for each class, and the index in words."""
    classes = table.classes
    everybody = np.ones(len(table.device_class), dtype=np.bool_)
    blocks = classes if len(classes) == 1 else {**classes, "all": everybody}
    units = {one.column: one.unit(table.columns[one.column]) for one in table.quantities}
    titles = {one.column: f"{one.title}, {units[one.column][1]}" for one in table.quantities}
    width = max(map(len, titles.values()))
    head = "".join(f"{f'{100 * p:g}%':>10}" for p in QUANTILES)
    for name, members in blocks.items():
        yield f"{_counted(int(members.sum()), name):{width + 2}}{head}"
        for quantity in table.quantities:
            values = table.columns[quantity.column][members]
            cells = [number(value / units[quantity.column][0]) for value in quantiles(values)]
            yield f"  {titles[quantity.column]:{width}}" + "".join(f"{cell:>10}" for cell in cells)
        yield ""
    yield from _index_lines(table)


def _index_lines(table: PopulationTable) -> Iterator[str]:
    times, index = table.times, table.index
    if times is None:
        yield "the protocol asks its clients nothing, so there is no request to time and no heterogeneity index"
        return
    yield (
        f"one request ({times.purpose}): {format_bytes(times.down_bytes)} down, {format_bytes(times.up_bytes)} up; "
        "nominal times are for idle links and an idle device"
    )
    if index is None:
        yield "heterogeneity index: none, since no client can be expected to reply"
        return
    yield (
        f"heterogeneity index: {index.index:.2f} (devices {index.device:.2f}, absence and giving up {index.state:.2f}, "
        f"luck of one request {index.luck:.2f}); p90 / p10 of the time to a usable reply: {index.p90_over_p10:.3g}"
    )
    if index.correlation is not None:
        yield f"correlation of slowness with absence: {index.correlation:+.2f}"
    if index.num_never:
        yield (
            f"{index.num_never} of {len(table.device_class)} clients can never reply (too small, always away, or always "
            "giving up)"
        )


def quantiles(values: FloatArray) -> FloatArray:
    """The five quantiles of the values that are numbers (an infinite one counts), by linear interpolation."""
    known = np.sort(values[~np.isnan(values)])
    if not known.size:
        return np.full(len(QUANTILES), np.nan)
    finite = np.where(np.isinf(known), np.finfo(np.float64).max, known)
    found = np.quantile(finite, QUANTILES)
    return np.where(found > 1e300, np.inf, found)


def number(value: float) -> str:
    """Three digits for a table: ``0.0123``, ``4.5``, ``1230``; ``never`` for infinity and a dash for none."""
    if np.isnan(value):
        return "-"
    if np.isinf(value):
        return "never"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _counted(count: int, name: str) -> str:
    return f"{name}: {count} device{'' if count == 1 else 's'}"


def as_plain(table: PopulationTable) -> dict[str, Any]:
    """What ``devices.json`` holds: quantiles by class and column, the typical request, and the index."""
    times = table.times
    everybody = np.ones(len(table.device_class), dtype=np.bool_)
    return {
        "scenario": table.name,
        "seed": table.seed,
        "heterogeneity": None if table.index is None else asdict(table.index),
        "request": None
        if times is None
        else {
            "purpose": times.purpose,
            "down_bytes": times.down_bytes,
            "up_bytes": times.up_bytes,
            "num_messages": times.num_messages,
        },
        "quantiles": list(QUANTILES),
        "classes": {
            name: {"num_clients": int(members.sum())}
            | {one.column: quantiles(table.columns[one.column][members]).tolist() for one in QUANTITIES}
            for name, members in {**table.classes, "all": everybody}.items()
        },
    }


def write_population(table: PopulationTable, folder: Path) -> Sequence[Path]:
    """Write ``devices.json`` and ``devices.csv`` (a client a row), over those of an earlier look at the same folder.

    Raises:
        RunFolderError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and not (folder / SUMMARY).exists():
        if not folder.is_dir():
            raise RunFolderError(f"{folder} is a file; --out must be a new or empty folder")
        if next(folder.iterdir(), None) is not None:
            raise RunFolderError(f"{folder} is not empty; --out must be a new or empty folder")
    names = [quantity.column for quantity in QUANTITIES]
    values = np.column_stack([table.columns[name] for name in names]).tolist()
    rows = [
        [client_id, device_class, *("" if value != value else f"{value:.6g}" for value in row)]
        for client_id, (device_class, row) in enumerate(zip(table.device_class, values, strict=True))
    ]
    content = csv_table(["client_id", "device_class", *names], rows)
    try:
        return (
            write_atomically(folder / TABLE, content),
            write_json(folder / SUMMARY, as_plain(table)),
        )
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from error
