"""Results as text for a terminal or a pipe: aligned columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mtf_slurm.budgets import retry_words
from mtf_slurm.errors import by_reason
from mtf_slurm.export import rows
from mtf_slurm.results import GridSearchResult, RunResult
from mtf_slurm.views import format_metric
from mtf_slurm.wording import counted, tally
from mtf_utils.display import printable
from mtf_utils.rundir import SweepDirectory

__all__ = ["as_cell", "columns", "ranking_lines", "status_lines"]


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
            [run.name, run.status.value, *job, as_cell(run.epoch), as_cell(run.global_step), str(run.attempts), note]
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
    lines += [[str(place), *(as_cell(row[key]) for key in shown)] for place, row in enumerate(table, 1)]
    return columns(lines)


def columns(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of cells, each column as wide as its widest cell."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def as_cell(value: Any) -> str:
    """A value as a table shows it; empty without one."""
    if value is None:
        return ""
    return format(value, ".6g") if isinstance(value, float) else str(value)
