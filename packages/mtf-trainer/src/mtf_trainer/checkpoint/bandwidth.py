"""How long a save is going to take, learned from those that were made."""

from __future__ import annotations

from collections import deque

__all__ = ["Bandwidth"]

_REMEMBERED = 5


class Bandwidth:
    """Estimates from the slowest of the latest saves: being early costs little, being late costs the work."""

    def __init__(self) -> None:
        self._seconds_per_byte: deque[float] = deque(maxlen=_REMEMBERED)

    def learn(self, count: int, seconds: float) -> None:
        """Note that `count` bytes took so long to become durable."""
        if count > 0:
            self._seconds_per_byte.append(seconds / count)

    def estimate_s(self, count: int) -> float | None:
        """Seconds that `count` bytes are going to take; None if nothing was learned yet."""
        return max(self._seconds_per_byte) * count if self._seconds_per_byte else None
