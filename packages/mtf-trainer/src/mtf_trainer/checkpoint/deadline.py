"""The terms of a save: by when it has to be durable, and whether it is still wanted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mtf_trainer.errors import CheckpointError, CheckpointTimeoutError, PreemptionTimeoutError

__all__ = ["Clock", "Deadline", "SaveCancelledError"]

Clock = Callable[[], float]
"""Seconds from an arbitrary point, never going back."""


class SaveCancelledError(CheckpointError):
    """A save was given up on purpose: something more urgent came, or its state is not what it should be."""


class Deadline:
    """A moment by which a save has to be durable, asked between its pieces.

    Args:
        limit_s: seconds from now; None sets no limit.
        emergency: whether missing it is a `PreemptionTimeoutError` rather than a `CheckpointTimeoutError`.
        clock: what tells the time.
        last_durable: finds the newest checkpoint that is on the disk, to name it in errors.

    Attributes:
        written: bytes that the save has written so far.
    """

    def __init__(
        self,
        limit_s: float | None,
        *,
        emergency: bool = False,
        clock: Clock = time.monotonic,
        last_durable: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self.written = 0
        self._limit_s = limit_s
        self._emergency = emergency
        self._clock = clock
        self._end = None if limit_s is None else clock() + limit_s
        self._last_durable = last_durable
        self._cancelled: str | None = None

    def cancel(self, reason: str) -> None:
        """End the save at its next piece, from another thread."""
        self._cancelled = reason

    def remaining_s(self) -> float | None:
        """Seconds that are left, not less than 0; None without a limit."""
        return None if self._end is None else max(0.0, self._end - self._clock())

    def wrote(self, count: int) -> None:
        """Note a piece that was written."""
        self.written += count

    def check(self, doing: str) -> None:
        """Raise if the time is up or the save was cancelled.

        Raises:
            SaveCancelledError: it was cancelled.
            PreemptionTimeoutError: an emergency save is late.
            CheckpointTimeoutError: another save is late.
        """
        self.check_cancelled(doing)
        if self._end is not None and self._clock() >= self._end:
            raise self.error(doing)

    def check_cancelled(self, doing: str) -> None:
        """Raise `SaveCancelledError` if the save was cancelled; the time may be up."""
        if self._cancelled is not None:
            raise SaveCancelledError(f"cancelled while {doing}: {self._cancelled}")

    def error(self, doing: str) -> CheckpointTimeoutError | PreemptionTimeoutError:
        """The error that says the limit was reached while `doing`."""
        setting = "preemption.grace_period_seconds" if self._emergency else "preemption.timeout_minutes"
        kind = PreemptionTimeoutError if self._emergency else CheckpointTimeoutError
        path = self._last_durable()
        last = "there is no durable one yet" if path is None else f"the last durable one is intact: {path}"
        return kind(
            f"the checkpoint was not durable within {self._limit_s:.6g} s (while {doing}); {last}; "
            f"raise {setting}, or save to faster storage",
            path=path,
        )
