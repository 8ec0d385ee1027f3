"""What the local launcher does next with a run, given the evidence. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from mtf_slurm.status import Evidence, unseen, was_killed
from mtf_utils.rundir import FinishReceipt, Outcome

__all__ = ["MAX_STALLED", "Decision", "Step", "decide"]

MAX_STALLED: Final = 3
"""After how many attempts in a row without progress a run is not started again."""


class Step(enum.Enum):
    """What to do with a run."""

    START = "start"
    """Start the next attempt."""
    ADOPT = "adopt"
    """Wait for the attempt that is at work."""
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
    if last is None:
        return Decision(Step.START)
    if last.finished is not None:
        return _after(last.finished, evidence, known=known, stalled=stalled, max_preemptions=max_preemptions)
    if evidence.alive:
        return Decision(Step.ADOPT)
    if evidence.alive is None:
        return _unseen(evidence)
    return _again(stalled)


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
