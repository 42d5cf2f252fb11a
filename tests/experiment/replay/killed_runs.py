"""Tiny real runs that are killed (SIGKILL) at chosen places of their tape, and resumed; prints what came out as JSON.

python -m tests.experiment.replay.killed_runs FOLDER CACHE unlike|more    a tiny FedGRPO, at five chosen places
python -m tests.experiment.replay.killed_runs FOLDER CACHE KIND,KIND N    tiny runs of other kinds, at N places each (`OTHERS`)
python -m tests.experiment.replay.killed_runs FOLDER CACHE SCENARIO N     an own scenario file, at N random places of its tape

One process imports torch and forks a child for every life of a run, which is what makes this quick. It must start no thread
itself: torch and polars work in the children only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import reasoning_gym  # noqa: F401  (imported here, so that no child has to)

from fedsim.experiment import journal
from fedsim.experiment import run as experiment
from fedsim.experiment.replay import checkpoints, tape
from fedsim.experiment.resume import resume
from fedsim.models import cache as models_cache
from fedsim.models.real import zoo
from fedsim.records.frames import FrameWriter
from fedsim.scenario.read import read_scenario, scenario_from
from fedsim.scenario.schema import Scenario
from tests.samples.real_runs import OTHERS, tiny

Death = Callable[[FrameWriter, bytes], None]
"""Called before every frame of the tape: may kill the process."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(offset: int) -> Death:
    """Dies when the tape has grown past an offset, between two frames."""

    def death(writer: FrameWriter, _: bytes) -> None:
        if writer.path.stat().st_size >= offset:
            die()

    return death


