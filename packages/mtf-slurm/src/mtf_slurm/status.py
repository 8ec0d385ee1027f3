"""The states of a run, and what is known of one: its receipts, its processes, its job. Plain data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from mtf_utils.rundir import FinishReceipt, Outcome, StartReceipt

if TYPE_CHECKING:
    from mtf_slurm.cluster.answers import TaskState
    from mtf_slurm.policy import Cause

__all__ = ["AttemptEvidence", "Evidence", "JobEvidence", "JobStatus", "Verdict"]


class JobStatus(enum.StrEnum):
    """The state of a run: Slurm's job states, and three for what Slurm does not tell."""

    BOOT_FAIL = "BOOT_FAIL"
    CANCELLED = "CANCELLED"
    COMPLETED = "COMPLETED"
    COMPLETING = "COMPLETING"
    CONFIGURING = "CONFIGURING"
    DEADLINE = "DEADLINE"
    FAILED = "FAILED"
    NODE_FAIL = "NODE_FAIL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    PENDING = "PENDING"
    PREEMPTED = "PREEMPTED"
    REQUEUED = "REQUEUED"
    REQUEUE_FED = "REQUEUE_FED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    RESIZING = "RESIZING"
    RESV_DEL_HOLD = "RESV_DEL_HOLD"
    REVOKED = "REVOKED"
    RUNNING = "RUNNING"
    SIGNALING = "SIGNALING"
    SPECIAL_EXIT = "SPECIAL_EXIT"
    STAGE_OUT = "STAGE_OUT"
    STOPPED = "STOPPED"
    SUSPENDED = "SUSPENDED"
    TIMEOUT = "TIMEOUT"
    NOT_SUBMITTED = "NOT_SUBMITTED"
    """Planned; nothing has been asked to run it."""
    UNKNOWN = "UNKNOWN"
    """The evidence that can be seen from here does not tell."""
    LOST = "LOST"
    """It was to run and is gone: it started, left no receipt, and its process is no more; or Slurm lost its job."""

    @property
    def is_active(self) -> bool:
        """Whether the run is at work or waits its turn, so that its status may change without a new submission."""
        return self in _ACTIVE


_ACTIVE: Final = frozenset(
    {
        JobStatus.COMPLETING,
        JobStatus.CONFIGURING,
        JobStatus.PENDING,
        JobStatus.REQUEUED,
        JobStatus.REQUEUE_FED,
        JobStatus.REQUEUE_HOLD,
        JobStatus.RESIZING,
        JobStatus.RESV_DEL_HOLD,
        JobStatus.RUNNING,
        JobStatus.SIGNALING,
        JobStatus.SPECIAL_EXIT,
        JobStatus.STAGE_OUT,
        JobStatus.STOPPED,
        JobStatus.SUSPENDED,
    }
)


@dataclass(frozen=True, kw_only=True)
class AttemptEvidence:
    """What one claimed attempt left.

    Attributes:
        number: from 1.
        started: its start receipt, if it wrote one.
        finished: its finish receipt, if there is one.
        out_of_time: whether it was told to stop because its time limit was near.
        starved: whether it ended for want of memory, as the kernel told its script.
        peak_memory: how much was in use then, such as `up to 200M in use`; empty if nobody knows.
    """

    number: int
    started: StartReceipt | None = None
    finished: FinishReceipt | None = None
    out_of_time: bool = False
    starved: bool = False
    peak_memory: str = ""


