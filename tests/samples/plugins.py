"""Plug-ins as pip would leave them: a ``.dist-info`` folder on the path, beside the code or a checkout of it."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fedsim import protocols as known
from fedsim.sim.network import wire


@contextlib.contextmanager
def installed(
    site: Path, protocols: Mapping[str, str], name: str = "plug-in", version: str = "1.0", *paths: Path
) -> Iterator[None]:
    """A distribution that registers protocols, here and in child processes; modules and messages are forgotten afterwards.

    Args:
        site: where it is installed; modules may lie there.
        protocols: module by name of the protocol.
        name: of the distribution.
        version: of the distribution.
        paths: checkouts where its code lies.
    """
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = "".join(f"{protocol} = {module}\n" for protocol, module in protocols.items())
    (info / "entry_points.txt").write_text(f"[fedsim.protocols]\n{points}")
    folders = [str(folder) for folder in (site, *paths)]
    before, messages = set(sys.modules), dict(wire._REGISTER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(folders))
        for folder in folders:
            patch.syspath_prepend(folder)
        known.load.cache_clear()
        yield
    for module in {module.partition(".")[0] for module in protocols.values()} - before:
        sys.modules.pop(module, None)
    wire._REGISTER.clear()
    wire._REGISTER.update(messages)
    wire._decoder.cache_clear()
    importlib.invalidate_caches()
    known.load.cache_clear()
