"""The bound on concurrent jobs: lanes, each of which has one job at a time to run in it. Pure.

A folder has as many lanes as runs may be at work. A job holds as many as its throttle allows tasks at a time, and is
chained behind the jobs that held one of them before: not only the last, which may be cancelled while an earlier one is
at work. So no two jobs ever run in one lane, however long they last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Holder", "Lanes", "quotas"]


_PREDECESSORS: Final = 8
"""Behind how many earlier jobs of a lane the next one is chained."""


@dataclass(frozen=True)
class Holder:
    """A job that is not over.

    Attributes:
        job: its id.
        lanes: which it holds; none: it was submitted without a bound.
        remaining: how many of its tasks are not over.
    """

    job: str
    lanes: tuple[int, ...]
    remaining: int


@dataclass
class _Lane:
    """Who is to be over before the next job starts here, and how much there is to do until then, in tasks."""

    jobs: tuple[str, ...] = ()
    load: float = 0.0

    def add(self, job: str, load: float) -> None:
        self.jobs = (*self.jobs, job)[-_PREDECESSORS:]
        self.load = load


class Lanes:
    """The lanes of a folder, with the jobs that hold them.

    Args:
        limit: how many there are.
        holders: the jobs that are not over, in the order of their submission.
    """

    def __init__(self, limit: int, holders: Iterable[Holder] = ()) -> None:
        self._lanes = [_Lane() for _ in range(limit)]
        for holder in holders:
            fits = holder.lanes and max(holder.lanes) < limit
            # else it was submitted when there were more lanes, or no bound: nothing may start beside it
            lanes = holder.lanes if fits else range(limit)
            for index in lanes:
                lane = self._lanes[index]
                lane.add(holder.job, lane.load + holder.remaining / len(holder.lanes or lanes))

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._lanes)

    @property
    def free(self) -> list[int]:
        """The lanes that nothing is at work in and nothing waits for."""
        return [index for index, lane in enumerate(self._lanes) if not lane.jobs]

    def shortest(self, count: int) -> list[int]:
        """The lanes with the least to do."""
        return sorted(range(self.count), key=lambda index: (self._lanes[index].load, index))[:count]

    def take(self, job: str, lanes: Sequence[int], tasks: int) -> list[str]:
        """Put a job into lanes.

        Args:
            job: its name or id.
            lanes: as many as its tasks may run at a time.
            tasks: how many it has.

        Returns:
            The jobs that have to be over before it may start.
        """
        after = dict.fromkeys(earlier for index in lanes for earlier in self._lanes[index].jobs)
        start = max(self._lanes[index].load for index in lanes)
        for index in lanes:
            self._lanes[index].add(job, start + tasks / len(lanes))
        return list(after)


def quotas(sizes: Sequence[int], lanes: int) -> list[int]:
    """How many lanes each of some groups gets.

    Each gets one as long as there are any, larger groups first; the rest goes where most tasks share a lane.

    Args:
        sizes: how many tasks each group has, from 1.
        lanes: how many there are.
    """
    order = sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))
    given = [0] * len(sizes)
    for index in order[:lanes]:
        given[index] = 1
    for _ in range(lanes - sum(given)):
        wanting = [index for index in order if 0 < given[index] < sizes[index]]
        if not wanting:
            break
        given[max(wanting, key=lambda index: sizes[index] / given[index])] += 1
    return given
