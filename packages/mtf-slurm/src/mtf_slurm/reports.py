"""Results as text for a terminal or a pipe: aligned columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtf_slurm.budgets import retry_words
from mtf_slurm.cluster.sharing import shared_jobs
from mtf_slurm.errors import by_reason
from mtf_slurm.export import rows
from mtf_slurm.results import GridSearchResult, RunResult
from mtf_slurm.sweep import SweepPlan
from mtf_slurm.views import format_metric
from mtf_slurm.wording import counted, listed, tally
from mtf_utils.display import printable
from mtf_utils.rundir import SweepDirectory

if TYPE_CHECKING:
    from mtf_slurm.cluster.choosing import Draft

__all__ = ["columns", "plan_lines", "ranking_lines", "script_lines", "status_lines"]


def status_lines(
    result: GridSearchResult, *, runs: Sequence[RunResult] | None = None, metric: str = ""
) -> Iterator[str]:
    """How the runs stand, and how many stand so; with their jobs if Slurm has numbered any.

    Args:
        result: all of them.
        runs: those that are shown, in order; None is all.
        metric: the one to show; empty is each run's leading one.
    """
    jobs = any(run.job_id and run.job_id[0].isdecimal() for run in result)
    lines = [["run", "state", *(["job"] if jobs else []), "epoch", "step", "attempts", "note"]]
    for run in result if runs is None else runs:
        name = metric or run.headline
        metric_text = format_metric(name, run.metrics[name]) if name and name in run.metrics else ""
        note = "; ".join(text for text in (metric_text, run.reason) if text)
        job = [run.job_id or ""] if jobs else []
        lines.append(
            [run.name, run.status.value, *job, _text(run.epoch), _text(run.global_step), str(run.attempts), note]
        )
    yield from columns(lines)
    counts = tally({status.value: count for status, count in result.counts.items()})
    yield counts if len(lines) > len(result) else f"{len(lines) - 1} of {counted(len(result), 'run')} shown; {counts}"
    if result.orphans:
        names = (f"{run.name} ({run.status.value})" if run.status.is_active else run.name for run in result.orphans)
        yield f"no longer a part of the sweep: {', '.join(names)}"
    if held := {run.name: run.held for run in result if run.held}:
        yield "not tried again until their code or settings change, or somebody asks for them:"
        yield from (f"  {line}" for line in by_reason(held))
        yield f"  to ask: {retry_words(SweepDirectory(result.output_dir))} RUN..."


def ranking_lines(ranked: Sequence[RunResult], metric: str) -> Iterator[str]:
    """The runs from best to worst, with the metric and their parameters."""
    table = rows(ranked)
    keys = dict.fromkeys(key for run in ranked for key in run.parameters)
    shown = ["name", metric, *(key for key in keys if key in table[0])]
    lines = [["", *shown]]
    lines += [[str(place), *(_text(row[key]) for key in shown)] for place, row in enumerate(table, 1)]
    return columns(lines)


def plan_lines(plan: SweepPlan, problems: Mapping[str, str]) -> Iterator[str]:
    """What would run: every run, whether it is new, what varies, and how much room it takes.

    Args:
        plan: of the sweep.
        problems: what keeps runs from it, by their names.
    """
    entries = {entry["name"]: entry for entry in plan.sweep.runs}
    lines = [["run", "", "parameters"]]
    for name in plan.names:
        parameters = ", ".join(f"{key}={_text(value)}" for key, value in entries[name]["parameters"].items())
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


def columns(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of cells, each column as wide as its widest cell."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return format(value, ".6g") if isinstance(value, float) else str(value)
