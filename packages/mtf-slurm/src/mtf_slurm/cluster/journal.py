"""What the disk says of a job of a submission: sent or not, claimed by whom, held up by which call of sbatch."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mtf_slurm.cluster.answers import base_id
from mtf_slurm.lock import is_held
from mtf_slurm.submissions import JobFile, Submission, Submissions
from mtf_utils.atomic import write_text
from mtf_utils.rundir import Attempt, RunDirectoryError, SweepDirectory

__all__ = ["JobJournal"]


@dataclass(frozen=True)
class JobJournal:
    """The journal of one job.

    Attributes:
        directory: the folder of the sweep.
        submission: that the job belongs to.
        number: of the job in it.
        wall_clock: seconds since 1970.
    """

    directory: SweepDirectory
    submission: Submission
    number: int
    wall_clock: Callable[[], float] = time.time

    @property
    def store(self) -> Submissions:
        """The submissions of the folder."""
        return Submissions(self.directory)

    @property
    def job_name(self) -> str:
        """The job's name in Slurm."""
        return self.submission.jobs[self.number].job_name

    @property
    def script(self) -> Path:
        """What sbatch gets."""
        return self.store.script(self.submission, self.number)

    @property
    def is_settled(self) -> bool:
        """Whether the job is known to be in the queue, or was refused."""
        return self.job() is not None or bool(self.store.refused(self.submission, self.number))

    @property
    def may_be_queued(self) -> bool:
        """Whether sbatch was called and what came of it is not known."""
        return self._sent_file.exists() and not self.is_settled

    def job(self) -> JobFile | None:
        """What was noted of the job; None while it is not known to be in the queue."""
        return self.store.job(self.submission, self.number)

    def note(self, job_id: str, *, found: bool) -> None:
        """Note the job's id."""
        when = datetime.fromtimestamp(self.wall_clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        job = JobFile(job_id=job_id, submitted_at=when, how="found" if found else "answered")
        self.store.note_job(self.submission, self.number, job)

    def refuse(self, reason: str) -> None:
        """Note that Slurm does not take the job."""
        self.store.refuse(self.submission, self.number, reason)

    def unsend(self) -> None:
        """Note that no call of sbatch has left anything in the queue."""
        self.store.forget_job(self.submission, self.number)
        self._sent_file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def in_flight(self) -> Iterator[int]:
        """Note that sbatch is called, durably before it is.

        Yields:
            A descriptor for sbatch to inherit: as long as that process lives, whatever becomes of this one, the note
            is locked.
        """
        write_text(self._sent_file, f"{self.wall_clock():.3f}\n")
        descriptor = os.open(self._sent_file, os.O_RDWR)  # as NFS wants it for a lock
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def is_in_flight(self) -> bool:
        """Whether a call of sbatch goes on, left behind by a launcher that was killed."""
        return is_held(self._sent_file)

    def age_s(self) -> float:
        """Seconds since sbatch was called last; the job cannot be older."""
        try:
            return self.wall_clock() - float(self._sent_file.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return float("inf")

    def claims(self) -> Iterator[tuple[str, str | None]]:
        """The runs whose attempts are taken, each with the id of this job if it took one."""
        first = self.store.first_attempts(self.submission, self.number)
        for name in self.submission.runs_of(self.number):
            attempts = [item for item in self.directory.run(name).attempts() if item.number >= first[name]]
            if attempts:
                yield name, next(filter(None, map(self._claimed_by, attempts)), None)

    def _claimed_by(self, attempt: Attempt) -> str | None:
        """The id of the whole job that claimed an attempt, if it was one of this submission."""
        try:
            receipt = attempt.started()
        except RunDirectoryError:
            return None  # who reads the run's status is told
        if receipt is None or receipt.token != self.submission.token or not receipt.job_id:
            return None
        return base_id(receipt.job_id)

    @property
    def _sent_file(self) -> Path:
        return self.store.sent_file(self.submission, self.number)
