"""Drawing the devices of a run: one row per client in plain arrays.

Every property of a class has its own stream, keyed by (seed, class, property), and device i of the class
takes the i-th number of it. So adding devices of another class, or more of the same, changes nobody else's
device.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from fedsim.config.files import finite_decimal, read_text
from fedsim.config.limits import MAX_CLIENTS, MAX_DATA_BYTES
from fedsim.config.validation import scenario_error
from fedsim.config.yaml import Document
from fedsim.errors import DataFileError
from fedsim.sim import streams
from fedsim.sim.devices.config import ClassSettings, ClientsConfig, ServerConfig
from fedsim.sim.devices.presets import (
    WIFI,
    DeviceSettings,
    device_preset,
    device_presets,
    link_profiles,
    phone_models,
    unknown_name,
    wifi_links,
)
from fedsim.sim.devices.profile import NUMERIC_FIELDS, DeviceProfile

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Population:
    """The K clients of a run: ``class_index`` [K] into ``class_names``, and one array [K] per numeric field.

    ``columns`` is keyed by the field names of ``DeviceProfile``; treat the arrays as read-only.
    """

    class_names: tuple[str, ...]
    class_index: IntArray
    columns: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return len(self.class_index)

    def profile(self, client_id: int) -> DeviceProfile:
        """The profile of one client.

        Raises:
            IndexError: the id is not in ``range(K)``.
        """
        if not 0 <= client_id < len(self):
            raise IndexError(f"client {client_id} is not one of the {len(self)} clients")
        return DeviceProfile(self.device_class(client_id), *self._rows[client_id].tolist())

    def device_class(self, client_id: int) -> str:
        """The class of one client."""
        return self.class_names[int(self.class_index[client_id])]

    @cached_property
    def _rows(self) -> FloatArray:
        """The columns side by side [K, F], for who asks for whole profiles."""
        return np.stack([self.columns[name] for name in NUMERIC_FIELDS], axis=1)

    @cached_property
    def classes(self) -> list[str]:
        """The class of every client [K]."""
        return [self.class_names[index] for index in self.class_index.tolist()]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of clients by class, in order of first appearance."""
        numbers = np.bincount(self.class_index, minlength=len(self.class_names))
        return {name: int(number) for name, number in zip(self.class_names, numbers, strict=True)}

    def ids_of(self, device_class: str) -> list[int]:
        """The clients of one class, ascending."""
        return [int(i) for i in np.flatnonzero(self.class_index == self.class_names.index(device_class))]


def draw(config: ClientsConfig, seed: int, folder: Path = Path()) -> Population:
    """Draw the clients of a run.

    Args:
        config: classes with counts and overrides, or a device file.
        seed: the run's seed.
        folder: where a relative device file is looked up (the scenario's folder).

    Raises:
        DataFileError: the device file is missing, empty or wrong; the message starts with ``file:line``.
    """
    if config.file is not None:
        return _draw_rows(_read_rows(folder / config.file), seed)
    classes = {name: settings for name, settings in config.classes.items() if settings.count}
    drawn = [
        _columns(name, settings, _class_draws(name, settings.count, seed))
        for name, settings in classes.items()
    ]
    counts = [settings.count for settings in classes.values()]
    return Population(
        class_names=tuple(classes),
        class_index=np.repeat(np.arange(len(classes), dtype=np.int64), counts),
        columns={field: np.concatenate([columns[field] for columns in drawn]) for field in NUMERIC_FIELDS},
    )


def server_profile(config: ServerConfig) -> DeviceProfile:
    """The server's own machine: nominal rates, no spread (its links are ``network.server_link``)."""
    exact = config.model_copy(update={"speed_spread": 0.0, "speeds": "lognormal"})
    columns = _columns(config.preset, exact, _class_draws(config.preset, 1, seed=0))
    return DeviceProfile(
        device_class=config.preset, **{field: float(columns[field][0]) for field in NUMERIC_FIELDS}
    )


class _Draws(NamedTuple):
    """Uniform draws [n] of n devices of one class."""

    speed: FloatArray
    link: FloatArray

    def of(self, index: int) -> _Draws:
        return _Draws(self.speed[index : index + 1], self.link[index : index + 1])


def _class_draws(name: str, count: int, seed: int) -> _Draws:
    return _Draws(
        speed=streams.generator(seed, "device", name, "speed").random(count),
        link=streams.generator(seed, "device", name, "link").random(count),
    )


def _columns(name: str, overrides: DeviceSettings, draws: _Draws) -> dict[str, FloatArray]:
    """Columns [n] of the devices of one class that these draws belong to."""
    settings = device_preset(name).with_overrides(overrides)
    columns = {
        field: np.full(len(draws.speed), _zero_if_unset(getattr(settings, key)))
        for field, key in _FIELD_KEYS.items()
    }
    _spread_speed(columns, settings, overrides, draws.speed)
    _attach_link(columns, settings, draws.link)
    return columns


def _spread_speed(
    columns: dict[str, FloatArray], settings: DeviceSettings, overrides: DeviceSettings, draws: FloatArray
) -> None:
    """Scale compute by the device's relative speed, and memory bandwidth by speed to ``memory_exponent``."""
    if settings.speeds == "phone-models":
        table = phone_models()
        rows = _row_of(draws, len(table))
        speed = np.array([model.relative_speed for model in table])[rows]
        if overrides.memory is None:
            columns["memory_bytes"] = np.array([model.memory_bytes for model in table])[rows]
    elif settings.speed_spread:
        sigma = settings.speed_spread
        speed = np.exp(sigma * _standard_normal(draws) - 0.5 * sigma * sigma)
    else:
        return
    columns["peak_flop_per_s"] *= speed
    columns["memory_bytes_per_s"] *= speed ** _zero_if_unset(settings.memory_exponent)


