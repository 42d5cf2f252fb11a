"""The cache of models, questions and measurements: what is in it is what was written, whatever kind of file it is."""

from __future__ import annotations

from pathlib import Path

from fedsim.cli import main
from fedsim.models.cache import cached, is_whole
from fedsim.records.content_hashes import SUMS

REAL = """\
name: tiny
stop: {updates: 1}
protocol: {name: fedgrpo, update: {groups_per_update: 2, in_flight: 2}}
tasks: {domains: [gcd], sizes: {public: 30, private: 40, auxiliary: 10, pool: 20, validation: 5, test: 5}}
clients: {laptop: 2}
models:
  server: {preset: scratch-250k, steps: 2}
  clients: {preset: scratch-250k, steps: 2}
"""


def test_a_folder_without_hashes_is_made_again(tmp_path):
    """Earlier versions left such folders, and nobody can say what is in them."""

    def build(folder: Path) -> None:
        (folder / "weights").write_bytes(b"new")

    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "weights").write_bytes(b"old")
    (tmp_path / "key" / "other").write_bytes(b"old")
    assert not is_whole(tmp_path / "key")
    folder = cached(tmp_path, "key", build)
    assert {path.name for path in folder.iterdir()} == {"weights", SUMS}
    assert (folder / "weights").read_bytes() == b"new"
    assert not [path for path in tmp_path.iterdir() if ".tmp-" in path.name]


def test_a_flipped_byte_in_any_file_of_the_cache_ends_the_command_with_its_name_and_code_2(tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(REAL)
    cache = tmp_path / "cache"

    def run(number: int) -> int:
        words = ["--out", str(tmp_path / f"run{number}"), "--cache-dir", str(cache), "--no-figures", "-q"]
        return main(["run", str(tmp_path / "tiny.yaml"), *words])

    assert run(0) == 0
    capsys.readouterr()
    files = [path for path in sorted(cache.rglob("*")) if path.is_file() and path.suffix != ".lock"]
    files = [path for path in files if path.name != SUMS and path.stat().st_size]
    assert {path.relative_to(cache).parts[0] for path in files} >= {"models", "questions"}
    kinds = {(path.relative_to(cache).parts[0], path.suffix): path for path in files}
    assert {("models", ".safetensors"), ("models", ".json"), ("questions", ".kept")} <= set(kinds)
    for number, path in enumerate(kinds.values(), 1):
        content = path.read_bytes()
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        assert run(number) == 2, path
        said = capsys.readouterr().err.strip()
        assert f"{path} is not what was written" in said and "delete this cache folder: " in said
        assert "\n" not in said
        path.write_bytes(content)
    assert run(99) == 0
