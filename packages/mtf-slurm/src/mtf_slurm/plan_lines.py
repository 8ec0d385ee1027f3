"""What a sweep would run, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mtf_slurm.cluster.sharing import shared_jobs
from mtf_slurm.errors import by_reason
from mtf_slurm.reports import as_cell, columns
from mtf_slurm.wording import counted, listed

if TYPE_CHECKING:
    from mtf_slurm.cluster.choosing import Draft
    from mtf_slurm.sweep import SweepPlan

__all__ = ["plan_lines", "script_lines"]


def plan_lines(plan: SweepPlan, problems: Mapping[str, str]) -> Iterator[str]:
    """What would run: every run, whether it is new, what varies, and how much room it takes.

    Args:
        plan: of the sweep.
        problems: what keeps runs from it, by their names.
    """
    entries = {entry["name"]: entry for entry in plan.sweep.runs}
    lines = [["run", "", "parameters"]]
    for name in plan.names:
        parameters = ", ".join(f"{key}={as_cell(value)}" for key, value in entries[name]["parameters"].items())
        lines.append([name, "new" if name in plan.new else "planned", parameters])
    yield from columns(lines)
    yield f"{counted(len(plan.names), 'run')}, {len(plan.new)} of them new"
    if plan.orphaned:
        yield f"no longer a part of the sweep: {', '.join(plan.orphaned)}"
    yield from map(str, shared_jobs(plan.configs))
    for reason in by_reason(plan.conflicts):
        yield f"cannot be planned: {reason}"
    for reason in by_reason(problems):
        yield from f"cannot be executed: {reason}".splitlines()
    if plan.estimate is not None:
        yield from plan.estimate.lines()


def script_lines(drafts: Sequence[Draft]) -> Iterator[str]:
    """What sbatch would get: the part that a template makes; what follows is the same for all."""
    for draft in drafts:
        if not draft.problem:
            source = f"from {draft.template}" if draft.template else "built in"
            yield f"script of {listed(draft.runs)} ({source}):"
            yield from (f"  {line}".rstrip() for line in draft.head.splitlines())
            yield "  ... (what every job does)"
