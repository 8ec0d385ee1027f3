"""From evidence to a status: what may be said of a run, given its receipts and who is alive. Pure."""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass
from typing import Final

from mtf_utils.rundir import FinishReceipt, Outcome, StartReceipt

__all__ = ["AttemptEvidence", "Evidence", "JobStatus", "Verdict", "judge", "unseen", "was_killed"]


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
    """It started, left no receipt, and its process is gone."""

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
    """

    number: int
    started: StartReceipt | None = None
    finished: FinishReceipt | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that is known of a run.

    Attributes:
        attempts: the claimed attempts, in order.
        alive: whether the process of the last attempt lives; None if that cannot be seen from this host.
        queued: whether something is going to start the next attempt without being asked again.
        cancelled: whether its last submission was cancelled.
        given_up: why its last submission is not tried again although it is not over; empty if it may be.
    """

    attempts: tuple[AttemptEvidence, ...] = ()
    alive: bool | None = False
    queued: bool = False
    cancelled: bool = False
    given_up: str = ""

    @property
    def last(self) -> AttemptEvidence | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def preemptions(self) -> int:
        """How many attempts ended preempted."""
        outcomes = (Outcome.PREEMPTED, Outcome.WANTS_REQUEUE)
        return sum(a.finished is not None and a.finished.outcome in outcomes for a in self.attempts)

    @property
    def is_finished(self) -> bool:
        """Whether some attempt left a receipt of success."""
        return any(a.finished is not None and a.finished.outcome is Outcome.FINISHED for a in self.attempts)


@dataclass(frozen=True)
class Verdict:
    """A status and, where there is something to say, why.

    Attributes:
        status: the state of the run.
        reason: one line for a person; empty when the status says it all.
    """

    status: JobStatus
    reason: str = ""


def judge(evidence: Evidence) -> Verdict:
    """The status that the evidence supports, and no more than that.

    Success and failure need a receipt. An attempt without one is running if its process is seen alive, lost if it is
    seen gone, and otherwise unknown.
    """
    last = evidence.last
    if evidence.is_finished:
        return Verdict(JobStatus.COMPLETED)
    if last is None:
        return _judge_unstarted(evidence)
    if last.finished is not None:
        return _judge_ended(evidence, last.finished)
    if evidence.alive:
        return Verdict(JobStatus.RUNNING)
    never_ran = last.started is None
    if evidence.alive is None and not (never_ran and evidence.given_up):
        return Verdict(JobStatus.UNKNOWN, unseen(last))
    ended = unseen(last) if never_ran else f"{_place(last)} ended without a receipt"
    return _waiting(evidence, JobStatus.LOST, ended)


def unseen(attempt: AttemptEvidence) -> str:
    """Why nothing can be said about an attempt that left no finish receipt."""
    if attempt.started is None:
        return f"attempt {attempt.number} was claimed, but left no receipt"
    return f"{_place(attempt)} left no receipt, and whether it still runs cannot be seen from here"


def _judge_unstarted(evidence: Evidence) -> Verdict:
    return _waiting(evidence, JobStatus.NOT_SUBMITTED, "")


def _judge_ended(evidence: Evidence, receipt: FinishReceipt) -> Verdict:
    reason = receipt.reason or ""
    if receipt.outcome is Outcome.DO_NOT_REQUEUE:
        return Verdict(JobStatus.FAILED, reason)
    if receipt.outcome is not Outcome.FAILED:
        return _waiting(evidence, JobStatus.PREEMPTED, reason)
    if was_killed(receipt):
        return _waiting(evidence, JobStatus.FAILED, reason)
    # given up after a failure: it was to be started again, and could not be
    return Verdict(JobStatus.CANCELLED if evidence.cancelled else JobStatus.FAILED, evidence.given_up or reason)


def was_killed(receipt: FinishReceipt) -> bool:
    """Whether the command was ended by SIGKILL, which says nothing against the command itself."""
    return receipt.outcome is Outcome.FAILED and receipt.exit_status == 128 + signal.SIGKILL


def _waiting(evidence: Evidence, otherwise: JobStatus, reason: str) -> Verdict:
    """The verdict on a run that is not at work and could go on: it is cancelled, given up, queued or none of these."""
    if evidence.cancelled:
        return Verdict(JobStatus.CANCELLED, reason)
    if evidence.given_up:
        return Verdict(otherwise, evidence.given_up)
    return Verdict(JobStatus.PENDING if evidence.queued else otherwise, reason)


def _place(attempt: AttemptEvidence) -> str:
    receipt = attempt.started
    if receipt is None:
        return f"attempt {attempt.number}"
    job = f" as job {receipt.job_id}" if receipt.job_id else ""
    return f"attempt {attempt.number} (process {receipt.pid} on {receipt.host}{job})"
