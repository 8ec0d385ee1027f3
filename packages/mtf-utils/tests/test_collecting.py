"""The collector of garbage comes back as it was, whatever happens meanwhile."""

from __future__ import annotations

import gc

import pytest

from mtf_utils.collecting import collection_paused


@collection_paused()
def fail_meanwhile():
    assert not gc.isenabled()
    raise KeyError


@pytest.mark.parametrize("was_on", [True, False])
def test_it_is_off_meanwhile_and_then_as_before(was_on):
    before = gc.isenabled()
    try:
        (gc.enable if was_on else gc.disable)()
        with pytest.raises(KeyError):
            fail_meanwhile()
        assert gc.isenabled() is was_on
    finally:
        (gc.enable if before else gc.disable)()


def generation_of(sought: object) -> int | None:
    for generation in range(3):
        if any(each is sought for each in gc.get_objects(generation)):
            return generation
    return None


def test_what_was_made_meanwhile_counts_as_old_and_what_is_frozen_stays_so():
    with collection_paused():
        made = {"kept": []}
    assert generation_of(made) == 2
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with collection_paused():
            made = {"kept": []}
        assert gc.get_freeze_count() >= frozen - 10
        assert generation_of(made) != 2
    finally:
        gc.unfreeze()
