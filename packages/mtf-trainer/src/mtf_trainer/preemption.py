"""Being told to go: signal handlers that set a flag and do nothing else."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

__all__ = ["StopFlag", "listening", "signal_names"]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class StopFlag:
    """Whether the process was told to stop, by what, and when.

    Attributes:
        requested: read by the loop at every boundary.
        signal_name: what told it.
        requested_at: monotonic clock at that time, in seconds.
    """

    requested: bool = False
    signal_name: str = ""
    requested_at: float = 0.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def request(self, signal_name: str) -> None:
        """Ask for a stop; a further request changes nothing."""
        if not self.requested:
            self.signal_name = signal_name
            self.requested_at = self.clock()
            self.requested = True

    def is_requested(self) -> bool:
        """Whether a stop was asked for."""
        return self.requested

    def elapsed_s(self) -> float:
        """Seconds since the request."""
        return self.clock() - self.requested_at


def signal_names(configured: Sequence[str]) -> list[str]:
    """The configured preemption signals and the one that submitit announces, if it started us."""
    names = list(configured)
    announced = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "")
    if announced and not announced.startswith("SIG"):
        announced = f"SIG{announced}"
    if announced in signal.Signals.__members__ and announced not in names:
        names.append(announced)
    return names


@contextlib.contextmanager
def listening(flag: StopFlag, names: Sequence[str]) -> Iterator[None]:
    """Let the signals, and Ctrl-C, set the flag while the block runs.

    A handler that was there is called too, and is put back afterwards. A second Ctrl-C interrupts at once; under
    torchrun it takes a third one.
    Signals can be handled in the main thread only; elsewhere this warns and does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        logger.warning("fit() runs outside the main thread: a preemption signal will end the process unsaved")
        yield
        return
    previous: dict[int, Any] = {}
    try:
        for name in dict.fromkeys([*names, "SIGINT"]):
            number = signal.Signals[name]
            previous[number] = signal.getsignal(number)
            signal.signal(number, _handler(flag, previous[number]))
        yield
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler if handler is not None else signal.SIG_DFL)


def _handler(flag: StopFlag, before: Any) -> Callable[[int, FrameType | None], None]:
    enough = 3 if "TORCHELASTIC_RUN_ID" in os.environ else 2  # torchrun passes on what the terminal told the ranks, too
    caught = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal caught
        caught += number == signal.SIGINT
        if number == signal.SIGINT and caught >= enough and flag.signal_name == "SIGINT":
            raise KeyboardInterrupt
        flag.request(signal.Signals(number).name)
        if callable(before) and before is not signal.default_int_handler:
            before(number, frame)

    return handle
