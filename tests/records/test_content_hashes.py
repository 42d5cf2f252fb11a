"""What is kept between runs has the bytes that were written, or is refused by name (fedsim/records/content_hashes.py)."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest

from fedsim.errors import CacheError, InputError
from fedsim.records.content_hashes import SUMS, check_sums, keep, kept, write_sums

FILES = {
    "model.safetensors": bytes(range(256)),
    "config.json": b'{"layers": 2}',
    "deep/tokenizer.json": b"{}",
    "chat_template.jinja": b"",
}


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / "kept" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kept" / name).write_bytes(content)
    write_sums(tmp_path / "kept")
    check_sums(tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.parametrize("name", [name for name, content in FILES.items() if content])
def test_a_flipped_byte_is_refused_by_the_name_of_its_file(folder, name):
    content = bytearray(FILES[name])
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CacheError) as caught:
        check_sums(folder)
    assert str(caught.value).startswith(f"{folder / name} is not what was written")
    assert str(caught.value).endswith(f"; delete this cache folder: {folder}")
    assert isinstance(caught.value, InputError) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_and_so_is_one_that_nobody_wrote(folder, name):
    shutil.move(folder / name, folder / "other.json")
    with pytest.raises(CacheError, match=r"is missing|is not in SHA256SUMS"):
        check_sums(folder)


def test_hashes_that_are_no_hashes_are_refused(folder):
    (folder / SUMS).write_bytes(b"\xff\n")
    (folder / "config.json").write_bytes(FILES["config.json"] + b" ")
    with pytest.raises(CacheError, match="SHA256SUMS is not what was written"):
        check_sums(folder)


def test_the_hashes_are_those_of_sha256sum(folder):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    subprocess.run(["sha256sum", "--check", "--status", SUMS], cwd=folder, check=True)


def test_a_folder_that_nobody_has_touched_is_read_once(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(50_000_000))
    write_sums(tmp_path)
    took_s = []
    for _ in range(2):
        started_at_s = time.perf_counter()
        check_sums(tmp_path)
        took_s.append(time.perf_counter() - started_at_s)
    assert took_s[1] < took_s[0] / 5


def test_what_a_file_manager_leaves_does_no_harm(folder):
    (folder / ".DS_Store").write_bytes(b"1")
    check_sums(folder)


def test_a_single_file_is_read_back_or_refused(tmp_path):
    path = tmp_path / "rows.kept"
    assert kept(path) is None
    keep(path, b"[1,\n2]")
    assert kept(path) == b"[1,\n2]"
    for spoiled in (b"", b"[1,\n2]", path.read_bytes()[:-1], path.read_bytes().replace(b"2]", b"3]")):
        path.write_bytes(spoiled)
        with pytest.raises(
            CacheError, match=r"rows\.kept is not what was written; delete this cache folder: "
        ):
            kept(path)
