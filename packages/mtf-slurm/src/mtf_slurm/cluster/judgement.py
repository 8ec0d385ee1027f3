"""The status of a run whose last submission is a Slurm job: receipts first, then Slurm, else unknown. Pure."""

from __future__ import annotations

import signal
from typing import Final

from mtf_slurm.cluster.answers import TaskState
from mtf_slurm.cluster.reasons import waiting_words
from mtf_slurm.status import AttemptEvidence, Evidence, JobEvidence, JobStatus, Verdict
from mtf_utils.exits import EXIT_PREEMPTED
from mtf_utils.rundir import FinishReceipt, Outcome

__all__ = ["judge_job", "memory_words"]

_RAN_OUT: Final = {
    JobStatus.TIMEOUT: "the time limit was reached",
    JobStatus.DEADLINE: "the deadline passed",
    JobStatus.OUT_OF_MEMORY: "out of memory",
    JobStatus.NODE_FAIL: "a node failed",
    JobStatus.BOOT_FAIL: "a node did not boot",
    JobStatus.PREEMPTED: "preempted by Slurm, and not queued again",
    JobStatus.CANCELLED: "",
    JobStatus.REVOKED: "taken over by another cluster",
}
"""Ends that Slurm decided on, whatever the receipt of the attempt that they met says."""

_KILLED: Final = 128 + signal.SIGKILL

_AT_WORK: Final = (
    JobStatus.RUNNING,
    JobStatus.COMPLETING,
    JobStatus.RESIZING,
    JobStatus.SIGNALING,
    JobStatus.STOPPED,
    JobStatus.SUSPENDED,
)
"""States of a task that has been started."""


def judge_job(evidence: Evidence, job: JobEvidence) -> Verdict:
    """The status of a run that has not finished and whose job was sent to Slurm.

    A job in the queue is in the state that Slurm says. Of one that is over Slurm says what ended it, unless that was
    the run itself: then its receipt tells, and without a receipt nobody does. While the controller cannot be asked,
    only a receipt that the run failed stands.
    """
    claimed = job.claimed(evidence.attempts)
    last = claimed[-1] if claimed else None
    if job.settled and not _is_for_want_of_memory(job, last):
        return _judge_settled(evidence, last)
    if job.unseen:
        return _judge_unseen(evidence, job, last)
    if job.place is not None and (verdict := _judge_shared(evidence, job, last)) is not None:
        return verdict
    state = job.state
    if state is not None and state.is_active:
        return Verdict(state, _notes(_queue_words(job), _preempted(evidence), _cancelling(evidence)), may_change=True)
    if not job.job_id and state is None:
        return _judge_unanswered(evidence)
    if state is JobStatus.UNKNOWN:
        return Verdict(state, "Slurm says a state that this version has no word for; see squeue", may_change=True)
    if state in _RAN_OUT and not _is_last_word(last):
        return _judge_ended_by_slurm(evidence, job, state, last)
    if last is not None and last.finished is not None:
        return _judge_receipt(evidence, last, last.finished)
    if evidence.cancelled:
        return Verdict(JobStatus.CANCELLED)
    if state is JobStatus.FAILED:
        return Verdict(JobStatus.FAILED, _notes(_failed_without_receipt(job), _see(job, last)))
    if state is not None:
        words = f"Slurm says {state.value}, but {_left_no(last, 'finish receipt')}"
        return Verdict(JobStatus.UNKNOWN, _notes(words, _see(job, last)))
    return _judge_gone(job, last)


def _judge_settled(evidence: Evidence, last: AttemptEvidence | None) -> Verdict:
    """A run that is over in a task that goes on, perhaps, with others: what becomes of the task says nothing of it."""
    if last is None or last.finished is None:
        return Verdict(JobStatus.CANCELLED, "cancelled before its turn came")
    return _judge_receipt(evidence, last, last.finished)


