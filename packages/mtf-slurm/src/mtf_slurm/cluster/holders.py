"""Which jobs of a folder hold its lanes, and who else gets a lane that nothing is left for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from mtf_config import ExecutionMode
from mtf_slurm.cluster.answers import base_id
from mtf_slurm.cluster.controller import Controller, Observation
from mtf_slurm.cluster.lanes import Holder, Lanes
from mtf_slurm.errors import SweepLockedError
from mtf_slurm.lock import hold
from mtf_slurm.status import JobStatus
from mtf_slurm.submissions import JobFile, Submission, Submissions
from mtf_utils.rundir import SweepDirectory

__all__ = ["outstanding", "rebalance"]


@dataclass(frozen=True)
class _Outstanding:
    """A job that is not over."""

    submission: Submission
    number: int
    job: JobFile
    holder: Holder
    waiting: int
    """How many of its tasks could start, were it not for the throttle."""


def outstanding(directory: SweepDirectory, seen: Observation) -> list[Holder]:
    """The jobs of a folder that are not over, in the order of their submission.

    Args:
        directory: the folder of the sweep.
        seen: what squeue says.
    """
    return [item.holder for item in _outstanding(directory, seen)]


def rebalance(directory: SweepDirectory, controller: Controller, seen: Observation) -> int:
    """Let arrays have more tasks at work where lanes of the folder are idle and nothing waits for them.

    Nothing happens without a bound, or while a launcher is at work in the folder. If something seems to be idle, squeue
    is asked once more, while no launcher can begin.

    Args:
        directory: the folder of the sweep.
        controller: the cluster.
        seen: what it said of the folder's jobs.

    Returns:
        How many lanes were given away.

    Raises:
        ClusterUnreachableError: the controller does not answer.
        SLURMError: it refuses.
    """
    limit = next((item.max_concurrent_jobs for item in reversed(_submissions(directory))), None)
    if limit is None or not _to_give(directory, seen, limit):
        return 0
    try:
        with hold(directory):
            return _give(directory, controller, _to_give(directory, controller.queue(), limit))
    except SweepLockedError:
        return 0


def _to_give(directory: SweepDirectory, seen: Observation, limit: int) -> list[tuple[_Outstanding, list[int]]]:
    """The arrays that could use idle lanes, each with those that it gets."""
    if seen.queue_error:
        return []
    jobs = list(_outstanding(directory, seen))
    free = Lanes(limit, [item.holder for item in jobs]).free
    given: list[tuple[_Outstanding, list[int]]] = []
    for item in jobs:
        mine = free[: item.waiting] if item.holder.lanes else []
        if mine:
            given.append((item, mine))
            free = free[len(mine) :]
    return given


def _give(directory: SweepDirectory, controller: Controller, given: list[tuple[_Outstanding, list[int]]]) -> int:
    for item, lanes in given:
        # noted first: what is noted and not done yet leaves a lane idle, the other way round two jobs would share it
        more = JobFile.from_dict(item.job.to_dict() | {"lanes": [*item.job.lanes, *lanes]})
        Submissions(directory).note_job(item.submission, item.number, more)
        controller.set_throttle(item.job.job_id, len(item.holder.lanes) + len(lanes))
    return sum(len(lanes) for _, lanes in given)


def _outstanding(directory: SweepDirectory, seen: Observation) -> Iterator[_Outstanding]:
    active: Counter[tuple[str, str]] = Counter()
    pending: Counter[tuple[str, str]] = Counter()
    for task in seen.tasks.values():
        key = base_id(task.job_id), task.job_name
        active[key] += task.state.is_active
        pending[key] += task.state is JobStatus.PENDING and not task.reason.startswith("Dependency")
    store = Submissions(directory)
    for submission in _submissions(directory):
        for number, plan in enumerate(submission.jobs):
            job = store.job(submission, number)
            key = (job.job_id if job else "", plan.job_name)
            if job is not None and active[key]:
                lanes = (*plan.lanes, *job.lanes)
                # those that wait for another reason than the throttle would not start either
                waiting = max(0, min(pending[key], active[key] - len(lanes))) if plan.is_array else 0
                yield _Outstanding(submission, number, job, Holder(job.job_id, lanes, active[key]), waiting)


def _submissions(directory: SweepDirectory) -> list[Submission]:
    return [item for item in Submissions(directory).all() if item.mode is ExecutionMode.SLURM]
