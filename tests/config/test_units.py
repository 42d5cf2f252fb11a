import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, Field, ValidationError

from fedsim.config import units
from fedsim.config.limits import MAX_VIRTUAL_S
from fedsim.config.strict import StrictModel


class Settings(StrictModel):
    model_config = ConfigDict(validate_default=True)

    rtt: units.Seconds = Field(default="50 ms", description="round trip time (s)")
    every: units.PositiveSeconds = Field(default="1 s", description="period (s)")
    size: units.Bytes = Field(default="0 B", description="size (bytes)")
    uplink: units.BytesPerS = Field(default="1 B/s", description="rate (bytes/s)")
    compute: units.FlopPerS = Field(default="1 FLOP/s", description="rate (FLOP/s)")
    power: units.Watts = Field(default="0 W", description="power (W)")
    radio: units.JoulesPerByte = Field(default="0 J/byte", description="energy (J/byte)")
    hazard: units.PerSecond = Field(default="0 /s", description="rate (1/s)")
    server: units.LinkRate = Field(default="unlimited", description="rate (bytes/s)")


@pytest.mark.parametrize(
    ("key", "text", "amount"),
    [
        ("rtt", "35 ms", 0.035),
        ("rtt", "35ms", 0.035),
        ("rtt", " 1.5  min ", 90.0),
        ("rtt", "2 h", 7200.0),
        ("rtt", "1 day", 86400.0),
        ("rtt", "1e3 us", 1e-3),
        ("rtt", "0 s", 0.0),
        ("rtt", ".5 s", 0.5),
        ("rtt", "1_000 s", 1000.0),
        ("size", "1.5 MiB", 1.5 * 1024 * 1024),
        ("size", "1.5 MB", 1.5e6),
        ("size", "3 bytes", 3.0),
        ("uplink", "20 Mbit/s", 2.5e6),
        ("uplink", "20 Mbps", 2.5e6),
        ("uplink", "20 MB/s", 20e6),
        ("uplink", "1 KiB/s", 1024.0),
        ("compute", "2 TFLOP/s", 2e12),
        ("compute", "312 GFLOPS", 312e9),
        ("power", "500 mW", 0.5),
        ("radio", "2 uJ/byte", 2e-6),
        ("hazard", "36 /h", 0.01),
        ("server", "1 Gbit/s", 1.25e8),
        ("server", "unlimited", math.inf),
    ],
)
def test_a_quantity_is_read_in_its_base_unit(key, text, amount):
    assert getattr(Settings.model_validate({key: text}), key) == pytest.approx(amount, rel=1e-15)


@pytest.mark.parametrize("value", [20, 20.0, "20", True, None, ["20 s"]])
def test_a_value_without_a_unit_is_refused_and_the_units_are_named(value):
    with pytest.raises(
        ValidationError, match=r"no unit; write it with a unit, e\.g\. '30 s' \(units: .*ms.*min"
    ):
        Settings.model_validate({"rtt": value})


@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("rtt", "20 parsecs", "unknown unit 'parsecs'"),
        ("rtt", "20 S", "unknown unit 'S'"),
        ("uplink", "20 mbit/s", "unknown unit 'mbit/s'"),
        ("size", "20 Mbit", "unknown unit 'Mbit'"),
        ("rtt", "fast", "is not a quantity"),
        ("rtt", "", "is not a quantity"),
        ("rtt", "1.2.3 s", "unknown unit"),
        ("rtt", "1e999 s", "too large"),
        ("rtt", "nan s", "is not a quantity"),
        ("rtt", "-1 s", "must be zero or more"),
        ("every", "0 s", "must be greater than zero"),
        ("uplink", "0 B/s", "must be greater than zero"),
        ("uplink", "unlimited", "is not a quantity"),
        ("server", "0 Mbit/s", "must be greater than zero"),
    ],
)
def test_a_wrong_quantity_is_refused_with_its_reason(key, text, problem):
    with pytest.raises(ValidationError, match=problem):
        Settings.model_validate({key: text})


def test_bits_and_bytes_differ_by_eight_and_decimal_and_binary_prefixes_differ():
    def rate(text):
        return Settings.model_validate({"uplink": text}).uplink

    assert rate("8 Mbit/s") == rate("1 MB/s")
    assert rate("1 MiB/s") / rate("1 MB/s") == pytest.approx(1.048576)


@given(st.floats(min_value=0, max_value=1e12, allow_subnormal=False), st.integers(0, 5))
def test_a_written_quantity_reads_back_to_the_same_float(amount, which):
    key = ["rtt", "size", "power", "radio", "hazard", "server"][which]
    amount = min(amount or 1.0, MAX_VIRTUAL_S) if key == "rtt" else amount or 1.0
    written = Settings.model_validate({key: units.resolved(amount)}).model_dump(mode="json")
    assert isinstance(written[key], str)
    assert getattr(Settings.model_validate(written), key) == amount


def test_a_resolved_scenario_is_a_scenario_again_with_an_unlimited_link_too():
    settings = Settings.model_validate({"uplink": "20 Mbit/s", "rtt": "35 ms"})
    written = settings.model_dump(mode="json")
    assert written["uplink"] == "20 Mbit/s"
    assert written["rtt"] == "35 ms"
    assert written["server"] == "unlimited"
    assert Settings.model_validate(written) == settings


def test_the_schema_says_that_a_quantity_is_a_string_and_shows_one():
    assert Settings.model_json_schema()["properties"]["uplink"]["examples"] == ["20 Mbit/s"]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (1023.4, "1023 B"),
        (1023.7, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (2.44 * 2**20, "2.4 MiB"),
        (2**20 - 1, "1.0 MiB"),
        (5000 * 2.0**30, "5000.0 GiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_bytes_are_written_for_people(amount, text):
    assert units.format_bytes(amount) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 ms"),
        (1e-6, "1 us"),
        (2.5e-4, "250 us"),
        (9.996e-4, "1 ms"),
        (0.035, "35 ms"),
        (0.9997, "1.0 s"),
        (12.5, "12.5 s"),
        (59.97, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (71 * 3600 + 60, "71 h 01 min"),
        (30 * 86400, "30 days"),
        (4 * 86400 + 5.6 * 3600, "4 days 06 h"),
    ],
)
def test_durations_are_written_for_people(amount, text):
    assert units.format_seconds(amount) == text
