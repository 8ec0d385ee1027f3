"""Python's collector of garbage, held back where there is none."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

__all__ = ["collection_paused"]

_FROZEN_BY_PYTHON: Final = 1_000
"""More objects than Python 3.12 freezes by itself as it starts (some hundreds), and fewer than a `gc.freeze()` does."""


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Look for no garbage meanwhile: for a stretch of work whose objects are all kept.

    Such a look costs a tenth of reading thousands of runs, and of importing torch, which makes half a million objects.
    Afterwards they count as old, so that the next look at what is young does not go through them.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on and gc.get_freeze_count() < _FROZEN_BY_PYTHON:  # what somebody froze is to stay so
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        if was_on:
            gc.enable()
