"""From runs to the jobs that Slurm gets: grouped by what they ask for, cut to the cluster's limits, within the bound.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mtf_config import SLURMConfig
from mtf_slurm.cluster.lanes import Holder, Lanes, quotas
from mtf_slurm.submissions import JobPlan

__all__ = ["ALONE", "Group", "Pack", "Request", "group_runs", "plan_jobs", "rechain_jobs", "split_job"]


@dataclass(frozen=True)
class Pack:
    """How runs share a task.

    Attributes:
        runs: how many one has.
        at_once: how many of them are at work at a time.
    """

    runs: int = 1
    at_once: int = 1

    @classmethod
    def of(cls, slurm: SLURMConfig | None) -> Pack:
        """What the section of an experiment asks for."""
        return cls(slurm.runs_per_job or 1, slurm.runs_at_once or 1) if slurm else ALONE


ALONE: Final = Pack()
"""One run, one task."""


@dataclass(frozen=True)
class Request:
    """A run that is to be submitted.

    Attributes:
        name: of the run.
        options: what it asks for, as options of sbatch.
        stem: what its job is called.
        template: of the script; empty is the built-in one.
        pack: with how many others it shares a task.
    """

    name: str
    options: tuple[str, ...]
    stem: str
    template: str = ""
    pack: Pack = ALONE


@dataclass(frozen=True)
class Group:
    """Runs that can be in tasks of one array.

    Attributes:
        options: what each of the tasks asks for.
        stem: what their jobs are called.
        names: of the runs.
        template: of their scripts; empty is the built-in one.
        pack: how they share tasks.
    """

    options: tuple[str, ...]
    stem: str
    names: tuple[str, ...]
    template: str = ""
    pack: Pack = ALONE

    @property
    def tasks(self) -> int:
        """How many tasks they make."""
        return -(-len(self.names) // self.pack.runs)


def group_runs(requests: Iterable[Request]) -> list[Group]:
    """Put runs that ask for the same together; groups and the runs in them keep their order."""
    groups: dict[tuple[tuple[str, ...], str, str, Pack], list[str]] = {}
    for request in requests:
        key = (request.options, request.stem, request.template, request.pack)
        groups.setdefault(key, []).append(request.name)
    return [
        Group(options, stem, tuple(names), template, pack) for (options, stem, template, pack), names in groups.items()
    ]


def plan_jobs(
    groups: Sequence[Group],
    *,
    name_job: Callable[[str, int], str],
    max_tasks: int,
    limit: int | None = None,
    holders: Sequence[Holder] = (),
    single: bool = False,
) -> tuple[list[str], list[JobPlan]]:
    """The runs of some groups in the order of the jobs, and the jobs.

    Groups that have to wait for a lane come last.

    Args:
        groups: see `group_runs`.
        name_job: gives a job its name, from the stem and its number.
        max_tasks: how many tasks an array may have; below 2 there are no arrays.
        limit: how many tasks may be at work at a time; None is no bound.
        holders: the jobs of the same folder that are not over, in the order of their submission.
        single: whether it is one run, which needs no array.
    """
    is_array = not single and max_tasks > 1
    planned: list[JobPlan] = []
    dealer = _Dealer(groups, limit, holders)
    start = 0
    names: list[str] = []
    for number, group in sorted(enumerate(groups), key=lambda item: dealer.waits(item[0])):
        names += group.names
        for count in _cut(len(group.names), group.pack.runs * (max_tasks if is_array else 1)):
            index = len(planned)
            pack = group.pack if count > 1 else ALONE
            lanes, after = dealer.place(f"@{index}", number, -(-count // pack.runs))
            planned.append(
                JobPlan(
                    start=start,
                    count=count,
                    job_name=name_job(group.stem, index),
                    is_array=is_array,
                    runs_per_task=pack.runs,
                    runs_at_once=pack.at_once,
                    options=list(group.options),
                    template=group.template,
                    lanes=lanes,
                    after=after,
                )
            )
            start += count
    return names, planned


def split_job(jobs: Sequence[JobPlan], number: int, rename: Callable[[str, int], str]) -> list[JobPlan]:
    """The jobs with one array cut in two, for a cluster that does not take as many tasks at once.

    The second half waits for the first where there is a bound, and what waited for the whole waits for the second half,
    which itself ends after the first. None of the jobs from that number on may have been sent.

    Args:
        jobs: of a submission.
        number: of the job to cut.
        rename: gives a job of another number its name, from the one that it had.
    """
    job = jobs[number]
    tasks = job.tasks // 2
    half = tasks * job.runs_per_task
    first = _changed(job, count=half, lanes=job.lanes[:tasks])
    second = _changed(
        job,
        start=job.start + half,
        count=job.count - half,
        lanes=job.lanes[: job.tasks - tasks],
        after=[*job.after, f"@{number}"] if job.lanes else job.after,
        job_name=rename(job.job_name, number + 1),
    )
    later = [
        _changed(other, after=[_shifted(ref, number) for ref in other.after], job_name=rename(other.job_name, index))
        for index, other in enumerate(jobs[number + 1 :], number + 2)
    ]
    return [*jobs[:number], first, second, *later]


def rechain_jobs(
    jobs: Sequence[JobPlan], lost: Collection[int], limit: int, holders: Sequence[Holder]
) -> list[JobPlan]:
    """The jobs with those that the cluster has lost behind all that holds their lanes now.

    To Slurm a job that does not exist is one that is over. So what was behind a lost job may be at work by now, and can
    be put behind it no more; the lost one goes to the end.

    Args:
        jobs: of a submission.
        lost: which of them are to be sent again.
        limit: how many lanes the folder has.
        holders: the jobs of the folder that are not over.
    """
    planned = list(jobs)
    for number in lost:
        mine = set(jobs[number].lanes)
        held = [job.job for job in holders if not job.lanes or max(job.lanes) >= limit or mine & set(job.lanes)]
        among = [reference for reference in jobs[number].after if reference in {f"@{other}" for other in lost}]
        planned[number] = _changed(jobs[number], after=[*held, *among] if mine else [])
    return planned


class _Dealer:
    """Deals the lanes out to the jobs of the groups, one job after the other."""

    def __init__(self, groups: Sequence[Group], limit: int | None, holders: Sequence[Holder]) -> None:
        if limit is None:
            self._lanes = None
            return
        self._lanes = Lanes(limit, holders)
        places = self._lanes.free or self._lanes.shortest(limit)
        self._places: list[list[int]] = []
        for count in quotas([group.tasks for group in groups], len(places)):
            self._places.append(places[:count])
            places = places[count:]

    def waits(self, group: int) -> bool:
        """Whether there is no lane for a group."""
        return self._lanes is not None and not self._places[group]

    def place(self, job: str, group: int, tasks: int) -> tuple[list[int], list[str]]:
        """The lanes of a job, and the jobs that have to be over first."""
        if self._lanes is None:
            return [], []
        if not self._places[group]:
            self._places[group] = self._lanes.shortest(1)
        mine = self._places[group]
        if tasks < len(mine):
            mine = [index for index in self._lanes.shortest(self._lanes.count) if index in mine][:tasks]
        return mine, self._lanes.take(job, mine, tasks)


def _cut(count: int, most: int) -> Iterator[int]:
    while count > 0:
        yield min(count, most)
        count -= most


def _changed(job: JobPlan, **changes: object) -> JobPlan:
    return JobPlan.from_dict(job.to_dict() | changes)


def _shifted(reference: str, number: int) -> str:
    """A reference to a job from that number on, when there is one more of them."""
    if reference.startswith("@") and int(reference[1:]) >= number:
        return f"@{int(reference[1:]) + 1}"
    return reference
