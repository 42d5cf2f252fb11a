"""Do two checkouts make the same records? ``python -m tests.repository.compare_records OTHER`` (``make records-equal``).

Every shipped file is run by this checkout and by the other, each from its own folder through its own command line, so that the
two may be laid out otherwise: scenarios, every variant of every comparison, and of a sweep the variants that take the first
level of all axes, then the second, and so on. All of that is of timing fidelity and a few updates. Then come a quick start with
real models, and one that is killed and resumed. A line a run has both ``records_sha256``; the exit code is 1 if any two differ.

Files are the same if the key ``name`` in them is. What neither checkout accepts, in the same words, is equal.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parents[2]
REAL = ("--set", "stop={updates: 10}", "--set", "compute.checkpoint_every=2 s")


def fedsim(checkout: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """A command of one checkout, with this interpreter."""
    return subprocess.Popen(
        [sys.executable, "-m", "fedsim", *map(str, arguments)],
        cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(folder: Path) -> str | None:
    """The hash of a run's records, if there is a finished run in the folder."""
    summary = folder / "summary.json"
    return str(json.loads(summary.read_text())["records_sha256"]) if summary.exists() else None


def run(checkout: Path, out: Path, source: str | Path, *arguments: str) -> dict[str, str]:
    """One run of a scenario."""
    command = fedsim(checkout, "run", source, *arguments, "--no-figures", "-q", "--out", out)
    error = command.communicate()[1].strip()
    return {"": finished(out) or error}


def killed_and_resumed(checkout: Path, out: Path, *arguments: str) -> dict[str, str]:
    """A real quick start that is killed once it has a checkpoint, and goes on from there."""
    command = fedsim(checkout, "run", "quickstart", *arguments, "--no-figures", "-q", "--out", out)
    while command.poll() is None and not any((out / "checkpoints").glob("[!.]*")):
        time.sleep(0.05)
    command.send_signal(signal.SIGKILL)
    error = command.communicate()[1].strip()
    if command.returncode != -signal.SIGKILL:
        return {"": f"ended before it was killed: {error}"}
    error = fedsim(checkout, "resume", out, "--no-figures", "-q").communicate()[1].strip()
    return {"": finished(out) or error}


def variants_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """A comparison's own variants, or of a sweep those that walk along all its axes at once."""
    if "variants" in document:
        return list(document["variants"])
    axes = {name: (axis.get("key"), axis["levels"]) for name, axis in document["axes"].items()}
    found = []
    for step in range(max(len(levels) for _, levels in axes.values())):
        changes: dict[str, Any] = {}
        for key, levels in axes.values():
            level = levels[min(step, len(levels) - 1)]
            changes |= level.get("set", {}) if isinstance(level, dict) else {key: level}
        found.append({"name": f"step-{step}", "set": changes})
    return found


class _WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def compare(checkout: Path, out: Path, file: Path, updates: int) -> dict[str, str]:
    """The variants of a comparison or a sweep, as timing runs of a few updates with one seed."""
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    beside = file.parent / document["base"]
    variants = []
    for variant in variants_of(document):
        changes = document.get("set", {}) | variant.get("set", {})
        changes = {key: value for key, value in changes.items() if key.partition(".")[0] != "stop"}
        changes |= {"fidelity": "timing", "stop": {"updates": updates}}
        variants.append(
            {key: variant[key] for key in ("name", "protocol") if key in variant} | {"set": changes}
        )
    base = str(beside if beside.exists() else document["base"])
    short = {"name": document["name"], "base": base, "seeds": [0], "variants": variants}
    out.mkdir(parents=True)
    text = yaml.dump(short, Dumper=_WithoutAliases, sort_keys=False)
    (out / "short.yaml").write_text(text, encoding="utf-8")
    command = fedsim(checkout, "compare", out / "short.yaml", "--no-figures", "-q", "--out", out / "all")
    error = command.communicate()[1].strip().replace(str(out), "OUT")
    summary = out / "all" / "comparison.json"
    runs = json.loads(summary.read_text())["runs"] if summary.exists() else []
    hashes = {run["variant"]: finished(out / "all" / run["folder"]) or "not finished" for run in runs}
    return hashes if not error else hashes | {"": error}


def shipped(checkout: Path) -> dict[str, Path]:
    """Every shipped file, by the name that it gives itself."""
    files = sorted((checkout / "scenarios").rglob("*.yaml"))
    return {yaml.safe_load(path.read_text(encoding="utf-8"))["name"]: path for path in files}


def timing(checkout: Path, out: Path, files: dict[str, Path], name: str, updates: int) -> dict[str, str]:
    """One shipped file, be it a scenario, a comparison or a sweep."""
    if name not in files:
        return {"": "no such file"}
    if {"variants", "axes"} & set(yaml.safe_load(files[name].read_text(encoding="utf-8"))):
        return compare(checkout, out / name, files[name], updates)
    short = ("--set", "fidelity=timing", "--set", f"stop={{updates: {updates}}}")
    return run(checkout, out / name, files[name], *short)


Found = tuple[str, dict[str, str], dict[str, str]]


def pairs(checkouts: tuple[Path, Path], out: Path, updates: int, real: bool) -> Iterator[Found]:
    """What is run, and what either checkout made of it; the two work side by side."""
    folders = (out / "ours", out / "theirs")
    files = tuple(map(shipped, checkouts))
    with ThreadPoolExecutor(2) as both:
        for name in sorted({*files[0], *files[1]}):
            ours, theirs = both.map(lambda *side: timing(*side, name, updates), checkouts, folders, files)  # noqa: B023
            yield name, ours, theirs
        if real:
            again = (folders[0] / "real", folders[1] / "real")
            whole = list(both.map(lambda *side: run(*side, "quickstart", *REAL), checkouts, again))
            yield "quickstart, real", whole[0], whole[1]
            again = (folders[0] / "resumed", folders[1] / "resumed")
            resumed = both.map(lambda *side: killed_and_resumed(*side, *REAL), checkouts, again)
            for checkout, found, other in zip(checkouts, resumed, reversed(whole), strict=True):
                yield f"quickstart, resumed in {checkout}", found, other


def main() -> int:
    """Compare this checkout with another, line by line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--updates", type=int, default=3, help="of every timing run (default 3)")
    parser.add_argument("--no-real", dest="real", action="store_false", help="timing runs alone")
    words = parser.parse_args()
    differing = compared = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, ours, theirs in pairs(
            (HERE, words.other.resolve()), Path(folder), words.updates, words.real
        ):
            for key in sorted({*ours, *theirs}):
                first, second = ours.get(key, "no such run"), theirs.get(key, "no such run")
                compared += 1
                differing += first != second
                sign = "==" if first == second else "!="
                print(f"{name} {key}".strip() + f": {first[:100]} {sign} {second[:100]}", flush=True)
    print(f"{compared} compared, {differing} differ")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
