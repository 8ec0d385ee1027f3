"""Counts and lists as people write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["counted", "listed", "shown", "spoken", "tally"]

_SHOWN: Final = 60


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 run`, `3 runs`.

    Args:
        count: the number.
        noun: for one.
        plural: for any other number; empty is the noun with an s.
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def spoken(status: str) -> str:
    """A status within a sentence: `not submitted`, `out of memory`."""
    return status.lower().replace("_", " ")


def tally(counts: Mapping[str, int]) -> str:
    """How many there are in each state: `2 completed, 1 not submitted`."""
    return ", ".join(f"{count} {spoken(status)}" for status, count in counts.items())


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shown(value: Any) -> str:
    """A value as it is written in a message, cut short where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
