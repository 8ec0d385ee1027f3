"""Which runs go on with the code they have when a sweep is submitted again."""

from __future__ import annotations

from typing import Final

from mtf_slurm.cluster.watch import Watch
from mtf_slurm.evidence import Witness
from mtf_slurm.status import Evidence, JobStatus, Verdict
from mtf_utils.rundir import SweepDirectory

__all__ = ["keeps_code", "runs_that_keep_code"]

_PERHAPS_BY_THE_CODE: Final = frozenset({JobStatus.FAILED, JobStatus.OUT_OF_MEMORY})


def keeps_code(evidence: Evidence, verdict: Verdict) -> bool:
    """Whether a run belongs to the code that is written down for it: it is finished, at work, waits, or goes on later.

    A run that never began gets the new code, and one that failed, too: the edit may be what it needs.
    """
    if verdict.status.is_active or verdict.status is JobStatus.UNKNOWN:
        return True
    return bool(evidence.attempts) and verdict.status not in _PERHAPS_BY_THE_CODE


def runs_that_keep_code(directory: SweepDirectory, watch: Watch | None = None) -> list[str]:
    """The names of such runs; asked before the folder is held, as its holder's own runs seem to wait."""
    if not directory.sweep_file.is_file():
        return []
    witness = Witness.look(directory, watch)
    return [run.name for run in directory.runs() if keeps_code(*witness.verdict(run.name))]
