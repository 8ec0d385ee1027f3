"""One run of a sweep as results tell it: what was asked, how it stands, what it came to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtf_slurm.budgets import hold_of
from mtf_slurm.evidence import Witness
from mtf_slurm.status import Evidence, JobStatus
from mtf_slurm.telemetry import failure_reason, read_telemetry
from mtf_utils.rundir import RunDirectory, RunDirectoryError

__all__ = ["RunResult", "read_run"]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One run of a sweep.

    Attributes:
        name: of the experiment.
        grid: the grid that it comes from; empty for an experiment submitted by itself.
        parameters: what the grid says: dotted key → value.
        identity: the identity of the run.
        status: its state, as far as there is evidence for one.
        reason: why it is in that state, where there is something to say.
        held: why it is not tried again until somebody asks for it, or changes it; empty if it may be, or is not over.
        may_change: whether the status may be another one later without a new submission: the run is active, or the
            cluster could not be asked.
        attempts: how many attempts were started.
        metrics: the last epoch's metrics of a finished training, else the last ones recorded; None stands for NaN.
        headline: the metric to show where there is room for one; None without any.
        best: metric, value, epoch and global_step of the best validation, if training is complete and had one.
        epoch: epochs completed, or the one that the last record is of, counted from 1.
        global_step: optimizer steps taken, or the step of the last record.
        path: the folder of the run.
        log: the output of the last attempt; None without one.
        checkpoint: the final checkpoint; None while training is not complete.
        job_id: the id of its last submission; None without one.
    """

    name: str
    grid: str
    parameters: Mapping[str, Any]
    identity: str
    status: JobStatus
    reason: str = ""
    held: str = ""
    may_change: bool = False
    attempts: int = 0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    headline: str | None = None
    best: Mapping[str, Any] | None = None
    epoch: int | None = None
    global_step: int | None = None
    path: Path
    log: Path | None = None
    checkpoint: Path | None = None
    job_id: str | None = None


def read_run(witness: Witness, entry: Mapping[str, Any]) -> RunResult:
    """One run, from its entry in `sweep.json` and what is known of it."""
    run = witness.directory.run(entry["name"])
    evidence, verdict = witness.verdict(run.name, brief=True)
    log = run.log_file(evidence.last.number) if evidence.last else None
    hold = None if verdict.may_change else hold_of(run, evidence)
    return RunResult(
        name=run.name,
        grid=entry["grid"],
        parameters=entry["parameters"],
        identity=entry["identity"],
        status=verdict.status,
        reason=failure_reason(evidence, verdict, log),
        held=hold.reason if hold else "",
        may_change=verdict.may_change,
        attempts=len(evidence.attempts),
        path=run.path,
        log=log if log is not None and os.path.exists(log) else None,  # noqa: PTH110 - of thousands
        job_id=witness.job_id(run.name),
        **_outcome(run, evidence),
    )


def _outcome(run: RunDirectory, evidence: Evidence) -> dict[str, Any]:
    """What the training came to; a result counts only together with the receipt that it finished."""
    try:
        result = run.result() if evidence.is_finished else None
    except RunDirectoryError:
        result = None  # the metrics' journal has the same values
    if result is None:
        telemetry = read_telemetry(run.metrics_file)
        return vars(telemetry)
    monitored = (result.best or {}).get("metric")
    return {
        "metrics": result.metrics,
        "headline": monitored if monitored in result.metrics else next(iter(result.metrics), None),
        "best": result.best,
        "epoch": result.epoch,
        "global_step": result.global_step,
        "checkpoint": run.path / result.checkpoint,
    }
