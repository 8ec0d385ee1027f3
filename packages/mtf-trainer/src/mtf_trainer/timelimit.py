"""How long saves may take, and the end that the scheduler has set for the job: a stop comes early enough before it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from mtf_trainer.preemption import StopFlag
from mtf_utils.sections import PreemptionConfig

__all__ = ["TIME_LIMIT", "SaveBounds", "TimeLimit", "job_end"]

TIME_LIMIT: Final = "the job's time limit"
"""What takes the place of a signal's name when nothing but the clock told the run to stop."""

MARGIN_S: Final = 5.0
CAUTION: Final = 1.5
_LONGEST_WAIT_S = 60.0

_log = logging.getLogger(__name__)


def job_end(environ: Mapping[str, str] | None = None) -> float | None:
    """When the job is going to be ended, in seconds since 1970; None if the environment does not tell.

    Source: sbatch(1), SLURM_JOB_END_TIME.
    """
    text = (os.environ if environ is None else environ).get("SLURM_JOB_END_TIME", "")
    if not text:
        return None
    try:
        end = float(text)
    except ValueError:
        _log.warning("SLURM_JOB_END_TIME is %r, not a number of seconds: the job's time limit is not watched", text)
        return None
    return end if 0 < end < float("inf") else None


class TimeLimit:
    """Watches the clock in a thread, so that the loop has nothing to ask but its flag.

    The stop comes before the end by the time that a save takes, and twice the longest time that the loop went without
    a point at which it could have been saved.

    Args:
        flag: set when it is time to stop.
        end: when the job ends, in seconds since 1970.
        save_s: how long a save is going to take, in seconds.
        clock: seconds since 1970.
        elapsed: seconds from an arbitrary point.
    """

    def __init__(
        self,
        flag: StopFlag,
        end: float,
        save_s: Callable[[], float],
        *,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._flag = flag
        self._end = end
        self._save_s = save_s
        self._clock = clock
        self._elapsed = elapsed
        self._longest_s = 0.0
        self._last_point: float | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._watch, name="time-limit", daemon=True).start()

    def close(self) -> None:
        """Watch no longer."""
        self._closed.set()

    def save_point(self) -> None:
        """Note that the loop is at a point at which it can be saved."""
        now, last = self._elapsed(), self._last_point
        if last is not None and now - last > self._longest_s:
            self._longest_s = now - last
        self._last_point = now

    def left_s(self) -> float:
        """Seconds until the job ends, not less than 0."""
        return max(0.0, self._end - self._clock())

    def spare_s(self) -> float:
        """Seconds until a stop has to be asked for; negative when it is late."""
        lead_s = MARGIN_S + CAUTION * self._save_s() + 2 * self._longest_s
        return self._end - self._clock() - lead_s

    def _watch(self) -> None:
        while not self._closed.is_set():
            spare_s = self.spare_s()
            if spare_s <= 0:
                self._flag.request(TIME_LIMIT)
                return
            # What is known of saves and steps changes: look again half-way, at last every tenth of a second.
            self._closed.wait(min(_LONGEST_WAIT_S, max(0.1, spare_s / 2)))


class SaveBounds:
    """The bounds of a run's saves.

    Args:
        config: the user's.
        flag: whether the run was told to stop, by what and when.
        estimate_s: how long the next save is going to take, in seconds; None while that is unknown.
    """

    def __init__(self, config: PreemptionConfig, flag: StopFlag, estimate_s: Callable[[], float | None]) -> None:
        self._flag = flag
        self._estimate_s = estimate_s
        self.timeout_s = 60 * config.timeout_minutes
        self.grace_s = config.grace_period_seconds
        end = job_end()
        self.time_limit = None if end is None else TimeLimit(flag, end, self.save_s)

    def save_s(self) -> float:
        """How long the next save is going to take: the whole grace period while that is unknown."""
        estimate_s = self._estimate_s()
        return self.grace_s if estimate_s is None else estimate_s

    def left_s(self) -> float | None:
        """Seconds that are left for the emergency save; None if nobody presses.

        Where the grace period is over, or too short by now, it begins anew: whoever lives on was given more time than
        the configuration knows of (the warning before a time limit comes minutes before it), and to try loses nothing.
        """
        if self._flag.signal_name == "SIGINT":
            return None
        left_s = self.grace_s - self._flag.elapsed_s()
        if self._flag.signal_name == TIME_LIMIT and self.time_limit is not None:
            left_s = max(left_s, self.time_limit.left_s())  # at its end a job is given a grace period too
        return left_s if left_s > (self._estimate_s() or 0.0) else self.grace_s
