"""Send the jobs of a submission to Slurm, each exactly once, whatever happens in between.

A call of sbatch that fails may have queued the job all the same. So before each call a note is written, and after one
whose outcome is not clear the job is looked for by its name, which no other job has, until it is certain that it is not
there; only then sbatch is called again. A launcher that finds such a note of a killed one does the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from mtf_slurm.cluster.batches import rechain_jobs
from mtf_slurm.cluster.controller import Controller, Observation
from mtf_slurm.cluster.holders import outstanding
from mtf_slurm.cluster.journal import JobJournal
from mtf_slurm.cluster.patience import NotYetError, Patience
from mtf_slurm.cluster.sending import Sending
from mtf_slurm.errors import JobSubmissionError
from mtf_slurm.submissions import Submission, Submissions
from mtf_slurm.wording import counted
from mtf_utils.rundir import SweepDirectory

__all__ = ["CANCELLED", "Submitter", "is_lost"]

CANCELLED: Final = "cancelled before it was sent"
"""Why a job is not sent whose runs were all cancelled."""

# The clock of MinJobAge starts and ends on another machine than ours, and is read in whole seconds.
_CLOCKS_AGREE_S: Final = 1.0
_ROUNDS: Final = 3
"""How often a job is sent again that the cluster loses."""


@dataclass
class Submitter:
    """Sends the jobs of submissions of one folder; the caller holds the folder.

    Attributes:
        directory: the folder of the sweep.
        controller: the cluster.
        say: tells the user why it takes long.
        split: plans a job that is too large for the cluster's limits anew, as two; None if it cannot be cut.
        patience: how long to wait for what.
    """

    directory: SweepDirectory
    controller: Controller
    say: Callable[[str], None]
    split: Callable[[Submission, int], Submission | None]
    patience: Patience = field(default_factory=Patience)

    def send(self, submission: Submission) -> Submission:
        """Send every job that is not known to be in the queue.

        Returns:
            The submission, with more jobs than before if some had to be cut.

        Raises:
            JobSubmissionError: the cluster did not take a job in time; a repeated call goes on.
            ClusterUnreachableError: there is no sbatch here.
        """
        number = 0
        refusals: dict[tuple[str, ...], str] = {}
        while number < len(submission.jobs):
            journal = self._journal(submission, number)
            options = tuple(submission.jobs[number].options)
            if not journal.is_settled:
                reason = "" if journal.may_be_queued else refusals.get(options) or self._cancelled(journal)
                if reason:
                    journal.refuse(reason)
                else:
                    submission = self._send_one(submission, number)
            reason = journal.store.refused(submission, number)
            if reason and reason != CANCELLED:
                refusals[options] = reason
            number += 1
        return submission

    def confirm(self, submission: Submission) -> Submission:
        """Look once whether Slurm knows every job, and send those again that a crash of the controller has lost.

        Raises:
            JobSubmissionError: the cluster does not answer, or takes a job, for too long.
        """
        for _ in range(_ROUNDS):
            journals = [self._journal(submission, number) for number in range(len(submission.jobs))]
            ids = {job.job_id for journal in journals if (job := journal.job()) is not None}
            if not ids:
                return submission
            seen = self._look(submission, ids)
            lost = [journal for journal in journals if is_lost(journal, seen)]
            if not lost:
                return submission
            which = "it is sent" if len(lost) == 1 else "they are sent"
            self.say(f"the controller has lost {counted(len(lost), 'job')} in a crash; {which} again")
            submission = self._rechain(submission, [journal.number for journal in lost], seen)
            for journal in lost:
                journal.unsend()
            submission = self.send(submission)
        return submission

    def _rechain(self, submission: Submission, lost: list[int], seen: Observation) -> Submission:
        """Plan lost jobs so that they wait for whatever was let loose by the loss."""
        limit = submission.max_concurrent_jobs
        if limit is None:
            return submission
        jobs = rechain_jobs(submission.jobs, lost, limit, outstanding(self.directory, seen))
        changed = replace(submission, jobs=jobs)
        Submissions(self.directory).replace(changed, {})
        return changed

    def _journal(self, submission: Submission, number: int) -> JobJournal:
        return JobJournal(self.directory, submission, number, self.patience.wall_clock)

    def _cancelled(self, journal: JobJournal) -> str:
        submission, store = journal.submission, journal.store
        all_are = all(store.is_cancelled(submission, name) for name in submission.runs_of(journal.number))
        return CANCELLED if all_are else ""

    def _send_one(self, submission: Submission, number: int) -> Submission:
        sending = Sending(self.directory, submission, number, self.controller, self.split, self.patience)
        self.wait_for(sending.step, submission)
        return sending.submission

    def _look(self, submission: Submission, ids: set[str]) -> Observation:
        """An answer of squeue, however long it takes."""
        found: list[Observation] = []

        def step() -> None:
            seen = self.controller.observe(ids)
            if seen.queue_error:
                raise NotYetError(f"the cluster cannot be asked ({seen.queue_error})")
            found.append(seen)

        self.wait_for(step, submission)
        return found[-1]

    def wait_for(self, step: Callable[[], None], submission: Submission | None = None) -> None:
        """Repeat a step until it does not say any more that it could not be done yet.

        Raises:
            JobSubmissionError: it still could not be done when the time was up.
        """
        try:
            with self.controller.waiting(self.patience.timeout_s):
                self.patience.repeat(step, self.say)
        except NotYetError as error:
            progress = self._progress(submission) if submission else "nothing submitted"
            raise JobSubmissionError(
                f"{self.directory.path}: {error}; gave up after {self.patience.timeout_s:g} s with {progress}. Nothing "
                "is lost: the same call, repeated, goes on where this one stopped"
            ) from error

    def _progress(self, submission: Submission) -> str:
        current = self._journal(submission, 0).store.find(submission.token) or submission
        done = sum(
            current.jobs[number].count
            for number in range(len(current.jobs))
            if self._journal(current, number).is_settled
        )
        return f"{done} of {counted(len(current.runs), 'run')} submitted"


def is_lost(journal: JobJournal, seen: Observation) -> bool:
    """Whether a job that was in the queue is there no more, though it cannot be over and forgotten: a crash lost it."""
    job = journal.job()
    if job is None or seen.queue_error or seen.min_job_age_s is None:
        return False
    if job.job_id in seen.ids_named(journal.job_name) or journal.age_s() >= seen.min_job_age_s - _CLOCKS_AGREE_S:
        return False
    return len(list(journal.claims())) < journal.submission.jobs[journal.number].count
