"""What must hold of any scenario whatever: `examine` plays it and raises where something does not.

``python -m tests.end_to_end.fuzzing --minutes 5`` (``make fuzz``) examines random scenarios until the time is over or one
breaks; what broke is made as small as it will go and printed as a scenario file.
"""

from __future__ import annotations

import argparse
import re
import secrets
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hypothesis import HealthCheck, given, seed, settings

from fedsim import protocols
from fedsim.config.yaml import to_yaml
from fedsim.errors import Deadlock, FederationError, InputError, LimitExceeded
from fedsim.experiment import run as experiment
from fedsim.experiment.forecast.estimate import estimate
from fedsim.records.run import load
from fedsim.records.run_folder import SUMMARY
from fedsim.scenario.read import read_scenario
from fedsim.scenario.schema import Scenario
from tests.end_to_end.scenario_strategies import FILES, scenarios, spoiled

WORLD_ERRORS = (Deadlock, FederationError, LimitExceeded)
"""How a scenario that asks for nothing wrong may still fail: inside its world, with a reason."""

_HANGS_AFTER_S = 60
"""A step budget bounds events; this bounds what never comes to an event. No run of the strategies' size takes a tenth of it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a scenario ended: refused, failed inside its world, or finished; ``detail`` is the message, or the stop condition."""

    status: Literal["refused", "failed", "finished"]
    detail: str
    records_sha256: str | None = None


def examine(text: str, folder: Path) -> Verdict:
    """Read a scenario file, play it twice, and check everything that must hold whatever it says.

    Args:
        text: the file.
        folder: an empty folder for the file, the files beside it, and the runs.

    Raises:
        AssertionError: something does not hold.
        Exception: whatever the program let through that is neither a refusal nor an error of the simulated world.
    """
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    path = folder / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        scenario = read_scenario(path)
    except InputError as refusal:
        return _refused(refusal)
    written = _read_again(scenario, folder / "again.yaml")
    _foresee(scenario)
    first = _play(scenario, folder / "first")
    second = _play(written, folder / "second")
    assert first == second, f"played again it is another run: {first} and {second}"
    return first


def _refused(refusal: InputError) -> Verdict:
    message = str(refusal)
    assert message and len(message.splitlines()) == 1, f"a refusal of more than one line: {message!r}"
    return Verdict(
        "refused", re.sub(r"^\S+\.yaml:\d+: ", "", message)
    )  # without the line, which another file has elsewhere


def _read_again(scenario: Scenario, path: Path) -> Scenario:
    """The scenario as it is written out, which must be the same one."""
    text = scenario.to_yaml()
    path.write_text(text, encoding="utf-8")
    again = read_scenario(path)
    assert again.resolved() == scenario.resolved(), f"read again it is another scenario:\n{text}"
    assert again.to_yaml() == text
    return again


def _foresee(scenario: Scenario) -> None:
    """``fedsim check`` says what a run will take, or why there can be none."""
    try:
        told = estimate(scenario)
    except InputError as refusal:
        _refused(refusal)
    except WORLD_ERRORS as error:
        assert str(error)
    else:
        assert told.updates >= 0 and told.requests >= 0 and told.virtual_s >= 0, told


def _play(scenario: Scenario, out: Path) -> Verdict:
    try:
        run = experiment.run(scenario, out=out)
    except InputError as refusal:
        assert not out.exists(), f"a refusal left a run folder behind: {refusal}"
        return _refused(refusal)
    except WORLD_ERRORS as error:
        assert str(error), f"{type(error).__name__} without a reason"
        if not (out / SUMMARY).exists():  # there was no world, so that there are no records
            assert isinstance(error, FederationError) and "can hold the model" in str(error), error
            return Verdict("failed", str(error))
        run = load(out)  # what was recorded until then is whole, or this raises
        verdict = Verdict("failed", f"{type(error).__name__}: {error}", run.summary["records_sha256"])
        assert run.manifest["status"] == "failed" and run.summary["stopped_by"] == "error"
    else:
        verdict = Verdict("finished", run.summary["stopped_by"], run.summary["records_sha256"])
        assert run.manifest["status"] == "finished"
    _check_sums(run.summary, run.records)
    assert {entry.name for entry in out.iterdir()} >= {"manifest.json", SUMMARY, "records"}
    return verdict


