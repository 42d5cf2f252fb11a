"""Drawing devices: presets, overrides, independence of draws, device files."""

import dataclasses
import math
import re
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from fedsim.errors import DataFileError, ScenarioError
from fedsim.sim.devices import presets
from fedsim.sim.devices.config import ClientsConfig, ServerConfig
from fedsim.sim.devices.population import draw, server_profile
from fedsim.sim.devices.presets import DeviceSettings
from fedsim.sim.devices.profile import NUMERIC_FIELDS, DeviceProfile


def clients(**classes):
    return ClientsConfig.model_validate({name.replace("_", "-"): value for name, value in classes.items()})


def test_clients_are_numbered_through_the_classes_in_the_order_written():
    population = draw(clients(laptop=2, phone={"count": 3}, edge_server=1), 0)
    assert len(population) == 6
    assert [population.device_class(k) for k in range(6)] == ["laptop"] * 2 + ["phone"] * 3 + ["edge-server"]
    assert population.counts == {"laptop": 2, "phone": 3, "edge-server": 1}
    assert population.ids_of("phone") == [2, 3, 4]
    with pytest.raises(IndexError, match="client 6"):
        population.profile(6)


def test_presets_are_read_by_libyaml_as_by_python():
    text = (files("fedsim.sim.presets") / "devices.yaml").read_text(encoding="utf-8")
    for name, keys in yaml.safe_load(text).items():
        written = DeviceSettings.model_validate({key: keys[key] for key in keys if key != "source"})
        assert presets.device_presets()[name] == written


def test_a_profile_is_the_clients_row_of_the_columns():
    population = draw(clients(laptop=2, phone=3), 0)
    assert population.classes == ["laptop"] * 2 + ["phone"] * 3
    for k, device_class in enumerate(population.classes):
        profile = population.profile(k)
        assert profile.device_class == device_class
        assert all(getattr(profile, name) == population.columns[name][k] for name in NUMERIC_FIELDS)
        assert all(type(getattr(profile, name)) is float for name in NUMERIC_FIELDS)


def test_a_device_depends_only_on_seed_class_and_index_within_the_class():
    alone = draw(clients(phone=5), 3)
    crowded = draw(clients(laptop=7, phone=9, tablet=1), 3)
    for i in range(5):
        assert alone.profile(i) == crowded.profile(7 + i)
    assert draw(clients(phone=5), 4).profile(0) != alone.profile(0)


def test_devices_of_another_class_with_no_members_change_nothing():
    assert draw(clients(phone=2, laptop=0), 1).counts == {"phone": 2}


def test_a_profile_is_complete_and_positive_for_every_preset():
    for name in presets.device_presets():
        population = draw(ClientsConfig.model_validate({name: 40}), 5)
        for client_id in range(40):
            profile = population.profile(client_id)
            values = dataclasses.asdict(profile)
            assert values.pop("device_class") == name
            assert all(math.isfinite(value) and value >= 0 for value in values.values())
            assert (
                min(profile.peak_flop_per_s, profile.up_bytes_per_s, profile.rtt_s, profile.memory_bytes) > 0
            )
            assert profile.compute_efficiency <= 1 >= profile.memory_efficiency


def test_every_preset_says_where_its_rates_come_from():
    text = (files("fedsim.sim.presets") / "devices.yaml").read_text(encoding="utf-8")
    assert all(len(keys["source"]) > 20 for keys in yaml.safe_load(text).values())


def test_present_day_links_say_of_when_they_are_and_the_others_that_they_are_old():
    told = presets.link_descriptions()
    assert tuple(told) == presets.link_names()
    assert {name for name in told if re.search(r"-20\d\d$", name)} == {
        "fibre-2023", "cable-2023", "5g-2023", "4g-2023", "satellite-2025"
    }  # fmt: skip
    for name, about in told.items():
        dated = name == presets.WIFI or re.search(r"-20\d\d$", name) is not None
        assert dated != ("old (" in about)
    text = (files("fedsim.sim.presets") / "link_profiles.csv").read_text(encoding="utf-8")
    assert all(re.search(rf"^# .*\b{name}.*", text, re.MULTILINE) for name in told if "-20" in name)
    links = presets.link_profiles()
    assert links["cable-2023"].down_bytes_per_s > 40 * links["cable"].down_bytes_per_s
    assert links["5g-2023"].up_bytes_per_s == pytest.approx(14.7e6 / 8)


