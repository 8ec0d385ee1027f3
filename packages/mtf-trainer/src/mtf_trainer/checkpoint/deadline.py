"""How long a save may take, asked between its pieces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mtf_trainer.errors import CheckpointTimeoutError, PreemptionTimeoutError

__all__ = ["Clock", "Deadline"]

Clock = Callable[[], float]
"""Seconds from an arbitrary point, never going back."""


class Deadline:
    """A moment by which a save has to be durable.

    Args:
        limit_s: seconds from now; None sets no limit.
        emergency: whether missing it is a `PreemptionTimeoutError` rather than a `CheckpointTimeoutError`.
        clock: what tells the time.
    """

    def __init__(self, limit_s: float | None, *, emergency: bool = False, clock: Clock = time.monotonic) -> None:
        self._limit_s = limit_s
        self._emergency = emergency
        self._clock = clock
        self._end = None if limit_s is None else clock() + limit_s
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End the save at its next piece, from another thread."""
        self._cancelled.set()

    def remaining_s(self) -> float | None:
        """Seconds that are left, not less than 0; None without a limit."""
        return None if self._end is None else max(0.0, self._end - self._clock())

    def check(self, doing: str) -> None:
        """Raise if the time is up or the save was cancelled.

        Raises:
            PreemptionTimeoutError: an emergency save is late.
            CheckpointTimeoutError: another save is late, or was cancelled.
        """
        if self._cancelled.is_set():
            raise CheckpointTimeoutError(f"cancelled while {doing}, to make room for an emergency save")
        if self._end is not None and self._clock() >= self._end:
            raise self.error(doing)

    def error(self, doing: str) -> CheckpointTimeoutError | PreemptionTimeoutError:
        """The error that says the limit was reached while `doing`."""
        setting = "preemption.grace_period_seconds" if self._emergency else "preemption.timeout_minutes"
        kind = PreemptionTimeoutError if self._emergency else CheckpointTimeoutError
        return kind(
            f"the checkpoint was not durable within {self._limit_s:.6g} s (while {doing}); the last durable one is "
            f"intact; raise {setting}, or save to faster storage"
        )
