"""When Python looks for garbage (gc_policy.py): a pause leaves it as it was, and only a command's start keeps what is there."""

import gc
import weakref

import pytest

from fedsim.processes import gc_policy


class Circle:
    def __init__(self):
        self.own = self


@pytest.mark.parametrize("was_enabled", [True, False])
def test_a_pause_leaves_the_collector_as_it_was(was_enabled):
    try:
        (gc.enable if was_enabled else gc.disable)()
        with gc_policy.unsought(for_good=False):
            assert not gc.isenabled()
        assert gc.isenabled() is was_enabled
        with pytest.raises(ImportError), gc_policy.unsought(for_good=False):
            raise ImportError
        assert gc.isenabled() is was_enabled
    finally:
        gc.enable()


def test_what_an_earlier_run_left_is_found_after_a_pause_that_is_not_for_good():
    frozen = gc.get_freeze_count()
    gone = weakref.ref(Circle())
    with gc_policy.unsought(for_good=False):
        pass
    assert gc.get_freeze_count() == frozen
    gc.collect()
    assert gone() is None
