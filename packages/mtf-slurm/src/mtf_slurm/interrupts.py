"""Being told to stop: signal handlers that only take note."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["Interrupts", "listening", "saying"]


@dataclass
class Interrupts:
    """What the launcher was told, and how much of it was answered.

    Attributes:
        signal_name: the first signal; empty as long as there was none.
        kill: whether a second Ctrl-C asked to end at once.
    """

    signal_name: str = ""
    kill: bool = False
    _announced: bool = False
    _escalated: bool = False

    @property
    def requested(self) -> bool:
        """Whether the launcher is to stop."""
        return bool(self.signal_name)

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Take note of a signal."""
        if not self.signal_name:
            self.signal_name = signal.Signals(number).name
        elif number == signal.SIGINT:
            self.kill = True

    def announce(self) -> bool:
        """Whether the stop is to be passed on now; true once."""
        due, self._announced = not self._announced, True
        return due

    def escalate(self) -> bool:
        """Whether to kill now; true once."""
        due = self.kill and not self._escalated
        self._escalated = self._escalated or due
        return due


@contextlib.contextmanager
def saying(text: str) -> Iterator[None]:
    """Let a Ctrl-C that ends the block say what it means, unless it says so already."""
    try:
        yield
    except KeyboardInterrupt as error:
        if str(error):
            raise
        raise KeyboardInterrupt(text) from error


@contextlib.contextmanager
def listening(interrupts: Interrupts) -> Iterator[None]:
    """Take note of SIGINT, SIGTERM and SIGHUP while the block runs; put back the former handlers afterwards.

    A signal that is ignored, as nohup has it, stays ignored. Outside the main thread, where Python handles no
    signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, interrupts.note)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