def test_nominal_rates_are_those_of_the_data_sheets():
    server = server_profile(ServerConfig())
    assert (server.peak_flop_per_s, server.memory_bytes_per_s) == (312e12, 2039e9)
    workstation = server_profile(ServerConfig(preset="workstation"))
    assert (workstation.peak_flop_per_s, workstation.memory_bytes_per_s) == (165.2e12, 1008e9)


def test_phones_spread_like_the_measured_models_with_memory_bandwidth_closer_together():
    population = draw(clients(phone=4000), 0)
    speed = population.columns["peak_flop_per_s"] / 0.66e12
    table = np.array([model.relative_speed for model in presets.phone_models()])
    assert set(np.round(speed, 4)) <= set(np.round(table, 4))
    assert speed.mean() == pytest.approx(table.mean(), abs=3.3 * table.std() / math.sqrt(4000))
    np.testing.assert_allclose(population.columns["memory_bytes_per_s"], 67.2e9 * speed**0.45)


def test_lognormal_spread_keeps_the_nominal_mean():
    speed = draw(clients(laptop=6000), 0).columns["peak_flop_per_s"] / 3.6e12
    assert np.log(speed).std() == pytest.approx(0.25, rel=0.04)
    assert speed.mean() == pytest.approx(1.0, abs=3.3 * 0.26 / math.sqrt(6000))


def test_classes_draw_from_streams_of_their_own():
    population = draw(clients(tablet=200, laptop=200), 0)
    speed = population.columns["peak_flop_per_s"]
    assert abs(np.corrcoef(speed[:200], speed[200:])[0, 1]) < 0.24  # 99.9% under independence


def test_wifi_devices_have_the_rates_of_one_measured_link():
    population = draw(clients(phone=300), 0)
    rows = {(link.up_bytes_per_s, link.down_bytes_per_s, link.up_jitter) for link in presets.wifi_links()}
    columns = (population.columns[name] for name in ("up_bytes_per_s", "down_bytes_per_s", "up_jitter"))
    drawn = set(zip(*(column.tolist() for column in columns), strict=True))
    assert drawn <= rows
    assert len(drawn) > 15


def test_overrides_replace_the_preset_and_a_new_link_brings_its_own_delay():
    override = {"count": 2, "link": "lte", "peak": "1 TFLOP/s", "speeds": "lognormal", "speed_spread": 0.0}
    profile = draw(clients(phone=override), 0).profile(1)
    assert profile.peak_flop_per_s == 1e12
    assert (profile.up_bytes_per_s, profile.down_bytes_per_s, profile.rtt_s) == (1.5e6, 1.5e6, 0.035)
    assert profile.up_jitter == 0.0
    mixed = draw(clients(phone=override | {"up": "80 kbit/s", "rtt": "1 s"}), 0).profile(1)
    assert (mixed.up_bytes_per_s, mixed.down_bytes_per_s, mixed.rtt_s) == (1e4, 1.5e6, 1.0)


def test_a_spread_given_for_phones_switches_the_measured_table_off():
    profile = draw(clients(phone={"count": 1, "speed_spread": 0.0}), 0).profile(0)
    assert profile.peak_flop_per_s == 0.66e12


def test_own_memory_is_kept_where_phone_models_bring_theirs():
    population = draw(clients(phone={"count": 50, "memory": "3 GiB"}), 0)
    assert set(population.columns["memory_bytes"]) == {3 * 2.0**30}


def test_a_million_devices_fit_in_arrays():
    population = draw(clients(phone=300_000), 0)
    assert len(population) == 300_000
    assert population.columns["up_bytes_per_s"].nbytes == 2_400_000
    assert isinstance(population.profile(299_999), DeviceProfile)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"phon": 3}, "did you mean 'phone'"),
        ({}, "no clients"),
        ({"phone": 0}, "no clients"),
        ({"phone": -1}, "greater than or equal to 0"),
        ({"phone": {"count": 1, "link": "lt"}}, "did you mean 'lte'"),
        ({"phone": {"count": 1, "rtt": 5}}, "has no unit"),
        ({"phone": {"count": 1, "pek": "1 TFLOP/s"}}, "pek"),
        ({"phone": {"count": 1, "compute_efficiency": 1.5}}, "less than or equal to 1"),
        ({"file": "d.csv", "phone": 1}, "not both"),
    ],
)
def test_wrong_clients_are_refused(raw, message):
    with pytest.raises(ValidationError, match=message):
        ClientsConfig.model_validate(raw)


