"""What the exit status of a training process says to whoever started it."""

from __future__ import annotations

from typing import Final

__all__ = ["EXIT_DO_NOT_REQUEUE", "EXIT_PREEMPTED"]

EXIT_PREEMPTED: Final = 75
"""The state is durable: run the same command again. Source: EX_TEMPFAIL of sysexits.h."""

EXIT_DO_NOT_REQUEUE: Final = 76
"""Running the same command again would fail again; the message says why."""
