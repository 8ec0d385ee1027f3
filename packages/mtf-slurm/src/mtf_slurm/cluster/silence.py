"""Says that Slurm does not answer, once a question has been open for some seconds, and again ever more seldom."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

__all__ = ["Silence"]

FIRST_S: Final = 4.0
"""After how long it is said for the first time; a busy controller answers in less."""

GROWTH: Final = 2.0
LONGEST_S: Final = 120.0
_ANSWER_S: Final = 1.0

_PURPOSES: Final = {
    "sacct": "to hear how jobs ended",
    "sbatch": "to hear whether it queued the job",
    "scancel": "to have jobs cancelled",
    "scontrol": "to hear or change a setting",
    "sinfo": "to hear which partitions there are",
    "squeue": "to hear which jobs there are",
}

logger = logging.getLogger(__name__)


class Silence:
    """The time since Slurm was asked something and has not answered.

    Args:
        say: tells the user; None is a warning in the log, which goes to standard error unless it was set up otherwise.
        first_s: after how long it is said for the first time.
        clock: a monotonic clock, in seconds.
        wall_clock: seconds since 1970, for the times of day that people read.
    """

    def __init__(
        self,
        say: Callable[[str], None] | None = None,
        *,
        first_s: float = FIRST_S,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._say = say or logger.warning
        self._first_s = first_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._since: float | None = None
        self._due = self._pause = 0.0
        self._until: float | None = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def until(self, timeout_s: float) -> Iterator[None]:
        """While the block runs, questions are asked again until so many seconds from now."""
        before, self._until = self._until, self._clock() + timeout_s
        try:
            yield
        finally:
            self._until = before

    @contextlib.contextmanager
    def asking(self, program: str, limit_s: float) -> Iterator[None]:
        """While the block runs, a program of Slurm is asking.

        Args:
            program: its name.
            limit_s: how long it may take.
        """
        start = self._clock()
        if self._since is None:
            self._since, self._due, self._pause = start, start + self._first_s, self._first_s
        answered = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(program, start + limit_s, answered), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            answered.set()
            watcher.join()

    def unanswered(self, program: str) -> None:
        """The program that asked has ended without an answer; the silence goes on, and so may the waiting."""
        if self._until is not None:
            with self._lock:
                self._tell(program, self._until)

    def answered(self) -> None:
        """Slurm has answered: the silence is over."""
        with self._lock:
            since, self._since = self._since, None
            if since is not None and self._pause > self._first_s:
                self._say(f"Slurm answers again, after {self._clock() - since:.0f} s")

    def _watch(self, program: str, given_up_at: float, answered: threading.Event) -> None:
        # an answer takes less than this, also where the one before was not given long ago
        while not answered.wait(max(_ANSWER_S, self._due - self._clock())):
            with self._lock:
                self._tell(program, given_up_at)

    def _tell(self, program: str, given_up_at: float) -> None:
        """Say it, if it is time to."""
        now = self._clock()
        if self._since is None or now < self._due:
            return
        self._pause = min(LONGEST_S, self._pause * GROWTH)
        self._due = now + self._pause
        # repeated questions end later than this one
        end = given_up_at if self._until is None else self._until
        who = "Slurm's accounting" if program == "sacct" else "Slurm's controller"
        self._say(
            f"{who} has not answered since {self._time(self._since)} ({now - self._since:.0f} s); waiting for "
            f"{program} {_PURPOSES.get(program, 'to answer')}, until {self._time(end)} at the latest. Nothing is lost "
            "meanwhile"
        )

    def _time(self, at: float) -> str:
        return datetime.fromtimestamp(self._wall_clock() + at - self._clock()).astimezone().strftime("%H:%M:%S")