def _is_for_want_of_memory(job: JobEvidence, last: AttemptEvidence | None) -> bool:
    """Whether the run was killed, and Slurm says that the memory of its task did not suffice."""
    receipt = last.finished if last else None
    return job.state is JobStatus.OUT_OF_MEMORY and receipt is not None and receipt.exit_status == _KILLED


def _judge_shared(evidence: Evidence, job: JobEvidence, last: AttemptEvidence | None) -> Verdict | None:
    """What the state of a task that runs share says of one that is not over in it; None if it is the run's own."""
    state = job.state
    if state is None:
        return None
    if state.is_active:
        waits = state in _AT_WORK and not _is_in_hand(job, last)
        turn = f"waits for its turn in job {job.job_id}"
        return Verdict(JobStatus.PENDING, _notes(turn, _preempted(evidence)), may_change=True) if waits else None
    if last is None and state not in (JobStatus.CANCELLED, JobStatus.UNKNOWN):
        return Verdict(JobStatus.LOST, f"job {job.job_id} ended ({state.value}) before its turn came")
    if last is not None and last.finished is None and state is JobStatus.FAILED:
        words = f"job {job.job_id} failed, but {_left_no(last, 'finish receipt')}"
        return Verdict(JobStatus.UNKNOWN, words)
    return None


def _is_in_hand(job: JobEvidence, last: AttemptEvidence | None) -> bool:
    """Whether the task is at work on the run: it has claimed an attempt since it was started last, and not ended it."""
    if last is None or last.finished is not None:
        return False
    restarts = job.task.restarts if job.task else None
    return restarts is None or last.started is None or last.started.restart >= restarts


def _is_last_word(last: AttemptEvidence | None) -> bool:
    """Whether its receipt says that it must not run again, which no later end of its job changes.

    If a limit has made an attempt the last one that was told to stop, what told it is what ended it.
    """
    receipt = last.finished if last else None
    if receipt is None or receipt.outcome is not Outcome.DO_NOT_REQUEUE:
        return False
    return receipt.limit is None or receipt.exit_status is None


def _judge_unseen(evidence: Evidence, job: JobEvidence, last: AttemptEvidence | None) -> Verdict:
    receipt = last.finished if last else None
    if last is not None and receipt is not None and (receipt.outcome is Outcome.FAILED or _is_last_word(last)):
        return Verdict(_failed(last), receipt.reason or "")
    if receipt is not None:
        known = f"{_name(last)} ended {receipt.outcome.value}; whether it is queued again is not known"
    elif last is not None:
        known = f"{_name(last)} started" if last.started else f"{_name(last)} was claimed"
    else:
        known = f"job {job.job_id} was submitted" if job.job_id else "its submission was not answered"
    said = f"the accounting says {job.task.state.value}" if job.task else ""
    return Verdict(JobStatus.UNKNOWN, _notes(f"Slurm cannot be asked ({job.unseen})", known, said), may_change=True)


def _judge_unanswered(evidence: Evidence) -> Verdict:
    if evidence.queued:
        return Verdict(JobStatus.PENDING, "being sent to Slurm", may_change=True)
    remedy = "the same submission, repeated, finds out whether Slurm has it"
    return Verdict(JobStatus.UNKNOWN, f"sbatch was called, and what came of it was not noted; {remedy}")


def _judge_ended_by_slurm(
    evidence: Evidence, job: JobEvidence, state: JobStatus, last: AttemptEvidence | None
) -> Verdict:
    task = job.task
    words = _RAN_OUT[state]
    if task is not None and state is JobStatus.TIMEOUT and task.time_limit:
        words = f"the time limit of {task.time_limit} was reached"
    if state is JobStatus.OUT_OF_MEMORY and (figures := memory_words(task, last)):
        words = f"out of memory ({figures})"
    receipt = last.finished if last else None
    # another status is that of a signal, which the command may not have heeded
    has_saved = receipt is not None and receipt.outcome is Outcome.PREEMPTED and receipt.exit_status == EXIT_PREEMPTED
    saved = "the state is saved" if has_saved else ""
    limited = receipt.reason or "" if receipt is not None and receipt.limit is not None else ""
    # who cancels a job that went on after preemptions knows that; of a job that ran out of time it matters
    return Verdict(state, _notes(words, saved, limited, _preempted(evidence) if words else ""))


