"""What counts as asking for a run again, so that its budgets begin anew: its name, or a change of what it is to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from mtf_slurm.budgets import ask_for
from mtf_slurm.code.isolation import code_file_of
from mtf_slurm.code.record import CodeFile
from mtf_slurm.decisions import Decision, Step
from mtf_slurm.policy import Cause, Hold, causes
from mtf_slurm.status import Evidence
from mtf_slurm.submissions import Ended
from mtf_utils.rundir import RunDirectory, RunDirectoryError

__all__ = ["BY_NAME", "ends_of", "has_other_code", "last_cause", "reconsider"]

BY_NAME: Final = "asked for by name"
_UNTOLD: Final = "submitted again; it runs what lies in the project, where nobody can tell what has changed"
_AFTER_CANCELLING: Final = "submitted again after it was cancelled"
_MENDABLE: Final = (Cause.FAILURE, Cause.OUT_OF_MEMORY, Cause.PROGRESS)


def reconsider(run: RunDirectory, evidence: Evidence, decision: Decision, how: str = "") -> Decision:
    """What is decided once it is settled, and noted, whether this submission asks for the run anew.

    Args:
        run: its folder.
        evidence: what is known of it.
        decision: what its budgets alone come to.
        how: it was asked for explicitly; empty if it is only one of those that were submitted.
    """
    if decision.step not in (Step.START, Step.HOLD) or evidence.last is None:
        return decision
    if not how and evidence.cancelled:
        how = _AFTER_CANCELLING
    elif not how and decision.hold is not None and decision.hold.cause in _MENDABLE and not _is_isolated(run):
        how = _UNTOLD
    if not how:
        return decision
    if run.counts_from() <= evidence.last.number:  # else it is noted already
        ask_for(run, how)
    return Decision(Step.START)


def has_other_code(run: RunDirectory, hold: Hold, code: CodeFile) -> bool:
    """Whether to submit a run again, which is held back, would count as asking for it because of the code.

    Args:
        run: its folder.
        hold: why it is held back.
        code: what it would run.
    """
    if code.tree is None:
        return hold.cause in _MENDABLE  # nobody can tell what has changed
    before = code_file_of(run)
    return before is None or before.tree != code.tree


def _is_isolated(run: RunDirectory) -> bool:
    """Whether a change of the code would have been noticed, and would have counted as asking."""
    try:
        code = code_file_of(run)
    except RunDirectoryError:
        return True
    return code is not None and code.isolated


def last_cause(evidence: Evidence) -> Cause | None:
    """What ended the last attempt, whether or not it counts against a budget; None without one."""
    return causes(replace(evidence, counts_from=1)).get(evidence.last.number) if evidence.last else None


def ends_of(known: Iterable[tuple[str, Evidence]]) -> list[Ended]:
    """How the last attempts of runs have ended that are about to be submitted again, for the record."""
    ends: list[Ended] = []
    for name, evidence in known:
        cause = last_cause(evidence)
        if evidence.last is not None and cause not in (None, Cause.NOTHING):
            ends.append(Ended(run=name, attempt=evidence.last.number, cause=str(cause)))
    return ends
