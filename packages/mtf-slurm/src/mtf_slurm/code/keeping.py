"""Which runs go on with the code they have when a sweep is submitted again."""

from __future__ import annotations

from typing import Final

from mtf_slurm.budgets import hold_of
from mtf_slurm.cluster.watch import Watch
from mtf_slurm.evidence import Witness
from mtf_slurm.policy import Hold
from mtf_slurm.status import Evidence, JobStatus, Verdict
from mtf_utils.rundir import SweepDirectory

__all__ = ["keeps_code", "runs_that_keep_code"]

_PERHAPS_BY_THE_CODE: Final = frozenset({JobStatus.FAILED, JobStatus.OUT_OF_MEMORY})


def keeps_code(evidence: Evidence, verdict: Verdict, hold: Hold | None = None) -> bool:
    """Whether a run belongs to the code that is written down for it: it is finished, at work, waits, or goes on later.

    A run that never began gets the new code, and one that failed or came to nothing, too: the edit may be what it
    needs.

    Args:
        evidence: what is known of it.
        verdict: what may be said of it.
        hold: why it is not tried again as it is; None if it may be.
    """
    if hold is not None and hold.cause.is_the_runs_own and not verdict.may_change:
        return False
    if verdict.status.is_active or verdict.status is JobStatus.UNKNOWN:
        return True
    return bool(evidence.attempts) and verdict.status not in _PERHAPS_BY_THE_CODE


def runs_that_keep_code(directory: SweepDirectory, watch: Watch | None = None) -> list[str]:
    """The names of such runs; asked before the folder is held, as its holder's own runs seem to wait."""
    if not directory.sweep_file.is_file():
        return []
    witness = Witness.look(directory, watch)
    kept = []
    for run in directory.runs():
        evidence, verdict = witness.verdict(run.name)
        if keeps_code(evidence, verdict, hold_of(run, evidence)):
            kept.append(run.name)
    return kept