def test_resolved_clients_are_clients_again():
    config = clients(phone=2, laptop={"count": 1, "up": "5 Mbit/s"})
    again = ClientsConfig.model_validate(config.model_dump(mode="json", exclude_none=True))
    assert draw(again, 0).profile(2) == draw(config, 0).profile(2)


def test_unknown_preset_names_the_nearest_one():
    with pytest.raises(ScenarioError, match="did you mean 'tablet'"):
        presets.device_preset("tablets")
    with pytest.raises(ValidationError, match="did you mean 'datacenter-gpu'"):
        ServerConfig(preset="datacentre-gpu")


def write(tmp_path, text):
    (tmp_path / "devices.csv").write_text(text)
    return ClientsConfig(file="devices.csv")


def test_a_device_file_gives_one_device_per_row(tmp_path):
    config = write(
        tmp_path,
        "class,up,down,rtt,compute_jitter,peak\n"
        "laptop,8 Mbit/s,16 Mbit/s,20 ms,0.5,\n"
        "phone,,,,,\n"
        "laptop,,,,,2 TFLOP/s\n",
    )
    population = draw(config, 0, tmp_path)
    assert population.counts == {"laptop": 2, "phone": 1}
    first, reference = population.profile(0), draw(clients(laptop=2, phone=1), 0)
    assert (first.up_bytes_per_s, first.down_bytes_per_s, first.rtt_s) == (1e6, 2e6, 0.02)
    assert first.compute_jitter == 0.5
    assert first.peak_flop_per_s == reference.profile(0).peak_flop_per_s  # an empty cell inherits the draw
    assert population.profile(1) == reference.profile(2)
    assert population.profile(2).down_bytes_per_s == reference.profile(1).down_bytes_per_s


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,upp\nphone,1 Mbit/s\n", r"devices.csv:1: unknown column 'upp'; did you mean 'up'"),
        ("up\n1 Mbit/s\n", r"devices.csv:1: the column 'class'"),
        ("class\n", r"devices.csv:1: .*no device"),
        ("", r"devices.csv:1: the column 'class'"),
        ("class,class\nphone,phone\n", r"devices.csv:1: a column stands twice"),
        (
            "class,up\nphone,1 Mbit/s\nfone,1 Mbit/s\n",
            r"devices.csv:3: unknown device preset 'fone'.*'phone'",
        ),
        ("class,up\nphone,5\n", r"devices.csv:2: up is '5', which has no unit"),
        ("class,up\nphone\n", r"devices.csv:2: .*as many cells"),
        ("class,up\nphone,1 Mbit/s,7\n", r"devices.csv:2: .*as many cells"),
        ("class,compute_jitter\nphone,much\n", r"devices.csv:2: compute_jitter is 'much'"),
        ("class,compute_jitter\nphone,nan\n", r"devices.csv:2: compute_jitter is 'nan'; must be a number"),
        ("class,link\nphone,wlan\n", r"devices.csv:2: link: unknown link 'wlan'"),
    ],
)
def test_a_wrong_device_file_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(DataFileError, match=message):
        draw(write(tmp_path, text), 0, tmp_path)


def test_a_missing_device_file_is_one_clear_line(tmp_path):
    with pytest.raises(DataFileError, match=r"nowhere\.csv: cannot be read") as error:
        draw(ClientsConfig(file="nowhere.csv"), 0, tmp_path)
    assert "\n" not in str(error.value)


def test_settings_of_devices_import_neither_numpy_nor_scipy():
    code = (
        "import sys, fedsim.sim.devices.config; print(sorted({'numpy', 'scipy', 'torch'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_columns_and_profile_fields_are_the_same_names():
    assert tuple(draw(clients(phone=1), 0).columns) == NUMERIC_FIELDS