def _check_sums(summary: Mapping[str, Any], records: Mapping[str, Any]) -> None:
    """What the summary says is what the records that were read back add up to."""
    transfers, outcomes = records["transfers"], records["outcomes"]
    for direction, name in (("up", "uplink"), ("down", "downlink")):
        rows = transfers.filter(transfers["direction"] == direction)
        assert summary["bytes"]["wire"][name] == rows["wire_bytes"].sum()
    assert summary["bytes"]["paper"]["uplink"] == transfers["paper_bytes"].sum()
    for part, column in (("by_fate", "fate"), ("by_purpose", "purpose")):
        sums = Counter[str]()
        for value, wire_bytes in transfers.select(column, "wire_bytes").iter_rows():
            sums[value] += wire_bytes
        assert sums == Counter({name: size for name, size in summary["bytes"][part].items() if size})
    assert summary["requests"]["total"] == outcomes.height == outcomes["request_id"].n_unique()
    assert summary["updates"] == records["updates"].height
    assert summary["groups"]["total"] == records["groups"].height


class HangError(AssertionError):
    """A scenario never came to an end, although steps and virtual time are bounded."""


@contextmanager
def watched() -> Iterator[None]:
    """Turn what would hang for ever into a failure with a traceback of where."""

    def too_long(_signum: int, _frame: object) -> None:
        raise HangError(f"no end after {_HANGS_AFTER_S} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(_HANGS_AFTER_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def examined(text: str) -> Verdict:
    """`examine` in a folder of its own, watched."""
    with tempfile.TemporaryDirectory(prefix="fedsim-fuzz-") as folder, watched():
        return examine(text, Path(folder))


# ------------------------------------------------------------------------------------------------------- make fuzz

_EXAMPLES = 20  # of each protocol and each strategy in a row


def fuzz(minutes: float, first_seed: int) -> int:
    """Examine random scenarios until the time is over (exit code 0) or one breaks something (1)."""
    ends_at_s = time.monotonic() + 60 * minutes
    verdicts: Counter[str] = Counter()
    latest = ""
    round_seed = first_seed
    while time.monotonic() < ends_at_s:
        for name in protocols.names():
            for strategy in (scenarios, spoiled):

                @seed(round_seed)
                @settings(
                    max_examples=_EXAMPLES,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                )
                @given(strategy(name))
                def one_round(data: dict[str, Any]) -> None:
                    nonlocal latest
                    latest = to_yaml(data)
                    verdicts[examined(latest).status] += 1

                try:
                    one_round()
                except Exception:  # noqa: BLE001 - whatever it is, it is what was looked for
                    traceback.print_exc()
                    print(
                        f"\n# broke something; python -m tests.end_to_end.fuzzing --seed {round_seed} finds it again"
                    )
                    print(
                        "# the smallest scenario that does, for tests/end_to_end/fuzz_cases/ once it is understood:\n"
                    )
                    print(latest)
                    return 1
            if time.monotonic() >= ends_at_s:
                break
        counts = ", ".join(f"{count} {status}" for status, count in sorted(verdicts.items()))
        print(f"seed {round_seed}: {counts}; {max(0.0, ends_at_s - time.monotonic()):.0f} s left", flush=True)
        round_seed += 1
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Examine random scenarios until the time is over or one breaks."
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default 5)")
    parser.add_argument("--seed", type=int, default=None, help="of the first round; by default a random one")
    given_options = parser.parse_args()
    first_seed = secrets.randbelow(10**6) if given_options.seed is None else given_options.seed
    return fuzz(given_options.minutes, first_seed)


if __name__ == "__main__":
    sys.exit(main())