@dataclass(frozen=True, kw_only=True)
class JobEvidence:
    """What is known of the Slurm job that a run was last submitted in.

    Attributes:
        token: of the submission.
        first_attempt: the number of the first attempt that the job may claim.
        job_id: its id, `123` or `123_4`; empty while no answer to its submission is known.
        sent: whether sbatch was called for it.
        refused: why Slurm did not take it; empty if it did, or may have.
        task: what Slurm says of it; None if Slurm has nothing to say.
        unseen: why the controller could not be asked; empty if it answered.
        unforgettable: whether a controller that answered would still know the job if it had not lost it: since the
            submission it had no time to forget it.
        siblings: whether Slurm knows other tasks of the same array.
        unaccounted: why the accounting had nothing to add; empty if it was not needed, or answered.
        superseded: whether the run was submitted in another way since.
        output: where the job's own output goes.
        place: of the run among those that share the task; None if it has the task for itself.
        settled: whether the run is over in it, although the task may go on with others.
    """

    token: str
    first_attempt: int
    job_id: str = ""
    sent: bool = True
    refused: str = ""
    task: TaskState | None = None
    unseen: str = ""
    unforgettable: bool = False
    siblings: bool = False
    unaccounted: str = ""
    superseded: bool = False
    output: str = ""
    place: int | None = None
    settled: bool = False

    @property
    def run_id(self) -> str:
        """The id of the run: that of the task and, where others share it, the place in it; empty if not known."""
        return self.job_id if self.place is None or not self.job_id else f"{self.job_id}/{self.place}"

    @property
    def state(self) -> JobStatus | None:
        """The state that may be believed; None without one, UNKNOWN if Slurm has a word that is not known here.

        The accounting lags and may never hear of an end. What it calls active is not known to be: of a job that is, the
        controller has to tell.
        """
        if self.unseen or self.task is None or (self.task.source == "sacct" and self.task.state.is_active):
            return None
        return self.task.state

    @property
    def is_active(self) -> bool:
        """Whether the job is in the queue or at work, and the run is not over in it."""
        return self.state is not None and self.state.is_active and not self.settled

    @property
    def may_be_active(self) -> bool:
        """Whether it cannot be ruled out that the job is in the queue or at work, and the run not over in it."""
        if not self.sent or self.refused or self.settled:
            return False
        unanswered = not self.job_id and self.task is None
        return self.is_active or bool(self.unseen) or self.state is JobStatus.UNKNOWN or unanswered

    def claimed(self, attempts: tuple[AttemptEvidence, ...]) -> tuple[AttemptEvidence, ...]:
        """The attempts that this job made, or may have made: of a claim without a receipt nobody knows whose it is."""
        mine = (a for a in attempts if a.number >= self.first_attempt)
        return tuple(a for a in mine if a.started is None or a.started.token == self.token)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that is known of a run.

    Attributes:
        attempts: the claimed attempts, in order.
        alive: whether the process of the last attempt lives; None if that cannot be seen from this host.
        queued: whether something is going to start the next attempt without being asked again.
        cancelled: whether its last submission was cancelled.
        given_up: why its last submission is not tried again although it is not over; empty if it may be.
        job: the Slurm job that it was last submitted in; None if it never was.
        counts_from: the first attempt that counts against its budgets: those before somebody asked for it do not.
        noted: what ended attempts, by their numbers, as it was noted when the run was submitted again.
    """

    attempts: tuple[AttemptEvidence, ...] = ()
    alive: bool | None = False
    queued: bool = False
    cancelled: bool = False
    given_up: str = ""
    job: JobEvidence | None = None
    counts_from: int = 1
    noted: Mapping[int, Cause] = field(default_factory=dict)

    @property
    def last(self) -> AttemptEvidence | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def preemptions(self) -> int:
        """How many attempts ended preempted, of those that count."""
        outcomes = (Outcome.PREEMPTED, Outcome.WANTS_REQUEUE)
        counted = (attempt.finished for attempt in self.attempts if attempt.number >= self.counts_from)
        return sum(receipt is not None and receipt.outcome in outcomes for receipt in counted)

    @cached_property
    def is_finished(self) -> bool:
        """Whether some attempt left a receipt of success."""
        return any(a.finished is not None and a.finished.outcome is Outcome.FINISHED for a in self.attempts)

    @property
    def is_ahead(self) -> bool:
        """Whether the receipts tell of an end that Slurm, when it was asked, had not come to."""
        ended = self.last is not None and self.last.finished is not None
        job = self.job if self.job is not None and self.job.place is None else None  # one that others share goes on
        return ended and job is not None and job.state in (JobStatus.RUNNING, JobStatus.COMPLETING)

    @property
    def decisive_job(self) -> JobEvidence | None:
        """The job, if the state of the run is that of its job.

        It is not when the job never reached Slurm, when it is over and the run was submitted otherwise since (and not
        given up there), or when someone else has made an attempt since it was submitted.
        """
        job, last = self.job, self.last
        if job is None or not job.sent or job.refused:
            return None
        if job.superseded and not job.may_be_active and not self.given_up:
            return None
        foreign = last is not None and last.number >= job.first_attempt and not job.claimed((last,))
        return None if foreign else job


@dataclass(frozen=True)
class Verdict:
    """A status and, where there is something to say, why.

    Attributes:
        status: the state of the run.
        reason: one line for a person; empty when the status says it all.
        may_change: whether the status may be another one later without anything being asked again.
    """

    status: JobStatus
    reason: str = ""
    may_change: bool = False
