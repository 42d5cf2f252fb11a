"""Build the compiled twins of the modules in ``fedsim.compiled``: ``python -m fedsim.compiling`` (needs mypy and a C compiler).

mypyc reads the annotations of those modules alone; what they import from elsewhere is of any type to it and is checked when it
arrives. Whether their annotations are right is what ``make check`` says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from fedsim.compiled import FOLDER, LIST, MODULES, SUFFIX, SWITCH, fingerprint, source_of
from fedsim.errors import FedsimError

_SETTINGS = """
[mypy]
follow_imports = skip
ignore_missing_imports = True
ignore_errors = True
"""

_SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup
settings, level, build, *files = sys.argv[1:]
modules = mypycify(["--config-file", settings, *files], opt_level=level, target_dir=build)
setup(name="compiled", packages=[], ext_modules=modules,
      script_args=["-q", "build_ext", "--build-lib", build + "/lib", "--build-temp", build + "/temp"])
"""


class CompileError(FedsimError):
    """The compiled twins could not be built; everything runs without them."""


def build(folder: Path = FOLDER, *, optimisation: int = 3) -> None:
    """Build all of them into a folder, in place of what was there.

    Args:
        folder: where they are put, with the list of what they were built from.
        optimisation: the C compiler's, 0 to 3; results do not depend on it.

    Raises:
        CompileError: mypy, setuptools or a C compiler is missing, or failed; says what it said last.
    """
    was = fingerprint()
    root = Path(__file__).parents[1]
    with TemporaryDirectory() as work:
        settings = Path(work) / "mypy.ini"
        settings.write_text(_SETTINGS, encoding="utf-8")
        files = [str(source_of(module).relative_to(root)) for module in MODULES]
        command = [sys.executable, "-c", _SETUP, str(settings), str(optimisation), work, *files]
        # A fixed hash seed, so that the same sources give the same C; and no product and sum in one rounding, where a
        # processor can do that: the interpreter rounds twice.
        flags = f"{os.environ.get('CFLAGS', '')} -ffp-contract=off".strip()
        environment = os.environ | {SWITCH: "0", "PYTHONHASHSEED": "0", "CFLAGS": flags}
        ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            last = [line for line in (ran.stdout + ran.stderr).splitlines() if line.strip()][-1:]
            raise CompileError(f"the modules could not be compiled: {''.join(last) or 'no word why'}")
        library = Path(work) / "lib"
        built = {
            ".".join(file.relative_to(library).parts).removesuffix(SUFFIX): file
            for file in sorted(library.rglob(f"*{SUFFIX}"))
        }
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, file in built.items():
            shutil.copyfile(file, folder / f"{name}{SUFFIX}")
    (folder / LIST).write_text("\n".join((was, *built, "")), encoding="utf-8")


def main() -> int:
    """Build them where ``import fedsim`` looks for them."""
    try:
        build()
    except CompileError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"compiled {len(MODULES)} modules into {FOLDER}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
