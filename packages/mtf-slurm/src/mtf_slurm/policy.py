"""What ended the attempts of a run, and whether its budgets leave it another one. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mtf_slurm.judgement import was_killed
from mtf_slurm.status import AttemptEvidence, Evidence, JobStatus
from mtf_utils.rundir import FinishReceipt, Outcome

__all__ = ["Budgets", "Cause", "Hold", "causes", "held_back", "used"]


class Cause(enum.StrEnum):
    """What ended an attempt."""

    PREEMPTION = "preemption"
    TIMEOUT = "timeout"
    NODE_FAILURE = "node_failure"
    """A node failed; or the attempt was killed, or is gone without a word, which looks the same from outside."""
    OUT_OF_MEMORY = "out_of_memory"
    FAILURE = "failure"
    PROGRESS = "without_progress"
    """Not one end, but several in a row that nothing has come of."""
    ITSELF = "itself"
    """It said that it must not run again."""
    NOTHING = "nothing"
    """What counts against no budget: a success, a cancellation, an attempt that goes on."""

    @property
    def setting(self) -> str:
        """Where its budget is set."""
        return "preemption.max_preemptions" if self is Cause.PREEMPTION else f"slurm.retries.{self.value}"

    @property
    def is_the_runs_own(self) -> bool:
        """Whether it speaks against the run itself, so that a change of its code or settings may be the cure."""
        return self in (Cause.OUT_OF_MEMORY, Cause.FAILURE, Cause.PROGRESS, Cause.ITSELF)


_SAID_BY_SLURM: Final = {
    JobStatus.TIMEOUT: Cause.TIMEOUT,
    JobStatus.DEADLINE: Cause.TIMEOUT,
    JobStatus.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
    JobStatus.NODE_FAIL: Cause.NODE_FAILURE,
    JobStatus.BOOT_FAIL: Cause.NODE_FAILURE,
    JobStatus.PREEMPTED: Cause.PREEMPTION,
    JobStatus.CANCELLED: Cause.NOTHING,
    JobStatus.REVOKED: Cause.NOTHING,
}
_WORDS: Final = {
    Cause.PREEMPTION: "preempted {times}",
    Cause.TIMEOUT: "out of time {times}",
    Cause.NODE_FAILURE: "ended {times} by a failing node or a kill",
    Cause.OUT_OF_MEMORY: "out of memory {times}",
    Cause.FAILURE: "failed {times}",
}
_ENDLESS: Final = (Cause.PREEMPTION, Cause.TIMEOUT, Cause.NODE_FAILURE)
"""What a budget of tries alone does not stop: attempts that bring nothing are not repeated either."""


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """How many tries more there are for each cause; None is no limit.

    Attributes:
        limits: by cause; one that is not there has no limit.
        without_progress: how many attempts in a row may bring nothing.
        memory_growth: what the memory is multiplied by each time it did not suffice.
        max_memory: the most that is asked for; None: what the cluster allows.
    """

    limits: Mapping[Cause, int | None] = field(default_factory=dict)
    without_progress: int = 3
    memory_growth: float = 1.5
    max_memory: str | None = None


@dataclass(frozen=True)
class Hold:
    """Why a run is not tried again until somebody asks for it.

    Attributes:
        cause: which budget is used up, or that the run itself refuses.
        reason: for a person.
    """

    cause: Cause
    reason: str


def causes(evidence: Evidence) -> dict[int, Cause]:
    """What ended each attempt that counts, by what Slurm says of the last one, by earlier notes, or by its receipt."""
    counted = [attempt for attempt in evidence.attempts if attempt.number >= evidence.counts_from]
    found = {a.number: evidence.noted.get(a.number) or _by_receipt(a) for a in counted}
    last = evidence.last
    if last is None or last.number not in found:
        return found
    if last.finished is None and evidence.alive is not False:
        found[last.number] = Cause.NOTHING
    elif evidence.cancelled and found[last.number] not in (Cause.ITSELF, Cause.FAILURE):
        found[last.number] = Cause.NOTHING  # it was told to go by whoever cancelled it
    elif last.number not in evidence.noted and (said := _by_slurm(evidence, last)) is not None:
        found[last.number] = said
    return found


def _by_receipt(attempt: AttemptEvidence) -> Cause:
    receipt = attempt.finished
    if receipt is None:
        return Cause.NODE_FAILURE
    if receipt.outcome in (Outcome.PREEMPTED, Outcome.WANTS_REQUEUE):
        return Cause.TIMEOUT if attempt.out_of_time else Cause.PREEMPTION
    if receipt.outcome is Outcome.FAILED:
        if attempt.starved:
            return Cause.OUT_OF_MEMORY
        return Cause.NODE_FAILURE if was_killed(receipt) else Cause.FAILURE
    if receipt.outcome is Outcome.DO_NOT_REQUEUE:
        return _limited(attempt, receipt)
    return Cause.NOTHING


def _limited(attempt: AttemptEvidence, receipt: FinishReceipt) -> Cause:
    """What ended an attempt that a limit has made the last one; without a status it was one too many, and never ran."""
    if receipt.limit is None:
        return Cause.ITSELF
    if receipt.exit_status is None:
        return Cause.NOTHING
    return Cause.TIMEOUT if attempt.out_of_time else Cause.PREEMPTION


def _by_slurm(evidence: Evidence, last: AttemptEvidence) -> Cause | None:
    job = evidence.decisive_job
    if job is None or not job.claimed((last,)) or job.state is None:
        return None
    receipt = last.finished
    if receipt is not None and receipt.outcome in (Outcome.FINISHED, Outcome.DO_NOT_REQUEUE):
        return None
    return _SAID_BY_SLURM.get(job.state)


def used(evidence: Evidence) -> dict[Cause, int]:
    """How often each cause has ended an attempt since somebody asked for the run."""
    found = list(causes(evidence).values())
    return {cause: found.count(cause) for cause in _WORDS}


def held_back(evidence: Evidence, budgets: Budgets, *, stalled: bool) -> Hold | None:
    """Why a run that is over, and has not finished, is not tried again; None if it may be.

    Args:
        evidence: what is known of it.
        budgets: its own.
        stalled: whether its last attempts, as many as may, brought nothing.
    """
    last = evidence.last
    found = causes(evidence)
    if last is None or last.number not in found:
        return None
    cause = found[last.number]
    if cause is Cause.NOTHING and last.finished is not None and last.finished.limit in set(Cause):
        cause = Cause(last.finished.limit)
    if cause is Cause.ITSELF:
        said = last.finished.reason if last.finished else ""
        return Hold(cause, said or "it said that it must not run again; see its log")
    if cause is Cause.NOTHING:
        return None
    count, limit = list(found.values()).count(cause), budgets.limits.get(cause)
    if limit is not None and count > limit:
        return Hold(cause, f"{_WORDS[cause].format(times=_times(count))}, and {cause.setting} is {limit}")
    if stalled and (limit is None or cause in _ENDLESS):
        reason = f"{budgets.without_progress} attempts in a row ended without progress; see the logs"
        return Hold(Cause.PROGRESS, reason)
    return None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
