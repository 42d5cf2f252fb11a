"""Ordinary ``async def`` tests run on virtual time; one that needs real time says so.

``@pytest.mark.asyncio(loop_factories=["ordinary"])`` runs a test on asyncio's own loop, and
``loop_factories=["virtual", "ordinary"]`` on both: so a test shows that code needs no ``if virtual``.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

from fedsim.sim.clock import VirtualLoop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

MAX_TEST_EVENTS = 20_000_000

# A shell that starts the tests in the background has them ignore Ctrl-C, and children inherit that. Tests that
# interrupt a child need what a terminal would give it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("thorough", deadline=None)  # for make test-all: hypothesis's own number of examples
settings.register_profile("fedsim", deadline=None, max_examples=30)  # no deadline: a busy machine is no error
settings.register_profile("quick", deadline=None, max_examples=10)  # for make test-quick
settings.load_profile("fedsim")

# Each of several workers has one core: it trains models in its own process, and not in two children that import torch.
os.environ.setdefault("FEDSIM_PROCESSES", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def models_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of trained models that all tests share, also those of the other workers: a model is trained once."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "models"
    os.environ["FEDSIM_CACHE"] = str(folder)  # of what names no cache, too: the user's own stays as it is
    return folder


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    factories: dict[str, LoopFactory] = {"virtual": partial(VirtualLoop, max_events=MAX_TEST_EVENTS)}
    marker = item.get_closest_marker("asyncio")
    if marker is not None and "loop_factories" in marker.kwargs:
        factories["ordinary"] = asyncio.new_event_loop
    return factories


LONGEST = {
    "test_kills.py", "test_kills_of_others.py", "test_ray_workers.py", "test_ray_scoring.py", "test_wheel.py",
    "test_bad_inputs.py", "test_compare.py", "test_determinism.py", "test_zoo.py",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """The files that take longest begin first (``--no-loadscope-reorder`` keeps that): none is left alone at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
