"""Single keys from a terminal, and a terminal that is in order again however the program ends."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["Keys", "ending_by_signal"]

_NAMES: Final = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1b[F": "end",
    "\x1bOH": "home",
    "\x1bOF": "end",
    "\x1b[1~": "home",
    "\x1b[4~": "end",
    " ": "page down",
    "k": "up",
    "j": "down",
}
_KEY: Final = re.compile(r"\x1b\[[0-9;?]*[@-~]|\x1bO.|\x1b.?|.", re.DOTALL)
"""One key, as a terminal sends it. Source: ECMA-48, control sequences."""


class Keys:
    """The keys that are pressed while the block runs; none where standard input is no terminal."""

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._before: list[Any] | None = None
        self._pending = ""

    def __enter__(self) -> Keys:
        if self._descriptor is not None:
            self._before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor, termios.TCSADRAIN)  # keys pressed before count
        return self

    def __exit__(self, *unused: object) -> None:
        if self._descriptor is not None and self._before is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    @property
    def available(self) -> bool:
        """Whether there can be any."""
        return self._descriptor is not None

    def wait(self, timeout_s: float) -> str:
        """The next key, by its name or as its character; empty if none is pressed in time."""
        if self._descriptor is None:
            time.sleep(timeout_s)
            return ""
        if not self._pending:
            ready, _, _ = select.select([self._descriptor], [], [], timeout_s)
            if not ready:
                return ""
            data = os.read(self._descriptor, 64)
            if not data:  # nobody types any more
                self._descriptor = None
                return ""
            self._pending = data.decode("utf-8", "replace")
        return self._take()

    def _take(self) -> str:
        match = _KEY.match(self._pending)
        key = match[0] if match else ""
        self._pending = self._pending[len(key) :]
        return _NAMES.get(key, key)


@contextlib.contextmanager
def ending_by_signal() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block, so that what it did to the terminal is undone."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
