"""Which Slurm job a run was last submitted in, as the files of its submission tell."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mtf_config import ExecutionMode
from mtf_slurm.cluster.answers import TaskState
from mtf_slurm.cluster.controller import Observation
from mtf_slurm.status import JobEvidence
from mtf_slurm.submissions import Submission, Submissions
from mtf_utils.rundir import SweepDirectory

__all__ = ["JobReference", "references"]

CLOCKS_AGREE_S: Final = 2.0
"""How far the clocks of this host, of the controller and of the file server may be apart."""


@dataclass(frozen=True, kw_only=True)
class JobReference:
    """The job that a run was last submitted in.

    Attributes:
        token: of the submission.
        job_name: the job's name, which is its identity together with the id.
        first_attempt: the number of the first attempt that the job may claim.
        index: of the run's task in the job's array; None if the job is no array.
        job_id: `123` or `123_4`; empty while no answer to the submission is noted.
        submitted_at: the earliest moment when Slurm can have taken it, in seconds since 1970; None if unknown.
        sent: whether sbatch was called.
        refused: why Slurm did not take it; empty if it did, or may have.
        hidden: why this user may not be told of the job; empty if the user may.
        output: where the job's own output goes.
        superseded: whether the run was submitted in another way since.
        place: of the run among those that share the task; None if it has the task for itself.
        mates: the names of all runs of the task, this one included.
    """

    token: str
    job_name: str
    first_attempt: int
    index: int | None = None
    job_id: str = ""
    submitted_at: float | None = None
    sent: bool = True
    refused: str = ""
    hidden: str = ""
    output: str = ""
    superseded: bool = False
    place: int | None = None
    mates: tuple[str, ...] = ()

    @property
    def may_be_known(self) -> bool:
        """Whether Slurm may have something to say of it."""
        return self.sent and not self.refused and not self.hidden

    def evidence(self, observation: Observation | None) -> JobEvidence:
        """What is known of the job; `observation` is None if Slurm was not asked, because there was nothing to ask."""
        task = self._task(observation) if observation is not None else None
        seen = observation if observation is not None else Observation()
        return JobEvidence(
            token=self.token,
            first_attempt=self.first_attempt,
            job_id=self.job_id or (task.job_id if task else ""),
            sent=self.sent,
            refused=self.refused,
            task=task,
            unseen=self.hidden or seen.queue_error,
            unforgettable=self._is_unforgettable(seen),
            siblings=bool(seen.ids_named(self.job_name)),
            unaccounted=seen.accounting_error,
            superseded=self.superseded,
            output=self.output,
            place=self.place,
        )

    def _task(self, observation: Observation) -> TaskState | None:
        ids = [self.job_id] if self.job_id else [self._id_in(base) for base in observation.ids_named(self.job_name)]
        for job_id in ids:
            outdated = observation.outdated.get(job_id)
            found = observation.find(job_id, self.job_name)
            if found is not None:
                return found
            if outdated is not None and outdated.job_name == self.job_name:
                return outdated
        return None

    def _id_in(self, base: str) -> str:
        return base if self.index is None else f"{base}_{self.index}"

    def _is_unforgettable(self, observation: Observation) -> bool:
        if self.submitted_at is None or observation.min_job_age_s is None or observation.queue_error:
            return False
        # over no earlier than it was submitted, and forgotten no earlier than MinJobAge after that
        return observation.seen_at - self.submitted_at < observation.min_job_age_s - CLOCKS_AGREE_S


def references(directory: SweepDirectory, submissions: Iterable[Submission]) -> dict[str, JobReference]:
    """The last Slurm job of every run that has one.

    Args:
        directory: the folder of the sweep.
        submissions: of that folder, oldest first.

    Raises:
        RunDirectoryError: a file of a submission cannot be read.
        OSError: likewise.
    """
    reader = Submissions(directory)
    latest: dict[str, Submission] = {}
    newest: dict[str, str] = {}
    for submission in submissions:
        if submission.mode is ExecutionMode.DRY_RUN:
            continue
        newest |= dict.fromkeys(submission.runs, submission.token)
        if submission.mode is ExecutionMode.SLURM:
            latest |= dict.fromkeys(submission.runs, submission)
    found: dict[str, JobReference] = {}
    for submission in {submission.token: submission for submission in latest.values()}.values():
        for name, reference in _of_submission(reader, submission):
            if latest[name].token == submission.token:
                found[name] = replace(reference, superseded=newest[name] != submission.token)
    return found


def _of_submission(reader: Submissions, submission: Submission) -> Iterator[tuple[str, JobReference]]:
    hidden = _hidden(reader.path / submission.token)
    for number, plan in enumerate(submission.jobs):
        job = reader.job(submission, number)
        attempts = reader.first_attempts(submission, number)
        reference = JobReference(
            token=submission.token,
            job_name=plan.job_name,
            first_attempt=1,
            submitted_at=_asked_at(reader.sent_file(submission, number)) if job and job.how == "answered" else None,
            sent=reader.was_sent(submission, number),
            refused=reader.refused(submission, number),
            hidden=hidden,
            output=str(reader.output(submission, number)),
        )
        for index in range(plan.tasks):
            job_id = "" if job is None else f"{job.job_id}_{index}" if plan.is_array else job.job_id
            names = tuple(submission.runs_of_task(number, index))
            task = replace(reference, index=index if plan.is_array else None, job_id=job_id, mates=names)
            for place, name in enumerate(names):
                first = attempts.get(name, 1)
                yield name, replace(task, first_attempt=first, place=place if plan.is_shared else None)


def _asked_at(sent: Path) -> float | None:
    """When sbatch was called for the last time."""
    with contextlib.suppress(FileNotFoundError):
        return sent.stat().st_mtime
    return None


def _hidden(submission: Path) -> str:
    """Why this user may not be told of the jobs: squeue shows everyone their own, and of others' jobs what it may."""
    owner = submission.stat().st_uid
    if owner == os.geteuid():
        return ""
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = str(owner)
    return f"the jobs are those of user {name}"