def torn(offset: int) -> Death:
    """Dies in the middle of the frame that would reach over an offset."""

    def death(writer: FrameWriter, payload: bytes) -> None:
        size = writer.path.stat().st_size
        if size + len(payload) >= offset:
            with writer.path.open("ab") as stream:
                stream.write((len(payload)).to_bytes(4, "little") + payload[: len(payload) // 2])
            die()

    return death


def before_update(number: int) -> Death:
    """Dies when the step with this number (from 1) has been computed and is not yet on the tape."""
    seen = 0

    def death(_: FrameWriter, payload: bytes) -> None:
        nonlocal seen
        seen += msgspec.msgpack.decode(payload)[0] == "update"
        if seen == number:
            die()

    return death


def mortal(death: Death) -> type[FrameWriter]:
    class Mortal(FrameWriter):
        def append(self, payload: bytes | bytearray) -> int:
            death(self, bytes(payload))
            return super().append(payload)

    return Mortal


def in_a_checkpoint(number: int, renamed: bool) -> type[checkpoints.Checkpoints]:
    """Dies in the checkpoint with this number, before or after it is whole; never before the tape names it."""
    seen = 0

    class Mortal(checkpoints.Checkpoints):
        def write(self, name: str, policy: Any) -> None:
            nonlocal seen
            seen += 1
            if seen < number:
                super().write(name, policy)
            elif renamed:
                super().write(name, policy)
                die()
            else:
                partial = self.partial(name)
                partial.mkdir(parents=True)
                policy.save_state(partial)
                next(partial.iterdir()).write_bytes(b"half")
                die()

    return Mortal


def life(work: Callable[[], object]) -> int:
    """Do something in a child of its own; returns its exit status, minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(
    scenario: Scenario,
    out: Path,
    cache: Path,
    how: Death | type[checkpoints.Checkpoints],
    begun: bool = False,
) -> int:
    """One life of a run (its first, unless it was ``begun``), ended at a place."""

    def work() -> None:
        if isinstance(how, type):
            journal.Checkpoints = how  # type: ignore[misc]
        else:
            tape.FrameWriter = mortal(how)  # type: ignore[misc]
        if begun:
            resume(out, cache_dir=cache)
        else:
            experiment.run(scenario, out=out, cache_dir=cache)

    return life(work)


def told(out: Path) -> dict[str, Any]:
    """All of a finished run that must repeat; read without polars, whose threads would not outlive a fork."""
    manifest, summary = (json.loads((out / name).read_text()) for name in ("manifest.json", "summary.json"))
    policy = out / "policy" / "model.safetensors"
    return {
        "status": manifest["status"],
        "summary": {key: value for key, value in summary.items() if key != "wall_s"},
        "metrics": (out / "metrics.parquet").read_bytes().hex(),
        "policy": policy.read_bytes().hex() if policy.exists() else None,
        "tape": (out / tape.TAPE).stat().st_size > 0 if (out / tape.TAPE).exists() else None,
        "left": sorted(path.name for path in out.iterdir()),
    }


def unlike_places(size: int) -> dict[str, list[Any]]:
    """Five ways to die on a tape that would become so long (bytes), each unlike the others."""
    return {
        "in the middle of a frame": [torn(size // 2)],
        "inside a step": [before_update(2)],
        "inside a checkpoint": [in_a_checkpoint(2, renamed=False)],
        "between a checkpoint and its mark": [in_a_checkpoint(2, renamed=True)],
        "twice": [after(size // 3), after(size * 3 // 4)],
    }


def more_places(size: int) -> dict[str, list[Any]]:
    """Five more, most of them between two frames."""
    return {
        "at the first result": [after(0)],
        "before the first step": [after(size // 4)],
        "in the middle": [after(size // 2)],
        "near the end": [after(size - 200)],
        "in the middle of the last frames": [torn(size - 100)],
    }


def spread_places(size: int, count: int) -> dict[str, list[Any]]:
    """So many places spread over a tape, in the middle of as many parts of it."""
    return kills(size, [size * (2 * number + 1) // (2 * count) for number in range(count)])


def random_places(size: int, count: int) -> dict[str, list[Any]]:
    """So many places of a tape at random, but the same ones every time."""
    return kills(size, Random(0).sample(range(size), count))


def kills(size: int, places: list[int]) -> dict[str, list[Any]]:
    """A kill at every place, every other one in the middle of a frame."""
    return {
        f"at {place} of {size}": [torn(place) if number % 2 else after(place)]
        for number, place in enumerate(places)
    }


def outcomes(
    scenario: Scenario, folder: Path, cache: Path, places: Callable[[int], dict[str, list[Any]]]
) -> dict[str, Any]:
    """Run a scenario unbroken, and kill and resume it at every place; what differs, by place."""
    whole = folder / "whole"
    assert life(lambda: experiment.run(scenario, out=whole, cache_dir=cache)) == 0
    remember(cache)
    expected = told(whole)
    results = {}
    for number, (name, deaths) in enumerate(places((whole / tape.TAPE).stat().st_size).items()):
        out = folder / f"killed-{number}"
        ends = [killed(scenario, out, cache, death, begun=place > 0) for place, death in enumerate(deaths)]
        last = life(lambda out=out: resume(out, cache_dir=cache))  # type: ignore[misc]
        found = told(out) if last == 0 else {}
        results[name] = {
            "killed": ends,
            "resumed": last,
            "differing": [key for key, value in expected.items() if found.get(key) != value],
        }
    return results


def remember(cache: Path) -> None:
    """What every life would work out anew: hashes of sources, and how transformers loads a model."""
    models_cache.sources_hash(models_cache._DETERMINING_SOURCES)
    zoo.load_folder(next(path for path in (cache / "models").iterdir() if models_cache.is_whole(path)))


def main() -> None:
    folder, cache = Path(sys.argv[1]), Path(sys.argv[2])
    if len(sys.argv) == 4:
        places = {"unlike": unlike_places, "more": more_places}[sys.argv[3]]
        print(json.dumps(outcomes(small(), folder, cache, places)))
        return
    count = int(sys.argv[4])
    found = {}
    for name in sys.argv[3].split(","):
        scenario = small(protocol=OTHERS[name]) if name in OTHERS else read_scenario(name)
        choose = spread_places if name in OTHERS else random_places
        own = outcomes(scenario, folder / Path(name).stem, cache, partial(choose, count=count))
        found |= {f"{Path(name).stem}, {place}": told for place, told in own.items()}
    print(json.dumps(found))


def small(**keys: Any) -> Scenario:
    """A tiny run with a checkpoint at every version."""
    return scenario_from(tiny(compute={"checkpoint_every": "0 s"}, **keys))


if __name__ == "__main__":
    main()
