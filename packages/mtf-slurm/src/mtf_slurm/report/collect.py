"""Gather a report from the folder of a sweep: one look at the runs, then the journals of those that get curves."""

from __future__ import annotations

import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any, Final, Literal

from mtf_config.writer import dump_yaml
from mtf_slurm.errors import SLURMError
from mtf_slurm.monitored import monitored
from mtf_slurm.report.curves import read_curves
from mtf_slurm.report.model import Report, RunRow
from mtf_slurm.report.provenance import Codes, environment, spans_of
from mtf_slurm.results import GridSearchResult
from mtf_slurm.run_result import RunResult
from mtf_utils.rundir import SweepDirectory, now

__all__ = ["CURVES", "collect_report"]

CURVES: Final = 1000
"""How many runs have their curves in a report: the best, and then others in the order of the sweep."""


def collect_report(
    result: GridSearchResult, *, metric: str | None = None, mode: Literal["min", "max"] | None = None
) -> Report:
    """What a report of a sweep shows.

    Args:
        result: of the sweep; what it said last is what the report says.
        metric: to rank by; None is the one that the sweep's own checkpoints are ranked by.
        mode: what is best; None is that of the sweep for its own metric, else the smallest.

    Raises:
        SLURMError: there is no sweep, it has no runs, or none of them has the metric.
        OSError: a file cannot be read.
    """
    directory = SweepDirectory(result.output_dir)
    sweep = directory.sweep()
    if sweep is None:
        raise SLURMError(f"{result.output_dir}: there is no sweep here (no {directory.sweep_file.name})")
    metric, goal = _ranking(result, metric, mode)
    order = _ranked(result, metric, goal)
    with_curves = {run.name for run in order[:CURVES]}
    codes = Codes()
    rows = [_row(directory, run, codes, metric, curves=run.name in with_curves) for run in result]
    best = order[0]
    return Report(
        name=result.name,
        output_dir=str(result.output_dir),
        mode=result.mode.value if result.mode else "",
        created_at=sweep.created_at,
        made_at=now(),
        made_s=int(time.time()),
        metric=metric,
        goal=goal,
        runs=rows,
        codes=codes.views(),
        environment=environment(sweep, (span.host for row in rows for span in row.spans)),
        config=_config(best.path),
        config_of=best.name,
        remarks=list(_remarks(result)),
    )


def _ranking(
    result: GridSearchResult, metric: str | None, mode: Literal["min", "max"] | None
) -> tuple[str, Literal["min", "max"]]:
    its_metric, its_mode = monitored(result)
    known = {name for run in result for name in run.metrics}
    if metric is not None and metric not in known:
        result.leaderboard(metric, unfinished=True)  # says which there are
    chosen = metric or (its_metric if its_metric in known else next((r.headline for r in result if r.headline), None))
    return chosen or "", mode or (its_mode if chosen == its_metric else "min")


def _ranked(result: GridSearchResult, metric: str, goal: Literal["min", "max"]) -> list[RunResult]:
    """All runs: those with a number for the metric, best first, then the others."""
    sign = 1 if goal == "min" else -1

    def key(run: RunResult) -> float:
        value = run.metrics.get(metric)
        return math.inf if value is None or math.isnan(value) else sign * value

    return sorted(result, key=key)


def _row(directory: SweepDirectory, run: RunResult, codes: Codes, metric: str, *, curves: bool) -> RunRow:
    folder = directory.run(run.name)
    best = run.best or {}
    return RunRow(
        name=run.name,
        state=run.status.value,
        grid=run.grid,
        parameters=run.parameters,
        metrics={name: _shown(value) for name, value in run.metrics.items()},
        best=_finite(best.get("value")) if best.get("metric") == metric else None,
        epoch=run.epoch,
        step=run.global_step,
        attempts=run.attempts,
        job_id=run.job_id,
        reason=run.reason,
        code=codes.number_of(folder),
        spans=spans_of(folder, run.status) if run.attempts else (),
        curves=read_curves(folder.metrics_file) if curves else {},
    )


def _finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _shown(value: Any) -> float | str:
    """A metric as the page gets it: what is no number of JSON by its name, so that a run that diverged shows it."""
    finite = _finite(value)
    if finite is not None:
        return finite
    return str(value) if isinstance(value, float) and math.isinf(value) else "NaN"  # None stands for it in journals


def _config(run: Path) -> str:
    """The whole configuration of a run, for people; empty if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return dump_yaml(json.loads((run / "config.json").read_text("utf-8")))
    return ""


def _remarks(result: GridSearchResult) -> list[str]:
    remarks = []
    if len(result) > CURVES:
        remarks.append(f"Learning curves are those of the {CURVES} best of {len(result)} runs.")
    if result.cluster_error:
        remarks.append(f"Slurm could not be asked: {result.cluster_error}")
    if result.orphaned:
        remarks.append(f"{len(result.orphaned)} runs are no longer a part of the sweep, and left out.")
    return remarks
