"""What a launcher does next with a run, given the evidence: the local one, and the one that submits to Slurm. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from mtf_slurm.judgement import judge, unseen, was_killed
from mtf_slurm.status import Evidence, JobEvidence
from mtf_utils.rundir import FinishReceipt, Outcome

__all__ = ["MAX_STALLED", "Decision", "Step", "decide", "due"]

MAX_STALLED: Final = 3
"""After how many attempts in a row without progress a run is not started again."""


class Step(enum.Enum):
    """What to do with a run."""

    START = "start"
    """Start the next attempt, or submit it."""
    ADOPT = "adopt"
    """Nothing new: it is at work, or in the queue."""
    LOOK_AGAIN = "look again"
    """It cannot be told yet."""
    DONE = "done"
    """Nothing: it is over."""
    GIVE_UP = "give up"
    """Nothing, for a reason that no receipt tells."""


@dataclass(frozen=True)
class Decision:
    """A step, and the reason where a person may ask for one."""

    step: Step
    reason: str = ""


def decide(evidence: Evidence, *, known: int, stalled: int, max_preemptions: int | None) -> Decision:
    """What to do with a run that is not at work under this launcher.

    Args:
        evidence: what is known of it.
        known: the number of its last attempt when the launcher was called; a failure since then is final for now.
        stalled: how many attempts in a row, under this launcher, ended without progress.
        max_preemptions: after more preemptions it is not started again; None is no limit.
    """
    last = evidence.last
    if evidence.is_finished or evidence.cancelled:
        return Decision(Step.DONE)
    if evidence.job is not None and evidence.job.may_be_active:
        return Decision(Step.GIVE_UP, _in_slurm(evidence, evidence.job))
    if last is None:
        return Decision(Step.START)
    if last.finished is not None:
        return _after(last.finished, evidence, known=known, stalled=stalled, max_preemptions=max_preemptions)
    if evidence.alive:
        return Decision(Step.ADOPT)
    if evidence.alive is None:
        return _unseen(evidence)
    return _again(stalled)


def due(evidence: Evidence) -> Decision:
    """Whether a submission to Slurm that asks for the run is to submit it.

    It does whenever the run is not over and certainly neither at work nor in the queue; having failed before, having
    been cancelled or lost is no obstacle to being asked for again.
    """
    last = evidence.last
    if evidence.is_finished:
        return Decision(Step.DONE)
    job = evidence.job
    if job is not None and job.is_active:
        return Decision(Step.ADOPT, f"job {job.job_id}" if job.job_id else "")
    if last is not None and last.finished is not None and last.finished.outcome is Outcome.DO_NOT_REQUEUE:
        return Decision(Step.DONE, last.finished.reason or "it said that it must not run again; see its log")
    if job is not None and job.may_be_active:
        return Decision(Step.GIVE_UP, _unsure(evidence, job))
    if last is None or last.finished is not None or evidence.alive is False:
        return Decision(Step.START)
    if evidence.alive:
        return Decision(Step.GIVE_UP, f"attempt {last.number} is at work on this machine; wait until it is over")
    if last.started is None:
        return Decision(Step.GIVE_UP, f"{unseen(last)}; ask again in a moment")
    return _unseen(evidence)


def _in_slurm(evidence: Evidence, job: JobEvidence) -> str:
    """Why a run is not started here while it is, or may be, in Slurm."""
    if job.is_active:
        return f"it is {judge(evidence).status.value} in Slurm as job {job.job_id}; cancel that first"
    return f"it may be in Slurm: {_unsure(evidence, job)}"


def _unsure(evidence: Evidence, job: JobEvidence) -> str:
    """Why nobody can say whether the job is still active."""
    return f"Slurm cannot be asked ({job.unseen})" if job.unseen else judge(evidence).reason


def _unseen(evidence: Evidence) -> Decision:
    last = evidence.last
    if last is None or last.started is None:
        return Decision(Step.LOOK_AGAIN)
    remedy = f"continue it there, or, if it is over, delete attempts/{last.number}/started.json of the run"
    return Decision(Step.GIVE_UP, f"{unseen(last)}; {remedy}")


def _after(
    receipt: FinishReceipt, evidence: Evidence, *, known: int, stalled: int, max_preemptions: int | None
) -> Decision:
    if receipt.outcome is Outcome.DO_NOT_REQUEUE:
        return Decision(Step.DONE)
    if receipt.outcome is Outcome.FAILED and not was_killed(receipt):
        return Decision(Step.START if receipt.attempt <= known else Step.DONE)
    if max_preemptions is not None and evidence.preemptions > max_preemptions:
        reason = f"preempted {evidence.preemptions} times, and preemption.max_preemptions is {max_preemptions}"
        return Decision(Step.GIVE_UP, reason)
    return _again(stalled)


def _again(stalled: int) -> Decision:
    if stalled >= MAX_STALLED:
        return Decision(Step.GIVE_UP, f"{stalled} attempts in a row ended without progress; see the logs")
    return Decision(Step.START)
