"""The source and the version of code that third parties bring along: what a result depends on beside fedsim's own code.

A plug-in is a distribution with entry points of a group ``fedsim.*``, installed in any way (a wheel, an editable
checkout, a path). All of its files count: those that it has installed, and those of the packages that it names. What it
imports from distributions that are no plug-ins is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path

GROUPS = "fedsim."
"""How the names of entry point groups begin that are fedsim's."""

_CODE = (".py", ".pyx", ".so", ".pyd")
_DATA = (".json", ".yaml", ".yml", ".toml", ".csv", ".txt", ".j2", ".jinja")
_INFO = (".dist-info", ".egg-info")

_Files = tuple[tuple[str, str, int, int], ...]
"""Per file its name within the plug-in, its path, its size in bytes and the time of its last change in ns."""


def plugins() -> dict[str, dict[str, str]]:
    """Every plug-in by the name of its distribution: its ``version``, and the hash of its ``source``."""
    found: dict[str, dict[str, str]] = {}
    for distribution in distributions():
        modules = [point.module for point in distribution.entry_points if point.group.startswith(GROUPS)]
        name = str(distribution.metadata["Name"])
        if modules and name not in found:  # the first on the path is the one that is imported
            found[name] = {
                "version": distribution.version,
                "source": _source(_state(dict(_files(distribution, modules)))),
            }
    return dict(sorted(found.items()))


def differences(
    recorded: Mapping[str, Mapping[str, str]], here: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    """In what the plug-ins of a run differ from those here, one phrase for each that does."""
    for name in sorted({*recorded, *here}):
        was, now = recorded.get(name), here.get(name)
        if was is None or now is None:
            yield f"plug-in {name} is not {'on record' if was is None else 'here'}"
        elif was["version"] != now["version"]:
            yield f"plug-in {name} was {was['version']}, here it is {now['version']}"
        elif was["source"] != now["source"]:
            yield f"the source of plug-in {name} {now['version']} was {was['source'][:12]}, here it is {now['source'][:12]}"


def _files(distribution: Distribution, modules: list[str]) -> Iterator[tuple[str, Path]]:
    """The files of a plug-in, by name; an editable checkout lists none, so the packages are looked up as an import would."""
    tops = {module.partition(".")[0] for module in modules}
    tops |= set((distribution.read_text("top_level.txt") or "").split())
    for file in distribution.files or ():
        if file.parts and not file.parts[0].endswith(_INFO) and file.suffix in (*_CODE, *_DATA):
            yield file.as_posix(), Path(str(file.locate()))
            tops.add(file.parts[0].removesuffix(".py"))
    for top in sorted(tops):
        yield from _module_files(top, [one for one in modules if one.startswith(f"{top}.")])


def _module_files(name: str, below: list[str]) -> Iterator[tuple[str, Path]]:
    """The files of a package or a module; of a namespace, which many may share, those of the modules below that are named."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return
    if spec is None:
        return
    if spec.submodule_search_locations is None:
        if spec.origin is not None and Path(spec.origin).is_file():
            yield Path(spec.origin).name, Path(spec.origin)
    elif spec.origin is None:
        depth = name.count(".") + 2
        for deeper in sorted({".".join(module.split(".")[:depth]) for module in below}):
            yield from _module_files(deeper, [one for one in below if one.startswith(f"{deeper}.")])
    else:
        for root in map(Path, spec.submodule_search_locations):
            for path in sorted(root.rglob("*")):
                if path.suffix in (*_CODE, *_DATA) and "__pycache__" not in path.parts:
                    yield f"{name.replace('.', '/')}/{path.relative_to(root).as_posix()}", path


def _state(files: Mapping[str, Path]) -> _Files:
    there = {name: path for name, path in files.items() if path.is_file()}
    about = {name: path.stat() for name, path in there.items()}
    return tuple(
        (name, str(path), about[name].st_size, about[name].st_mtime_ns)
        for name, path in sorted(there.items())
    )


@lru_cache(maxsize=64)
def _source(files: _Files) -> str:
    """Hash of names and contents; files that nobody has touched since are not read again."""
    state = blake2b(digest_size=16)
    for name, path, *_ in files:
        content = Path(path).read_bytes()
        state.update(f"{name}\0{len(content)}\0".encode())
        state.update(content)
    return state.hexdigest()