def _attach_link(columns: dict[str, FloatArray], settings: DeviceSettings, draws: FloatArray) -> None:
    """Fill what the settings leave open from the named link's table."""
    if settings.link is None:
        return
    table = wifi_links() if settings.link == WIFI else (link_profiles()[settings.link],)
    rows = _row_of(draws, len(table))
    for field, key in _FIELD_KEYS.items():
        if key in _LINK_FIELDS and getattr(settings, key) is None:
            values = [getattr(link, field) for link in table]
            columns[field] = np.array([_WIFI_RTT_S if value is None else value for value in values])[rows]


_FIELD_KEYS = {
    "peak_flop_per_s": "peak",
    "memory_bytes_per_s": "memory_bandwidth",
    "compute_efficiency": "compute_efficiency",
    "memory_efficiency": "memory_efficiency",
    "memory_bytes": "memory",
    "overhead_s": "overhead",
    "step_overhead_s": "step_overhead",
    "compute_jitter": "compute_jitter",
    "up_bytes_per_s": "up",
    "down_bytes_per_s": "down",
    "rtt_s": "rtt",
    "up_jitter": "up_jitter",
    "down_jitter": "down_jitter",
    "rtt_jitter": "rtt_jitter",
    "power_active_w": "power_active",
    "power_idle_w": "power_idle",
    "radio_up_j_per_byte": "radio_up",
    "radio_down_j_per_byte": "radio_down",
}
_LINK_FIELDS = ("up", "down", "rtt", "up_jitter", "down_jitter")
# The Wi-Fi table has no delays; this one holds where a scenario puts a wired preset on Wi-Fi (the presets'
# own value).
_WIFI_RTT_S = 0.035


def _zero_if_unset(value: float | None) -> float:
    return 0.0 if value is None else value


def _row_of(draws: FloatArray, num_rows: int) -> IntArray:
    return np.minimum((draws * num_rows).astype(np.int64), num_rows - 1)


def _standard_normal(draws: FloatArray) -> FloatArray:
    """Inverse normal transform [n]."""
    return np.array([streams.standard_normal(draw) for draw in np.maximum(draws, 2.0**-54).tolist()])


# Device files.


def _draw_rows(rows: list[tuple[str, DeviceSettings]], seed: int) -> Population:
    names = tuple(dict.fromkeys(name for name, _ in rows))
    counts = Counter(name for name, _ in rows)
    draws = {name: _class_draws(name, count, seed) for name, count in counts.items()}
    seen: Counter[str] = Counter()
    drawn = []
    for name, settings in rows:
        drawn.append(_columns(name, settings, draws[name].of(seen[name])))
        seen[name] += 1
    return Population(
        class_names=names,
        class_index=np.array([names.index(name) for name, _ in rows], dtype=np.int64),
        columns={field: np.concatenate([columns[field] for columns in drawn]) for field in NUMERIC_FIELDS},
    )


def _read_rows(path: Path) -> list[tuple[str, DeviceSettings]]:
    """The devices of a file: the preset and what differs from it, a row each."""
    try:
        text = read_text(path, MAX_DATA_BYTES, DataFileError)
    except DataFileError as error:
        raise error.at("clients", "file") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    try:
        _check_header(path, list(reader.fieldnames or []))
        rows = [_read_row(path, reader.line_num, row) for row in islice(reader, MAX_CLIENTS + 1)]
    except csv.Error as error:
        raise DataFileError(f"{path}:{reader.line_num}: not CSV: {error}") from None
    if not rows:
        raise DataFileError(f"{path}:1: the file has a header and no device; add one row per device")
    if len(rows) > MAX_CLIENTS:
        raise DataFileError(f"{path}:{reader.line_num}: more than {MAX_CLIENTS:,} devices; that is the most")
    return rows


def _check_header(path: Path, names: list[str]) -> None:
    known = ("class", *DeviceSettings.model_fields)
    for name in names:
        if name not in known:
            raise DataFileError(f"{path}:1: {unknown_name('column', name, known)}")
    if "class" not in names:
        raise DataFileError(f"{path}:1: the column 'class' (a device preset) is missing")
    if len(set(names)) < len(names):
        raise DataFileError(f"{path}:1: a column stands twice")


def _read_row(path: Path, line: int, row: dict[str, Any]) -> tuple[str, DeviceSettings]:
    if "" in row or None in row.values():
        raise DataFileError(f"{path}:{line}: the row has not as many cells as the header")
    cells = {key: value.strip() for key, value in row.items()}
    name = cells.pop("class")
    if name not in device_presets():
        raise DataFileError(f"{path}:{line}: {unknown_name('device preset', name, device_presets())}")
    keys = {key: _number(key, value) for key, value in cells.items() if value}
    try:
        return name, ClassSettings.model_validate({"count": 1, **keys})
    except ValidationError as error:
        wrong = scenario_error(error, Document(keys, {}, f"{path}:{line}"), ClassSettings)
        raise DataFileError(str(wrong)) from None


_PLAIN_NUMBERS = frozenset(
    ("compute_efficiency", "memory_efficiency", "compute_jitter", "speed_spread", "memory_exponent",
     "up_jitter", "down_jitter", "rtt_jitter")
)  # fmt: skip


def _number(key: str, value: str) -> float | str:
    """A CSV cell is text; numbers without a unit become floats, and the model refuses what is left."""
    if key not in _PLAIN_NUMBERS:
        return value
    number = finite_decimal(value)
    return value if number is None else number
