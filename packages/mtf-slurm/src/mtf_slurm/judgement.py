"""From evidence to a status: what may be said of a run, and no more than that. Pure."""

from __future__ import annotations

import signal

from mtf_slurm.cluster.judgement import judge_job
from mtf_slurm.status import AttemptEvidence, Evidence, JobStatus, Verdict
from mtf_utils.rundir import FinishReceipt, Outcome

__all__ = ["judge", "unseen", "was_killed"]


def judge(evidence: Evidence) -> Verdict:
    """The status that the evidence supports.

    Success needs a receipt. Of a run that Slurm has, Slurm tells the rest, as far as it can be asked. On this machine
    an attempt without a receipt is running if its process is seen alive, lost if it is seen gone, and otherwise
    unknown.
    """
    if evidence.is_finished:
        return Verdict(JobStatus.COMPLETED)
    if (job := evidence.decisive_job) is not None:
        return judge_job(evidence, job)
    last = evidence.last
    if last is None:
        return _judge_unstarted(evidence)
    if last.finished is not None:
        return _judge_ended(evidence, last, last.finished)
    if evidence.alive:
        return Verdict(JobStatus.RUNNING, may_change=True)
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
    job = evidence.job
    refused = job.refused if job else ""
    unsent = "it was planned for Slurm, but never sent; the same submission, repeated, sends it" if job else ""
    return _waiting(evidence, JobStatus.NOT_SUBMITTED, refused or unsent)


def _judge_ended(evidence: Evidence, last: AttemptEvidence, receipt: FinishReceipt) -> Verdict:
    reason = receipt.reason or ""
    if receipt.outcome is Outcome.DO_NOT_REQUEUE:
        return Verdict(JobStatus.FAILED, reason)
    if receipt.outcome is not Outcome.FAILED:
        return _waiting(evidence, JobStatus.PREEMPTED, reason)
    if was_killed(receipt) and not last.starved:
        return _waiting(evidence, JobStatus.FAILED, reason)
    # given up after a failure: it was to be started again, and could not be
    failed = JobStatus.OUT_OF_MEMORY if last.starved else JobStatus.FAILED
    return Verdict(JobStatus.CANCELLED if evidence.cancelled else failed, evidence.given_up or reason)


def was_killed(receipt: FinishReceipt) -> bool:
    """Whether the command was ended by SIGKILL, which says nothing against the command itself."""
    return receipt.outcome is Outcome.FAILED and receipt.exit_status == 128 + signal.SIGKILL


def _waiting(evidence: Evidence, otherwise: JobStatus, reason: str) -> Verdict:
    """The verdict on a run that is not at work and could go on: it is cancelled, given up, queued or none of these."""
    if evidence.cancelled:
        return Verdict(JobStatus.CANCELLED, reason)
    if evidence.given_up:
        return Verdict(otherwise, evidence.given_up)
    if evidence.queued:
        return Verdict(JobStatus.PENDING, reason if evidence.job is None else "not sent to Slurm yet", may_change=True)
    return Verdict(otherwise, reason)


def _place(attempt: AttemptEvidence) -> str:
    receipt = attempt.started
    if receipt is None:
        return f"attempt {attempt.number}"
    job = f" as job {receipt.job_id}" if receipt.job_id else ""
    return f"attempt {attempt.number} (process {receipt.pid} on {receipt.host}{job})"
