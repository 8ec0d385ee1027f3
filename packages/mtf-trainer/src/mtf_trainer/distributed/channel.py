"""What the ranks leave for each other in a store, outside the order of the collectives: for threads of their own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

__all__ = ["POLL_S", "Channel", "KeyValues"]

POLL_S: Final = 0.005
"""Seconds between two looks while waiting for others."""


class KeyValues(Protocol):
    """What is needed of torch's stores."""

    def set(self, key: str, value: str) -> None:
        """Write a value."""

    def get(self, key: str) -> bytes:
        """Read a value that is there."""

    def check(self, keys: list[str]) -> bool:
        """Whether all of them are there; does not wait."""

    def compare_set(self, key: str, expected_value: str, desired_value: str) -> bytes:
        """Write a value where there is another, or none."""

    def delete_key(self, key: str) -> bool:
        """Remove a value."""


class Channel:
    """Values by name, as JSON, that any rank can write and wait for.

    Waiting asks again and again: a blocking wait could neither be given up nor told of an end.
    """

    def __init__(self, store: KeyValues) -> None:
        self._store = store

    def tell(self, name: str, value: Any) -> None:
        """Leave a value, in place of one that is there."""
        self._store.set(name, json.dumps(value))

    def tell_once(self, name: str, value: Any) -> None:
        """Leave a value unless one is there: of several ranks that do this at once, one prevails."""
        self._store.compare_set(name, "", json.dumps(value))

    def has(self, *names: str) -> bool:
        """Whether there are values of all these names."""
        return self._store.check(list(names))

    def read(self, name: str) -> Any:
        """A value that is there."""
        return json.loads(self._store.get(name))

    def await_all(self, names: Iterable[str], check: Callable[[], None]) -> list[Any]:
        """Wait for values.

        Args:
            names: of the values.
            check: called between two looks; raises to give up.
        """
        wanted = list(names)
        while not self.has(*wanted):
            check()
            time.sleep(POLL_S)
        return [self.read(name) for name in wanted]

    def forget(self, names: Iterable[str]) -> None:
        """Remove values that everybody has read."""
        for name in names:
            self._store.delete_key(name)
