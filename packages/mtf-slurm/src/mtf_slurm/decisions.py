"""What a launcher does next with a run, given the evidence: the local one, and the one that submits to Slurm. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mtf_slurm.judgement import judge, unseen
from mtf_slurm.policy import Cause, Hold
from mtf_slurm.status import Evidence, JobEvidence

__all__ = ["Decision", "Step", "decide", "due"]


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
    HOLD = "hold"
    """Nothing until somebody asks for it: its budgets are used up, or it refuses itself."""


@dataclass(frozen=True)
class Decision:
    """A step, the reason where a person may ask for one, and what holds the run back if that is the reason."""

    step: Step
    reason: str = ""
    hold: Hold | None = None


def decide(evidence: Evidence, hold: Hold | None) -> Decision:
    """What to do with a run that is not at work under this launcher.

    Args:
        evidence: what is known of it.
        hold: why it is not tried again, if it is over; see `policy.held_back`.
    """
    last = evidence.last
    if evidence.is_finished or evidence.cancelled:
        return Decision(Step.DONE)
    if evidence.job is not None and evidence.job.may_be_active:
        return Decision(Step.GIVE_UP, _in_slurm(evidence, evidence.job))
    if last is None:
        return Decision(Step.START)
    if last.finished is None and evidence.alive:
        return Decision(Step.ADOPT)
    if last.finished is None and evidence.alive is None:
        return _unseen(evidence)
    return Decision(Step.HOLD, hold.reason, hold) if hold else Decision(Step.START)


def due(evidence: Evidence, hold: Hold | None) -> Decision:
    """Whether a submission to Slurm that asks for the run is to submit it.

    It does whenever the run is not over, certainly neither at work nor in the queue, and not held back; having been
    cancelled or lost is no obstacle to being asked for again.

    Args:
        evidence: what is known of it.
        hold: why it is not tried again, if it is over; see `policy.held_back`.
    """
    last = evidence.last
    if evidence.is_finished:
        return Decision(Step.DONE)
    job = evidence.job
    if job is not None and job.is_active:
        return Decision(Step.ADOPT, f"job {job.job_id}" if job.job_id else "")
    if hold is not None and hold.cause is Cause.ITSELF:
        return Decision(Step.HOLD, hold.reason, hold)  # no end of its job changes that
    if job is not None and job.may_be_active:
        return Decision(Step.GIVE_UP, _unsure(evidence, job))
    if last is None or last.finished is not None or evidence.alive is False:
        return Decision(Step.HOLD, hold.reason, hold) if hold else Decision(Step.START)
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