def memory_words(task: TaskState | None, last: AttemptEvidence | None = None) -> str:
    """How much memory a job asked for, and used by the kernel's word or else by samples; empty if nobody knows."""
    asked = f"{task.memory} asked for" if task and task.memory else ""
    used = last.peak_memory if last else ""
    if not used and task and task.peak_memory:
        # a peak between two samples, such as the one that was too much, is not in it
        used = f"up to {task.peak_memory} in use when sampled"
    return ", ".join(part for part in (asked, used) if part)


def _failed(last: AttemptEvidence) -> JobStatus:
    """What is said of an attempt whose receipt says that it failed."""
    return JobStatus.OUT_OF_MEMORY if last.starved else JobStatus.FAILED


def _judge_receipt(evidence: Evidence, last: AttemptEvidence, receipt: FinishReceipt) -> Verdict:
    reason = receipt.reason or ""
    if receipt.outcome in (Outcome.FAILED, Outcome.DO_NOT_REQUEUE):
        return Verdict(_failed(last), reason)
    if evidence.cancelled:
        return Verdict(JobStatus.CANCELLED, reason)
    return Verdict(JobStatus.PREEMPTED, _notes(reason, "Slurm has not queued the job again", _preempted(evidence)))


def _judge_gone(job: JobEvidence, last: AttemptEvidence | None) -> Verdict:
    """The controller answered, and does not know the job."""
    because = f"the accounting cannot be asked: {job.unaccounted}" if job.unaccounted else ""
    if last is not None:
        words = f"{_name(last)} left no finish receipt, and Slurm has forgotten job {job.job_id}"
        return Verdict(JobStatus.UNKNOWN, _notes(words, because))
    if job.unforgettable and job.siblings:
        # a task that is cancelled before it starts is struck off its array; what has started is remembered
        return Verdict(JobStatus.CANCELLED, f"struck off its array before it started (job {job.job_id})")
    if job.unforgettable:
        return Verdict(JobStatus.LOST, f"Slurm took job {job.job_id}, and does not know it any more; it never started")
    words = f"Slurm has forgotten job {job.job_id}, which claimed no attempt"
    return Verdict(JobStatus.UNKNOWN, _notes(words, because, _see(job, last)))


def _queue_words(job: JobEvidence) -> str:
    """Why the job waits."""
    return waiting_words(job.task.reason) if job.task is not None else ""


def _preempted(evidence: Evidence) -> str:
    count = evidence.preemptions
    return "" if count == 0 else "preempted once" if count == 1 else f"preempted {count} times"


def _cancelling(evidence: Evidence) -> str:
    return "to be cancelled" if evidence.cancelled else ""


def _failed_without_receipt(job: JobEvidence) -> str:
    task = job.task
    if task is None:
        return ""
    if task.signal:
        memory = f" (memory: {memory_words(task)})" if task.peak_memory else ""
        return f"the job was ended by signal {task.signal}, without a receipt{memory}"
    if task.exit_status:
        return f"the job ended with status {task.exit_status}, without a receipt"
    return f"Slurm could not start the job: {task.reason or 'it does not say why'}"


def _left_no(last: AttemptEvidence | None, what: str) -> str:
    return f"{_name(last)} left no {what}" if last else "no attempt was claimed"


def _name(last: AttemptEvidence | None) -> str:
    assert last is not None
    receipt = last.started
    place = f" (process {receipt.pid} on {receipt.host})" if receipt else ""
    return f"attempt {last.number}{place}"


def _see(job: JobEvidence, last: AttemptEvidence | None) -> str:
    """Where more may be found; an attempt has a log of its own."""
    return f"see {job.output}" if job.output and last is None else ""


def _notes(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
