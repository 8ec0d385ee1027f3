"""Repeat what cannot be done yet, with growing pauses, saying why, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["NotYetError", "Patience"]


class NotYetError(Exception):
    """Something cannot be done for now, for a reason that passes."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for what.

    Attributes:
        timeout_s: for the cluster to take a job, before the call ends with an error.
        settle_s: after squeue has answered, before a job that it does not know is certainly not there.
        longest_pause_s: between two tries.
        clock: a monotonic clock, in seconds.
        sleep: waits for some seconds.
        wall_clock: seconds since 1970.
    """

    timeout_s: float = 600.0
    settle_s: float = 3.0
    longest_pause_s: float = 15.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    wall_clock: Callable[[], float] = time.time

    def repeat(self, step: Callable[[], None], say: Callable[[str], None]) -> None:
        """Repeat a step until it does not say any more that it could not be done yet.

        Args:
            step: may be repeated whatever came of it.
            say: tells the user why it takes long, once for each reason.

        Raises:
            NotYetError: it still could not be done when the time was up.
        """
        import tenacity  # takes long to load, and who only looks has nothing to repeat

        start = self.clock()
        said: set[str] = set()

        def is_late(_: tenacity.RetryCallState) -> bool:
            return self.clock() - start >= self.timeout_s

        def explain(state: tenacity.RetryCallState) -> None:
            reason = str(state.outcome.exception()) if state.outcome else ""
            if reason not in said:
                said.add(reason)
                say(f"{reason}; trying again for up to {self.timeout_s:g} s")

        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(NotYetError),
            wait=tenacity.wait_exponential(multiplier=0.25, max=self.longest_pause_s) + tenacity.wait_random(0, 0.25),
            stop=is_late,
            sleep=self.sleep,
            before_sleep=explain,
            reraise=True,
        )(step)
