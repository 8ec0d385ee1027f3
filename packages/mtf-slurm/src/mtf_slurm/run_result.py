"""One run of a sweep as results tell it: what was asked, how it stands, what it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
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
        last_attempt: the number of the last one; None without one.
        metrics: the last epoch's metrics of a finished training, else the last ones recorded; None stands for NaN.
        headline: the metric to show where there is room for one; None without any.
        best: metric, value, epoch and global_step of the best validation, if training is complete and had one.
        epoch: epochs completed, or the one that the last record is of, counted from 1.
        global_step: optimizer steps taken, or the step of the last record.
        path: the folder of the run.
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
    last_attempt: int | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    headline: str | None = None
    best: Mapping[str, Any] | None = None
    epoch: int | None = None
    global_step: int | None = None
    path: Path
    checkpoint: Path | None = None
    job_id: str | None = None

    @cached_property
    def log(self) -> Path | None:
        """The output of the last attempt; None if there is none. Looked for when it is asked for."""
        if self.last_attempt is None:
            return None
        file = RunDirectory(self.path).log_file(self.last_attempt)
        return file if file.exists() else None


def read_run(witness: Witness, entry: Mapping[str, Any]) -> RunResult:
    """One run, from its entry in `sweep.json` and what is known of it."""
    name = entry["name"]
    run = witness.directory.run(name)
    evidence, verdict = witness.verdict(name, brief=True)
    hold = None if verdict.may_change else hold_of(run, evidence)
    return RunResult(
        name=name,
        grid=entry["grid"],
        parameters=entry["parameters"],
        identity=entry["identity"],
        status=verdict.status,
        reason=failure_reason(evidence, verdict, run),
        held=hold.reason if hold else "",
        may_change=verdict.may_change,
        attempts=len(evidence.attempts),
        last_attempt=evidence.last.number if evidence.last else None,
        path=run.path,
        job_id=witness.job_id(name),
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
