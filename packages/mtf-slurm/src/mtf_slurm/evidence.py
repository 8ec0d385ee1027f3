"""Gather the evidence on a run from its folder, its processes, its submissions and Slurm."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from mtf_config import ExecutionMode
from mtf_slurm.cluster.controller import Observation
from mtf_slurm.cluster.overuse import for_want_of_memory, may_have_been, read_overuse
from mtf_slurm.cluster.references import JobReference, references
from mtf_slurm.cluster.watch import Watch
from mtf_slurm.judgement import judge, was_killed
from mtf_slurm.lock import is_locked
from mtf_slurm.policy import Cause
from mtf_slurm.processes import is_alive
from mtf_slurm.status import AttemptEvidence, Evidence, JobEvidence, JobStatus, Verdict
from mtf_slurm.submissions import Submission, Submissions
from mtf_utils.rundir import Attempt, FinishReceipt, Outcome, RunDirectory, RunDirectoryError, SweepDirectory

__all__ = ["CLAIM_SETTLES_S", "Witness", "has_finished", "read_attempts"]

CLAIM_SETTLES_S: Final = 10.0
"""How long after its claim an attempt without a start receipt may still be about to write one."""


_TOLD_TO_STOP: Final = (Outcome.PREEMPTED, Outcome.WANTS_REQUEUE, Outcome.DO_NOT_REQUEUE)


def read_attempts(run: RunDirectory, *, brief: bool = False) -> tuple[AttemptEvidence, ...]:
    """The receipts of every claimed attempt.

    Args:
        run: its folder.
        brief: whether the start receipts of a run that has finished may be left out.

    Raises:
        RunDirectoryError: a receipt cannot be read.
    """
    receipts = list(run.finish_receipts())
    if brief and any(_is_success(finished) for _, finished in receipts):
        return _without_starts(receipts)
    return tuple(_read_attempt(run.attempt(number), finished) for number, finished in reversed(receipts))


def has_finished(run: RunDirectory) -> bool:
    """Whether some attempt of a run left a receipt of success that can be read, as can all after it."""
    return _look_for_success(run)[0]


def _look_for_success(run: RunDirectory) -> tuple[bool, tuple[AttemptEvidence, ...]]:
    """Whether a run has finished, and with which finish receipts; none of them if one cannot be read."""
    read: list[tuple[int, FinishReceipt | None]] = []
    try:
        for receipt in run.finish_receipts():
            read.append(receipt)  # those before one that cannot be read count
    except RunDirectoryError:
        return any(_is_success(finished) for _, finished in read), ()
    return any(_is_success(finished) for _, finished in read), _without_starts(read)


def _without_starts(receipts: Sequence[tuple[int, FinishReceipt | None]]) -> tuple[AttemptEvidence, ...]:
    """What a run that has finished left, from its finish receipts, newest first."""
    return tuple(AttemptEvidence(number=number, finished=finished) for number, finished in reversed(receipts))


def _is_success(receipt: FinishReceipt | None) -> bool:
    return receipt is not None and receipt.outcome is Outcome.FINISHED


def _read_attempt(attempt: Attempt, finished: FinishReceipt | None) -> AttemptEvidence:
    started = attempt.started()
    if started is None or finished is None:
        # listing the folder makes an NFS client look at the server, where a file that it knows as missing may be by now
        with contextlib.suppress(OSError):
            next(attempt.path.iterdir(), None)
        started, finished = started or attempt.started(), finished or attempt.finished()
    told = finished is not None and finished.outcome in _TOLD_TO_STOP and attempt.time_limit_file.exists()
    peak = _peak_memory(attempt) if finished is not None and finished.outcome is Outcome.FAILED else None
    return AttemptEvidence(
        number=attempt.number,
        started=started,
        finished=finished,
        out_of_time=told,
        starved=peak is not None,
        peak_memory=peak or "",
    )


def _peak_memory(attempt: Attempt) -> str | None:
    """How much memory was in use when there was not enough; empty if nobody knows, None if there was enough."""
    try:
        return attempt.memory_file.read_text("utf-8", "replace").strip()
    except FileNotFoundError:
        return None


def _noted(submissions: Iterable[Submission]) -> dict[str, dict[int, Cause]]:
    found: dict[str, dict[int, Cause]] = {}
    for submission in submissions:
        for end in submission.ended:
            with contextlib.suppress(ValueError):  # a cause that a later release may know
                found.setdefault(end.run, {})[end.attempt] = Cause(end.cause)
    return found


@dataclass
class Witness:
    """Tells what is known of the runs of a folder, as of the moment when it was made.

    Attributes:
        directory: the folder of the sweep.
        launcher_at_work: whether a launcher holds the folder.
        latest: the last submission of each run.
        active_token: the newest submission, which is what a launcher at work carries out.
        unnoted: why runs were given up, by token and name, where the disk took no note of it.
        ended: by run and number, what ended earlier attempts, as it was noted when the run was submitted again.
        jobs: the last Slurm job of each run that had one.
        observation: what Slurm said of these jobs; None if it was not asked.
        watch: who asked, and is told when it should ask again.
        wall_clock: seconds since 1970.
    """

    directory: SweepDirectory
    launcher_at_work: bool
    latest: dict[str, Submission]
    active_token: str = ""
    unnoted: dict[tuple[str, str], str] = field(default_factory=dict)
    ended: dict[str, dict[int, Cause]] = field(default_factory=dict)
    jobs: dict[str, JobReference] = field(default_factory=dict)
    observation: Observation | None = None
    watch: Watch | None = None
    wall_clock: Callable[[], float] = time.time

    @classmethod
    def look(
        cls,
        directory: SweepDirectory,
        watch: Watch | None = None,
        *,
        patient: bool = False,
        names: Collection[str] | None = None,
    ) -> Witness:
        """Look at the folder now, and ask Slurm, once, if it has jobs of runs that have not finished.

        Args:
            directory: the folder of the sweep.
            watch: asks Slurm; None does so anew.
            patient: whether what the watch was told a little earlier will do.
            names: the runs that matter; None is all.

        Raises:
            RunDirectoryError: a file of a submission cannot be read.
        """
        # in this order: a job that is noted now is known to whoever is asked afterwards, and what ended before that was
        # said has left its receipt by the time the receipts are read
        latest: dict[str, Submission] = {}
        active_token = ""
        submissions = Submissions(directory).all()
        for submission in submissions:
            latest |= dict.fromkeys(submission.runs, submission)
            if submission.mode is not ExecutionMode.DRY_RUN:
                active_token = submission.token
        witness = cls(directory, is_locked(directory), latest, active_token, ended=_noted(submissions))
        if any(submission.mode is ExecutionMode.SLURM for submission in submissions):
            jobs = references(directory, submissions)
            witness.jobs = {name: job for name, job in jobs.items() if names is None or name in names}
            asked = [job for name, job in witness.jobs.items() if job.may_be_known and not witness.has_finished(name)]
            witness.watch = watch or Watch()
            witness.observation = witness.watch.observe(asked, patient=patient)
        return witness

    @cached_property
    def _marks(self) -> Submissions:
        return Submissions(self.directory)

    @cached_property
    def _successes(self) -> dict[str, tuple[AttemptEvidence, ...]]:
        """Runs that have finished, which nothing changes: they need not be read twice."""
        return {}

    def has_finished(self, name: str) -> bool:
        """Whether the run left a receipt of success, so that nothing else needs to be known."""
        if name in self._successes:
            return True
        finished, attempts = _look_for_success(self.directory.run(name))
        if finished and attempts:
            self._successes[name] = attempts
        return finished

    def evidence(self, name: str, *, brief: bool = False) -> Evidence:
        """What is known of one run.

        Args:
            name: of the run.
            brief: whether the start receipts may be left out if it has finished.

        Raises:
            RunDirectoryError: a receipt cannot be read.
        """
        run = self.directory.run(name)
        attempts = (self._successes.get(name) if brief else None) or read_attempts(run, brief=brief)
        submission = self.latest.get(name)
        job = self._job(name, attempts)
        queued = self.launcher_at_work and submission is not None and submission.token == self.active_token
        evidence = Evidence(attempts=attempts, queued=queued, job=job, noted=self.ended.get(name, {}))
        if not evidence.is_finished:  # then nothing else matters
            evidence = replace(
                evidence,
                alive=self.liveness(run, attempts, job),
                given_up=self._given_up(submission, name) if submission is not None else "",
                counts_from=run.counts_from(),
            )
        if self.watch is not None and evidence.is_ahead:
            self.watch.stir()
        if evidence.is_finished or not self._is_cancelled(name, evidence.decisive_job):
            return evidence
        return replace(evidence, cancelled=True)

    def job_id(self, name: str) -> str | None:
        """The id of the run's last submission; None without one, or while Slurm's answer is not known.

        A job that may be at work in Slurm although the run was asked for in another way since is the one that counts.
        """
        submission = self.latest.get(name)
        if submission is None:
            return None
        if submission.mode is not ExecutionMode.SLURM and not self._is_overtaken(name):
            return submission.job_id(name)
        reference = self.jobs.get(name)
        # one that nobody was told of may have been found in the queue
        return (reference.evidence(self.observation).run_id or None) if reference else None

    def _is_overtaken(self, name: str) -> bool:
        job = self._job(name)
        return job is not None and job.may_be_active and not self.has_finished(name)

    def _job(self, name: str, attempts: tuple[AttemptEvidence, ...] | None = None) -> JobEvidence | None:
        reference = self.jobs.get(name)
        job = reference.evidence(self.observation) if reference else None
        if job is None or (job.place is None and job.state is not JobStatus.FAILED):
            return job
        if attempts is None:
            try:
                attempts = read_attempts(self.directory.run(name))
            except RunDirectoryError:
                return job  # who asks how the run stands is told
        job = self._with_overuse(name, job, attempts)
        return job if job.place is None else replace(job, settled=self._is_settled(name, job, attempts))

    def _with_overuse(self, name: str, job: JobEvidence, attempts: tuple[AttemptEvidence, ...]) -> JobEvidence:
        """The job, which Slurm ended for its memory if its output, or the log of the run, says so."""
        claimed = job.claimed(attempts)
        receipt = claimed[-1].finished if claimed else None
        if job.task is None or not may_have_been(job.task, receipt is not None and was_killed(receipt)):
            return job
        files = [Path(job.output)]
        files += [self.directory.run(name).log_file(claimed[-1].number)] if claimed else []
        return replace(job, task=for_want_of_memory(job.task, map(self._overuse_in, files)))

    def _overuse_in(self, output: Path) -> dict[str, tuple[str, int]]:
        if output not in self._overuse:  # tasks of an array have it in common
            self._overuse[output] = read_overuse(output)
        return self._overuse[output]

    @cached_property
    def _overuse(self) -> dict[Path, dict[str, tuple[str, int]]]:
        return {}

    def _is_settled(self, name: str, job: JobEvidence, attempts: tuple[AttemptEvidence, ...]) -> bool:
        """Whether a run is over in a task that others share: its receipt says so, or it is not to be started there."""
        claimed = job.claimed(attempts)
        receipt = claimed[-1].finished if claimed else None
        if receipt is not None and receipt.outcome is not Outcome.PREEMPTED:
            return True
        return (receipt is not None or not claimed) and self.is_withdrawn(name, job.token)

    def is_withdrawn(self, name: str, token: str) -> bool:
        """Whether a run was cancelled under the submission of that token."""
        latest = self.latest.get(name)
        submission = latest if latest is not None and latest.token == token else self._marks.find(token)
        return submission is not None and self._marks.is_cancelled(submission, name)

    def _is_cancelled(self, name: str, job: JobEvidence | None) -> bool:
        submission = self.latest.get(name)
        if submission is None:
            return False
        if job is not None and job.superseded:
            submission = self._marks.find(job.token) or submission
        return self._marks.is_cancelled(submission, name)

    def _given_up(self, submission: Submission, name: str) -> str:
        noted = self._marks.given_up(submission, name)
        return noted or self.unnoted.get((submission.token, name), "")

    def verdict(self, name: str, *, brief: bool = False) -> tuple[Evidence, Verdict]:
        """What is known of one run, and what may be said of it; unknown if a receipt cannot be read.

        Args:
            name: of the run.
            brief: whether the start receipts may be left out if it has finished.
        """
        try:
            evidence = self.evidence(name, brief=brief)
        except RunDirectoryError as error:
            return Evidence(), Verdict(JobStatus.UNKNOWN, str(error))
        return evidence, judge(evidence)

    def liveness(
        self, run: RunDirectory, attempts: tuple[AttemptEvidence, ...], job: JobEvidence | None = None
    ) -> bool | None:
        """Whether the process of the last attempt lives; None if that cannot be seen."""
        if not attempts or attempts[-1].finished is not None:
            return False
        last = attempts[-1]
        if last.started is None:
            return None if self._age_s(run.attempt(last.number)) < CLAIM_SETTLES_S else False
        if last.started.job_id is not None:
            return self._lives_in_slurm(last, job)
        return is_alive(run, last.started)

    def _lives_in_slurm(self, last: AttemptEvidence, job: JobEvidence | None) -> bool | None:
        if job is None:
            return None
        if last.number < job.first_attempt:
            return False  # it was over when the run was submitted again
        if not job.claimed((last,)):
            return None  # of a job that was not submitted from here
        return job.is_active or (None if job.may_be_active else False)

    def _age_s(self, attempt: Attempt) -> float:
        with contextlib.suppress(FileNotFoundError):
            return self.wall_clock() - attempt.path.stat().st_mtime
        return CLAIM_SETTLES_S
