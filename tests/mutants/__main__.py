"""Whether the tests see what they are there to see: every mutant of the table must fail one of its related tests.

``python -m tests.mutants`` (``make mutants``) copies the checkout into a folder for each worker, sees that the related tests
pass there, and then makes one mistake at a time and runs its tests as ``make test`` would (without ``slow``). It ends with 1
where fewer than 95% of the mutants are killed, more than 5% are called equivalent, or one cannot be judged.

Why a table of mistakes and no tool: mutmut 3 and cosmic-ray change every operator and constant of whole modules, one by one,
and cannot be told of a mistake that somebody would make (a redistribution left out, a fold over the wrong axis), nor which
tests are related to it; what they make of these packages takes days on two cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
LEAST_KILLED, MOST_EQUIVALENT = 0.95, 0.05
LONGEST_S = 240.0
"""A mutant that runs for ever is killed: so long is no related test on a busy machine."""
_COPIED = (
    "fedsim",
    "analysis",
    "tests",
    "scenarios",
    "docs",
    "benchmarks",
    "pyproject.toml",
    "Makefile",
    "README.md",
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Test the tests.")
    parser.add_argument("--workers", type=int, default=2, help="mutants at once (2)")
    parser.add_argument("--only", default="", help="an area, or a part of the name of a mutant")
    given = parser.parse_args(arguments)
    chosen = [one for one in MUTANTS if given.only in one.area or given.only in one.what]
    if not chosen:
        print(
            f"no mutant is called {given.only!r}; areas are {', '.join(sorted({one.area for one in MUTANTS}))}"
        )
        return 2
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        trees = list(_trees(Path(scratch), given.workers))
        tests = sorted({test for one in chosen for test in one.tests})
        passed, said = _run(
            trees[0], [*tests, "-n", str(given.workers), "--dist", "loadfile"], LONGEST_S * 10
        )
        if passed != 0:
            print(f"{said}\nthe related tests fail without any mutant; mend them first")
            return 2
        for tree in trees[1:]:
            shutil.copytree(trees[0], tree, symlinks=True)  # with all that was compiled
        print(
            f"{len(tests)} files of related tests pass unchanged ({time.monotonic() - started_s:.0f} s)",
            flush=True,
        )
        results = _judged(chosen, trees)
    return _report(results, time.monotonic() - started_s, is_all=len(chosen) == len(MUTANTS))


def _trees(scratch: Path, workers: int) -> Iterator[Path]:
    """A folder for each worker; the first is filled."""
    for number in range(workers):
        tree = scratch / f"worker-{number}"
        if not number:
            tree.mkdir()
            leave_out = shutil.ignore_patterns("__pycache__", ".hypothesis")
            for name in _COPIED:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=leave_out)
                else:
                    shutil.copy2(ROOT / name, tree / name)
        yield tree


def _judged(chosen: Sequence[Mutant], trees: Sequence[Path]) -> list[tuple[Mutant, str]]:
    """What became of each mutant: killed, survived, equivalent, or why it cannot be judged."""
    free: SimpleQueue[Path] = SimpleQueue()
    for tree in trees:
        free.put(tree)

    def judge(mutant: Mutant) -> tuple[Mutant, str]:
        tree = free.get()
        try:
            return mutant, _verdict(mutant, tree)
        finally:
            free.put(tree)

    results: list[tuple[Mutant, str]] = []
    began_s = time.monotonic()
    with ThreadPoolExecutor(len(trees)) as pool:
        for done in as_completed([pool.submit(judge, mutant) for mutant in chosen]):
            mutant, verdict = done.result()
            results.append((mutant, verdict))
            left_s = (time.monotonic() - began_s) / len(results) * (len(chosen) - len(results))
            print(
                f"[{len(results)}/{len(chosen)}, {left_s / 60:.0f} min left] {verdict}: {mutant.area}: {mutant.what}",
                flush=True,
            )
    return results


def _verdict(mutant: Mutant, tree: Path) -> str:
    path = tree / mutant.file
    was = path.read_text(encoding="utf-8")
    old = path.stat()
    path.write_text(mutant.applied(was), encoding="utf-8")
    try:
        code, said = _run(tree, mutant.tests, LONGEST_S)
    finally:
        path.write_text(was, encoding="utf-8")
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))  # what was compiled of it holds again
    if code == 0:
        return "equivalent" if mutant.equivalent else "SURVIVED"
    if code == 1:
        return "NOT EQUIVALENT" if mutant.equivalent else "killed"
    return f"CANNOT BE JUDGED (pytest ends with {code}: {said.strip().splitlines()[-1]})"


def _run(tree: Path, arguments: Sequence[str], longest_s: float) -> tuple[int, str]:
    """Pytest in a folder: its exit code and what it said; one that takes too long has failed.

    Hypothesis' own profile ``ci`` draws the same examples each time, remembers none, and knows no deadline, which a busy
    machine would miss without any mistake.
    """
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "--hypothesis-profile=ci",
        *arguments,
    ]
    # Processes that tests start find the mutant first; what is compiled of a mutant is not kept.
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    if "-n" not in arguments:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    with subprocess.Popen(
        command,
        cwd=tree,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            said = process.communicate(timeout=longest_s)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return 1, "took too long"
    return process.returncode, said


def _report(results: Sequence[tuple[Mutant, str]], took_s: float, *, is_all: bool) -> int:
    areas: dict[str, Counter[str]] = {}
    for mutant, verdict in results:
        areas.setdefault(mutant.area, Counter())[verdict.partition(" (")[0]] += 1
    print(f"\n{'area':<12} mutants  killed  equivalent  other")
    for area, counts in sorted(areas.items()):
        other = counts.total() - counts["killed"] - counts["equivalent"]
        print(f"{area:<12} {counts.total():7} {counts['killed']:7} {counts['equivalent']:11} {other:6}")
    for mutant, verdict in results:
        if verdict != "killed":
            print(f"{verdict}: {mutant.area}: {mutant.what} ({mutant.file}) {mutant.equivalent}".rstrip())
    total = sum(areas.values(), Counter())
    killed, equivalent = total["killed"] / len(results), total["equivalent"] / len(results)
    print(
        f"{total['killed']} of {len(results)} killed ({killed:.0%}), {total['equivalent']} equivalent; {took_s / 60:.1f} min"
    )
    judged = set(total) <= {"killed", "equivalent", "SURVIVED"}
    if not is_all:
        return 0 if judged and not total["SURVIVED"] else 1
    return 0 if judged and killed >= LEAST_KILLED and equivalent <= MOST_EQUIVALENT else 1


if __name__ == "__main__":
    sys.exit(main())
