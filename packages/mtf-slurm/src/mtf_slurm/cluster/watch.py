"""Ask Slurm about many jobs at once, and no more often than a cluster should be asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from mtf_slurm.cluster.controller import Controller, Observation
from mtf_slurm.cluster.references import JobReference

__all__ = ["Pace", "Watch"]

GROWTH: Final = 1.5


@dataclass(frozen=True)
class Pace:
    """How long to wait from one question to the next.

    Seconds for a few jobs, minutes for many, and longer while nothing happens.

    Attributes:
        jobs: how many jobs are asked for.
    """

    jobs: int

    @property
    def shortest_s(self) -> float:
        """The wait after something has happened."""
        return min(30.0, max(2.0, self.jobs / 25))

    @property
    def longest_s(self) -> float:
        """The wait while nothing happens for long."""
        return min(180.0, max(10.0, 0.3 * self.jobs))

    def next_s(self, before_s: float, *, changed: bool) -> float:
        """The wait after one of `before_s`."""
        if changed:
            return self.shortest_s
        return min(self.longest_s, max(self.shortest_s, before_s * GROWTH))


class Watch:
    """Observes jobs, of one folder or of several, and remembers what it was told.

    Args:
        controller: the cluster; None is the one of this machine.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, controller: Controller | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.controller = controller or Controller()
        self._clock = clock
        self._seen: Observation | None = None
        self._ids: frozenset[str] = frozenset()
        self._names: frozenset[str] = frozenset()
        self._asked_at = 0.0
        self._wait_s = 0.0
        self._stirred = False

    def observe(self, jobs: Iterable[JobReference], *, patient: bool = False) -> Observation | None:
        """What Slurm says of the jobs, in one question; None if there is none that it may know.

        Args:
            jobs: as they are noted on disk at this moment.
            patient: whether an answer that is a little old will do. One that says nothing of some of the jobs, because
                they were not asked for, never does.
        """
        known = [job for job in jobs if job.may_be_known]
        if not known:
            return None
        if patient and self._covers(known) and self._clock() < self._asked_at + self._pause_s():
            return self._seen
        ids = frozenset(job.job_id for job in known if job.job_id)
        names = frozenset(job.job_name for job in known if not job.job_id)
        if patient:  # who asks for one job after the other gets an answer for all of them in the end
            ids, names = ids | self._ids, names | self._names
        seen = self.controller.observe(ids, names=names)
        changed = self._seen is None or seen.tasks != self._seen.tasks
        self._wait_s = Pace(len(ids) + len(names)).next_s(self._wait_s, changed=changed)
        self._seen, self._ids, self._names = seen, ids, names
        self._asked_at, self._stirred = self._clock(), False
        return seen

    def stir(self) -> None:
        """Something has happened, such as a new receipt: do not wait for the whole of a long interval."""
        self._stirred = True

    def forget(self) -> None:
        """Ask again next time, whoever asks: what was told before has been changed on purpose."""
        self._seen, self._ids, self._names = None, frozenset(), frozenset()

    def _covers(self, jobs: Iterable[JobReference]) -> bool:
        seen = self._seen
        if seen is None:
            return False
        return all(
            job.job_id in self._ids or seen.find(job.job_id, job.job_name)
            if job.job_id
            else job.job_name in self._names
            for job in jobs
        )

    def _pause_s(self) -> float:
        return Pace(len(self._ids) + len(self._names)).shortest_s if self._stirred else self._wait_s
