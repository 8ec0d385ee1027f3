"""What a verb of `mtf` is, and how it ends."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["DONE", "UNREACHABLE", "USER_MISTAKE", "WORK_FAILED", "Command", "CommandError"]

DONE: Final = 0
WORK_FAILED: Final = 1
USER_MISTAKE: Final = 2
UNREACHABLE: Final = 3
"""The cluster could not be reached."""


@dataclass(frozen=True)
class Command:
    """A verb of `mtf`.

    Attributes:
        help: one line that says what it does.
        configure: adds the verb's arguments to its parser.
        run: does the work and returns the exit status: `DONE`, `WORK_FAILED`, `USER_MISTAKE` or `UNREACHABLE`.
    """

    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class CommandError(Exception):
    """What keeps a verb from its work, as a message for the user; `exit_status` is what `mtf` ends with.

    Any other exception that has an integer `exit_status`, of its class or its own, is treated alike: shown as a message
    without a traceback.
    """

    def __init__(self, message: str, *, exit_status: int = USER_MISTAKE) -> None:
        super().__init__(message)
        self.exit_status = exit_status
