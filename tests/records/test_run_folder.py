import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedsim.errors import RunFolderError
from fedsim.records.provenance import git_commit
from fedsim.records.run_folder import FORMAT_VERSION, RunFolder, plain, read_manifest, write_atomically

ROOT = Path(__file__).resolve().parents[2]


def everything_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_given_folder_is_exactly_that_folder_and_holds_a_manifest_at_once(tmp_path):
    folder = RunFolder.create(tmp_path / "a" / "b", "quickstart", 3)
    assert folder.path == tmp_path / "a" / "b"
    manifest = read_manifest(folder.path)
    assert (manifest["status"], manifest["seed"], manifest["name"]) == ("running", 3, "quickstart")
    assert manifest["format_version"] == FORMAT_VERSION
    assert manifest["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert manifest["finished_at"] is None
    assert everything_under(tmp_path) == ["a", "a/b", "a/b/manifest.json", "a/b/records", "a/b/run.lock"]


def test_unnamed_folders_are_numbered_and_the_name_is_made_safe(tmp_path):
    paths = [RunFolder.create(None, "my run/../x", 7, root=tmp_path).path for _ in range(3)]
    assert [path.name for path in paths] == ["my-run-..-x-7-0", "my-run-..-x-7-1", "my-run-..-x-7-2"]
    assert all(path.parent == tmp_path for path in paths)
    assert RunFolder.create(None, "../..", 0, root=tmp_path).path == tmp_path / "run-0-0"


def test_a_folder_that_holds_a_run_or_anything_else_is_refused_in_one_line(tmp_path):
    RunFolder.create(tmp_path / "run", "a", 0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for name, why in (
        ("run", "already holds a run"),
        ("mine", "is not empty"),
        ("file", "is a file"),
        ("file/x", "cannot make a run folder"),
    ):
        with pytest.raises(RunFolderError, match=why) as caught:
            RunFolder.create(tmp_path / name, "a", 0)
        assert "\n" not in str(caught.value)
    assert everything_under(tmp_path / "mine") == ["thesis.tex"]


def test_of_many_runs_that_want_one_folder_at_once_exactly_one_gets_it(tmp_path):
    def attempt(_):
        try:
            return RunFolder.create(tmp_path / "run", "a", 0)
        except RunFolderError:
            return None

    with ThreadPoolExecutor(16) as pool:
        got = [folder for folder in pool.map(attempt, range(16)) if folder is not None]
    assert len(got) == 1


def test_of_many_unnamed_runs_at_once_each_gets_its_own_folder(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: RunFolder.create(None, "a", 0, root=tmp_path), range(16)))
    assert len({folder.path for folder in folders}) == 16


def test_manifest_entries_survive_to_the_end_and_the_status_is_final(tmp_path):
    folder = RunFolder.create(tmp_path / "run", "a", 0)
    folder.update(model_hashes={"server": "ab12"}, scenario={"rate": float("inf"), "path": Path("x")})
    folder.finish("failed", error="ValueError: no")
    manifest = read_manifest(folder.path)
    assert manifest["model_hashes"] == {"server": "ab12"}
    assert manifest["scenario"] == {"rate": None, "path": "x"}
    assert (manifest["status"], manifest["error"]) == ("failed", "ValueError: no")
    assert manifest["started_at"] <= manifest["finished_at"]


def test_a_write_that_fails_leaves_the_old_file_and_no_debris(tmp_path):
    target = write_atomically(tmp_path / "x.json", b"old")
    with pytest.raises(TypeError):
        write_atomically(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert everything_under(tmp_path) == ["x.json"]


def test_nothing_is_written_outside_the_run_folder(tmp_path):
    folder = RunFolder.create(tmp_path / "run", "a", 0)
    for name in ("../evil.txt", "/tmp/evil-fedsim.txt", "figures/../../evil.txt"):
        with pytest.raises(RunFolderError, match="outside the run folder"):
            folder.write_text(name, "x")
    assert folder.write_text("figures/note.txt", "x").read_text() == "x"
    assert everything_under(tmp_path)[0] == "run"
    assert not (tmp_path / "evil.txt").exists()


def test_json_holds_null_for_what_is_not_a_finite_number():
    import numpy as np

    value = {
        1: float("nan"),
        "b": [float("inf"), np.float64(2.0), np.int64(3)],
        "c": (True, None, {"b", "a"}),
    }
    assert plain(value) == {"1": None, "b": [None, 2.0, 3], "c": [True, None, ["a", "b"]]}
    json.dumps(plain(value), allow_nan=False)


def test_git_commit_is_that_of_the_checkout_and_none_without_one(tmp_path):
    assert git_commit(tmp_path) is None
    commands = (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    )
    (tmp_path / "sub").mkdir()
    for command in commands:
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert git_commit(tmp_path) == head.stdout.strip()
    assert git_commit(tmp_path / "sub") is None  # installed inside somebody else's repository
    (tmp_path / "f").write_text("1")
    subprocess.run(["git", "-C", str(tmp_path), "add", "f"], check=True)
    assert git_commit(tmp_path) == head.stdout.strip() + "-dirty"


def test_a_folder_is_made_without_heavy_imports(tmp_path):
    code = (
        "import sys; from pathlib import Path; from fedsim.records.run_folder import RunFolder;"
        f"RunFolder.create(Path({str(tmp_path / 'run')!r}), 'a', 0);"
        "print([m for m in ('torch', 'transformers', 'polars', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
