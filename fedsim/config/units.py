"""Quantities as people write them: ``20 Mbit/s``, ``35 ms``, ``1.5 MiB``, ``30 s``, ``2 TFLOP/s``.

A bare number where a unit is needed is refused, because nobody can know whether 20 means bits or bytes.
Decimal prefixes are powers of 1000, binary ones (KiB, MiB, GiB) powers of 1024; ``b``/``bit`` and
``B``/``byte`` differ. Inside fedsim everything is a float in the base unit that the name ends with
(`_s`, `_bytes_per_s`, ...).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import GroupedMetadata
from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from fedsim.config.limits import MAX_VIRTUAL_S

_NUMBER = re.compile(r"\s*([+-]?(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S.*?)?\s*", re.ASCII)

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}

_SECONDS = {
    "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_BYTES = {f"{p}{u}": f for p, f in (_DECIMAL | _BINARY).items() for u in ("B", "byte", "bytes")}
_BIT_RATES = {f"{p}{u}": f / 8 for p, f in _DECIMAL.items() for u in ("bit/s", "bps", "b/s")}
_BYTES_PER_S = _BIT_RATES | {f"{unit}/s": factor for unit, factor in _BYTES.items()}
_FLOP_PER_S = {f"{p}{u}": f for p, f in _DECIMAL.items() for u in ("FLOP/s", "FLOPS", "flop/s")}
_WATTS = {"mW": 1e-3, "W": 1.0, "kW": 1e3}
_J_PER_BYTE = {
    f"{p}J/{u}": f for p, f in {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}.items() for u in ("byte", "B")
}
_PER_S = {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600, "/day": 1 / 86400}


def parse_quantity(value: object, units: Mapping[str, float], example: str) -> float:
    """Read ``"<number> <unit>"`` and return it in the base unit.

    Raises:
        ValueError: no unit, an unknown unit, not a number, infinite or NaN; the message names the units.
    """
    spellings = {factor: unit for unit, factor in reversed(list(units.items()))}  # one name for each size
    allowed = f"write it with a unit, e.g. {example!r} (units: {', '.join(reversed(spellings.values()))})"
    if isinstance(value, bool) or not isinstance(value, str):
        raise ValueError(f"{value!r} has no unit; {allowed}")
    match = _NUMBER.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a quantity; {allowed}")
    number, unit = match.group(1), match.group(2)
    if unit is None:
        raise ValueError(f"{value!r} has no unit; {allowed}")
    if unit not in units:
        raise ValueError(f"{value!r} has the unknown unit {unit!r}; {allowed}")
    amount = float(number) * units[unit]
    if not math.isfinite(amount):
        raise ValueError(f"{value!r} is too large to be a number")
    return amount


class _Resolved(float):
    """A float that already is in its base unit (used by code that builds settings, never by YAML)."""


def resolved(amount: float) -> Any:
    """Mark ``amount`` as already in the base unit, for settings built in code: ``X(rtt=resolved(0.05))``."""
    return _Resolved(amount)


def write_quantity(amount: float, units: Mapping[str, float]) -> str:
    """Write an amount with the shortest number that `parse_quantity` reads back to the same float.

    >>> write_quantity(2_500_000.0, {"B/s": 1.0, "Mbit/s": 1e6 / 8})
    '20 Mbit/s'
    """
    if math.isinf(amount):
        return "unlimited"
    if amount == 0:
        return f"0 {next(iter(units))}"
    numbers = [(f"{amount / factor:.15g}", unit) for unit, factor in units.items()]
    numbers += [(repr(amount / factor), unit) for unit, factor in units.items()]
    exact = [(number, unit) for number, unit in numbers if float(number) * units[unit] == amount]
    number, unit = min(exact, key=lambda pair: (len(pair[0]), -units[pair[1]]))
    return f"{number} {unit}"


@dataclass(frozen=True, eq=False)  # hashed by identity, since a union of settings is a set
class Quantity(GroupedMetadata):
    """How a quantity is read, shown in a schema, and written so that a resolved scenario is a scenario again.

    Attributes:
        units: every unit that is understood, with its size in the base unit.
        example: a quantity for messages and the schema.
        written: the units that it is written in, the base unit first.
        zero: whether it may be zero.
        unlimited: whether the word ``unlimited`` stands for infinity.
        most: the largest amount; beyond it, ``why`` says what goes wrong.
    """

    units: Mapping[str, float]
    example: str
    written: str
    zero: bool = True
    unlimited: bool = False
    most: float = math.inf
    why: str = ""

    def __iter__(self) -> Iterator[object]:
        preferred = {name: self.units[name] for name in self.written.split()}
        yield BeforeValidator(self._read)
        yield PlainSerializer(
            lambda amount: write_quantity(amount, preferred), return_type=str, when_used="json"
        )
        yield WithJsonSchema({"type": "string", "examples": [self.example]})

    def _read(self, value: Any) -> float:
        # Resolved scenarios are floats already: only our own validated values may pass without a unit.
        if isinstance(value, _Resolved):
            return float(value)
        if self.unlimited and value == "unlimited":
            return math.inf
        amount = parse_quantity(value, self.units, self.example)
        if amount < 0 or (amount == 0 and not self.zero):
            raise ValueError(f"{value!r} must be {'zero or more' if self.zero else 'greater than zero'}")
        if amount > self.most:
            raise ValueError(f"{value!r} must be at most {self.why}")
        return amount


_IN_S = "s us ms min h d"
_IN_BYTES_PER_S = "B/s bit/s kbit/s Mbit/s Gbit/s"

LONGEST = f"{MAX_VIRTUAL_S:.0f} s (544 years), beyond which the clock is coarser than 2 us"
"""What is said of a time that is too long."""

Seconds = Annotated[float, Quantity(_SECONDS, "30 s", _IN_S, most=MAX_VIRTUAL_S, why=LONGEST)]
PositiveSeconds = Annotated[
    float, Quantity(_SECONDS, "30 s", _IN_S, zero=False, most=MAX_VIRTUAL_S, why=LONGEST)
]
Bytes = Annotated[float, Quantity(_BYTES, "1.5 MiB", "B kB MB GB KiB MiB GiB")]
BytesPerS = Annotated[float, Quantity(_BYTES_PER_S, "20 Mbit/s", _IN_BYTES_PER_S, zero=False)]
FlopPerS = Annotated[float, Quantity(_FLOP_PER_S, "2 TFLOP/s", "FLOP/s MFLOP/s GFLOP/s TFLOP/s", zero=False)]
Watts = Annotated[float, Quantity(_WATTS, "5 W", "W mW kW")]
JoulesPerByte = Annotated[float, Quantity(_J_PER_BYTE, "2.3 uJ/byte", "J/byte mJ/byte uJ/byte nJ/byte")]
PerSecond = Annotated[float, Quantity(_PER_S, "1 /h", "/s /min /h /day")]
# A link without a limit is infinity inside and the word "unlimited" in every file, which JSON can carry.
LinkRate = Annotated[
    float,
    Field(allow_inf_nan=True),
    Quantity(_BYTES_PER_S, "1 Gbit/s", _IN_BYTES_PER_S, zero=False, unlimited=True),
]


def format_bytes(amount: float) -> str:
    """A byte count for people: ``2.4 MiB``."""
    if round(abs(amount)) < 1024:
        return f"{amount:.0f} B"
    for unit in ("KiB", "MiB"):
        amount /= 1024
        if round(abs(amount), 1) < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} GiB"


def format_seconds(amount: float) -> str:
    """A duration for people: ``2 us``, ``35 ms``, ``12.5 s``, ``3 min 20 s``, ``2 h 05 min``, ``30 days``, ``4 days 06 h``."""
    if amount > 0 and round(amount * 1e6) < 1000:
        return f"{amount * 1e6:.3g} us"
    if round(amount * 1e3) < 1000:
        return f"{amount * 1e3:.0f} ms"
    if round(amount, 1) < 60:
        return f"{amount:.1f} s"
    whole = round(amount)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    days, hours = divmod(round(amount / 3600), 24)
    if days >= 3:
        return f"{days} days {hours:02d} h" if hours else f"{days} days"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
