"""Whether the tests see what they are there to see: every mutant of the table must fail one of its related tests.

``python -m tests.mutants`` (``make mutants``) copies the checkout into a folder for each worker, makes one mistake at a time
and runs its tests as ``make test`` would (without ``slow``), up to the first that fails; in the end those that failed must pass
without any mistake. It ends with 1 where fewer than 95% of the mutants are killed, more than 5% are called equivalent, or one
cannot be judged.

Why a table of mistakes and no tool: mutmut 3 and cosmic-ray change every operator and constant of whole modules, one by one,
and cannot be told of a mistake that somebody would make (a redistribution left out, a fold over the wrong axis), nor which
tests are related to it; what they make of these packages takes days on two cores.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
LEAST_KILLED, MOST_EQUIVALENT = 0.95, 0.05
LONGEST_TEST_S, LONGEST_S = 120, 600
"""A mutant that runs for ever is killed: so long takes no related test, and not all of a mutant's together."""
_COPIED = ("fedsim", "analysis", "tests", "scenarios", "docs", "benchmarks")
_TOP_FILES = ("pyproject.toml", "Makefile", "README.md")
_GOOD = ("killed", "equivalent")


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: killed, equivalent, or in capitals what is wrong; and the test that failed."""

    mutant: Mutant
    what: str
    by: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Test the tests.")
    parser.add_argument("--workers", type=int, default=2, help="mutants at once (2)")
    parser.add_argument("--only", default="", help="areas, or parts of the names of mutants: link,cost")
    given = parser.parse_args(arguments)
    wanted = given.only.split(",")
    chosen = [one for one in MUTANTS if any(part in one.area or part in one.what for part in wanted)]
    if not chosen:
        areas = ", ".join(sorted({one.area for one in MUTANTS}))
        print(f"no mutant is called {given.only!r}; areas are {areas}")
        return 2
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        trees = [_tree(Path(scratch) / str(number)) for number in range(given.workers)]
        verdicts = _confirmed(_judged(chosen, trees), trees[0])
    return _report(verdicts, time.monotonic() - started_s)


def _tree(folder: Path) -> Path:
    """A copy of the checkout."""
    for name in _COPIED:
        leave_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=leave_out)
    for name in _TOP_FILES:
        shutil.copy2(ROOT / name, folder / name)
    return folder


def _judged(chosen: Sequence[Mutant], trees: Sequence[Path]) -> list[Verdict]:
    """Every mutant, on whichever tree is free."""
    free: SimpleQueue[Path] = SimpleQueue()
    for tree in trees:
        free.put(tree)

    def judge(number: int) -> Verdict:
        tree = free.get()
        try:
            return _verdict(chosen[number], number, tree)
        finally:
            free.put(tree)

    verdicts: list[Verdict] = []
    began_s = time.monotonic()
    with ThreadPoolExecutor(len(trees)) as pool:
        for done in as_completed([pool.submit(judge, number) for number in range(len(chosen))]):
            verdict = done.result()
            verdicts.append(verdict)
            left_s = (time.monotonic() - began_s) / len(verdicts) * (len(chosen) - len(verdicts))
            place = f"[{len(verdicts)}/{len(chosen)}, {left_s / 60:.0f} min left]"
            by = f" by {verdict.by}" if verdict.by else ""
            print(f"{place} {verdict.mutant.area}: {verdict.mutant.what}: {verdict.what}{by}", flush=True)
    return verdicts


def _verdict(mutant: Mutant, number: int, tree: Path) -> Verdict:
    path = tree / mutant.file
    was, old = path.read_text(encoding="utf-8"), path.stat()
    path.write_text(mutant.applied(was), encoding="utf-8")
    os.utime(
        path, (number, number)
    )  # what is compiled of it is told from the original, and from every other mutant
    try:
        code, said = _run(tree, mutant.tests)
    finally:
        path.write_text(was, encoding="utf-8")
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    if code == 0:
        return Verdict(mutant, "equivalent" if mutant.equivalent else "SURVIVED")
    failed = re.search(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", said, re.M)
    if code != 1 or failed is None:
        return Verdict(mutant, f"CANNOT BE JUDGED ({said.strip().splitlines()[-1]})")
    return Verdict(mutant, "NOT EQUIVALENT" if mutant.equivalent else "killed", failed[1])


def _confirmed(verdicts: Sequence[Verdict], tree: Path) -> list[Verdict]:
    """A test that fails without any mistake kills nothing."""
    killers = sorted({verdict.by for verdict in verdicts if verdict.by})
    code, said = _run(tree, killers, first_only=False) if killers else (0, "")
    failed = {
        killer
        for killer in killers
        if code and re.search(rf"^(FAILED|ERROR) {re.escape(killer)}", said, re.M)
    }
    if code and not failed:
        failed = set(killers)
    return [
        replace(verdict, what="ITS TEST FAILS WITHOUT IT") if verdict.by in failed else verdict
        for verdict in verdicts
    ]


def _run(tree: Path, tests: Sequence[str], *, first_only: bool = True) -> tuple[int, str]:
    """Pytest in a folder: its exit code and what it said.

    Hypothesis' own profile ``ci`` draws the same examples each time, remembers none, and knows no deadline, which a busy
    machine would miss without any mistake.
    """
    options = ["-q", "-p", "no:cacheprovider", "--hypothesis-profile=ci", f"--timeout={LONGEST_TEST_S}"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    # Processes that tests start must find the mutant, too; and modules are compiled once, whatever the shell says.
    path = {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    with subprocess.Popen(
        [*command, "-x"] if first_only else command,
        cwd=tree, env=os.environ | path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said = process.communicate(timeout=LONGEST_S)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return 1, f"FAILED {tests[0]}"
    return process.returncode, said


def _report(verdicts: Sequence[Verdict], took_s: float) -> int:
    areas: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        areas.setdefault(verdict.mutant.area, Counter())[verdict.what] += 1
    total = sum(areas.values(), Counter())
    print(f"\n{'area':<12} mutants  killed  equivalent  other")
    for area, counts in (*sorted(areas.items()), ("all", total)):
        other = counts.total() - sum(counts[what] for what in _GOOD)
        print(f"{area:<12} {counts.total():7} {counts['killed']:7} {counts['equivalent']:11} {other:6}")
    for verdict in verdicts:
        if verdict.what != "killed":
            mutant = verdict.mutant
            print(
                f"{verdict.what}: {mutant.area}: {mutant.what} ({mutant.file}) {mutant.equivalent}".rstrip()
            )
    killed, equivalent = (total[what] / len(verdicts) for what in _GOOD)
    judged = set(total) <= {*_GOOD, "SURVIVED"}
    print(f"{killed:.1%} killed, {equivalent:.1%} equivalent, in {took_s / 60:.1f} min")
    return 0 if judged and killed >= LEAST_KILLED and equivalent <= MOST_EQUIVALENT else 1


if __name__ == "__main__":
    sys.exit(main())
