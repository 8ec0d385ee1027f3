"""The results of a sweep, read from its folder, in any process."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from mtf_slurm import export
from mtf_slurm.errors import SLURMError
from mtf_slurm.evidence import Witness
from mtf_slurm.status import Evidence, JobStatus
from mtf_slurm.telemetry import failure_reason, read_telemetry
from mtf_utils.names import nearest
from mtf_utils.rundir import RunDirectory, RunDirectoryError, SweepDirectory

if TYPE_CHECKING:
    from mtf_config import ExecutionMode

__all__ = ["GridSearchResult", "RunResult", "read_run"]


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
        attempts: how many attempts were started.
        metrics: the last epoch's metrics of a finished training, else the last ones recorded; None stands for NaN.
        headline: the metric to show where there is room for one; None without any.
        best: metric, value, epoch and global_step of the best validation, if training is complete and had one.
        epoch: epochs completed, or the epoch of the last record.
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


class GridSearchResult:
    """The runs of a sweep as they stood at the last `refresh`.

    Args:
        output_dir: the folder of the sweep.
        unnoted: why the launcher gave runs up, by token and name, where the disk took no note of it.

    Raises:
        SLURMError: there is no sweep in that folder.

    Attributes:
        output_dir: the folder of the sweep.
        name: of the sweep.
        mode: how it was last submitted; None if it never was.
        runs: the runs, in the order of the sweep.
        orphaned: the names of runs that an earlier form of the sweep asked for; their folders are still there.
    """

    def __init__(
        self, output_dir: str | os.PathLike[str], *, unnoted: Mapping[tuple[str, str], str] | None = None
    ) -> None:
        self.output_dir = Path(output_dir).absolute()
        self._unnoted = dict(unnoted or {})
        self.name = ""
        self.mode: ExecutionMode | None = None
        self.runs: tuple[RunResult, ...] = ()
        self.orphaned: tuple[str, ...] = ()
        self.refresh()

    @classmethod
    def load(cls, output_dir: str | os.PathLike[str]) -> Self:
        """The results in a folder, whoever started the sweep.

        Raises:
            SLURMError: there is no sweep in that folder.
        """
        return cls(output_dir)

    def refresh(self) -> Self:
        """Read the folder again."""
        directory = SweepDirectory(self.output_dir)
        sweep = directory.sweep()
        if sweep is None:
            raise SLURMError(f"{self.output_dir}: there is no sweep here (no {directory.sweep_file.name})")
        witness = Witness.look(directory)
        witness.unnoted |= self._unnoted
        self.name = sweep.name
        self.mode = max(witness.latest.values(), key=lambda item: item.token).mode if witness.latest else None
        self.runs = tuple(read_run(witness, entry) for entry in sweep.runs if not entry.get("orphaned"))
        self.orphaned = tuple(entry["name"] for entry in sweep.runs if entry.get("orphaned"))
        return self

    def wait(
        self,
        timeout_s: float | None = None,
        *,
        poll_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Self:
        """Wait until no run is at work or waits its turn.

        Args:
            timeout_s: how long at most; None is no limit.
            poll_s: seconds between two looks.
            clock: a monotonic clock, in seconds.
            sleep: waits for some seconds.

        Raises:
            TimeoutError: some run is still active.
        """
        start = clock()
        while active := [run.name for run in self.runs if run.status.is_active]:
            if timeout_s is not None and clock() - start >= timeout_s:
                raise TimeoutError(f"{len(active)} runs are still active after {timeout_s} s, such as {active[0]}")
            sleep(poll_s)
            self.refresh()
        return self

    def __iter__(self) -> Iterator[RunResult]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, name: str) -> RunResult:
        for run in self.runs:
            if run.name == name:
                return run
        guess = nearest(name, [run.name for run in self.runs])
        raise KeyError(f"{name!r} is no run of {self.output_dir}" + (f"; did you mean {guess!r}?" if guess else ""))

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status.value}" for status, count in self.counts.items())
        return f"<GridSearchResult {self.name!r}: {len(self)} runs ({counts}) in {str(self.output_dir)!r}>"

    @property
    def counts(self) -> dict[JobStatus, int]:
        """How many runs are in which state; states without runs are left out."""
        return dict(sorted(Counter(run.status for run in self.runs).items()))

    @property
    def is_complete(self) -> bool:
        """Whether every run has finished."""
        return all(run.status is JobStatus.COMPLETED for run in self.runs)

    def failures(self) -> dict[str, str]:
        """Why runs failed, were lost or could not be started, by name.

        The exception's last line in the log, else what the receipt says, else what the launcher said.
        """
        bad = (JobStatus.FAILED, JobStatus.LOST, JobStatus.UNKNOWN)
        refused = (run.status is JobStatus.NOT_SUBMITTED and run.reason for run in self.runs)
        return {run.name: run.reason for run, no in zip(self.runs, refused, strict=True) if no or run.status in bad}

    def leaderboard(
        self, metric: str, mode: Literal["min", "max"] = "min", *, top: int | None = None, unfinished: bool = False
    ) -> list[RunResult]:
        """The runs from best to worst by the last value of a metric; runs without a number for it are left out.

        Args:
            metric: such as `val_loss`.
            mode: whether the smallest or the largest is the best.
            top: how many at most; None is all.
            unfinished: whether runs that have not finished take part, with the last value recorded.

        Raises:
            SLURMError: the mode is unknown, or no run that takes part has the metric.
        """
        if mode not in ("min", "max"):
            raise SLURMError(f"mode={mode!r}: expected 'min' or 'max'")
        taking_part = [run for run in self.runs if unfinished or run.status is JobStatus.COMPLETED]
        ranked = [(value, run) for run in taking_part if (value := _number(run, metric)) is not None]
        if not ranked:
            raise SLURMError(self._why_no_metric(metric, taking_part))
        ranked.sort(key=lambda item: item[0] if mode == "min" else -item[0])
        return [run for _, run in ranked[:top]]

    def best(self, metric: str, mode: Literal["min", "max"] = "min") -> RunResult:
        """The finished run with the best last value of a metric.

        Raises:
            SLURMError: the mode is unknown, or no finished run has the metric.
        """
        return self.leaderboard(metric, mode, top=1)[0]

    def _why_no_metric(self, metric: str, runs: list[RunResult]) -> str:
        if not runs:
            return f"{self.output_dir}: no run has finished yet"
        known = sorted({name for run in runs for name in run.metrics})
        guess = nearest(metric, known)
        hint = f"did you mean {guess!r}?" if guess and guess != metric else f"there are: {', '.join(known) or 'none'}"
        return f"no run has a number for the metric {metric!r}; {hint}"

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a table with one line a run and return its path."""
        return export.write_csv(Path(path), export.rows(self.runs))

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write everything that is known of the runs and return the file's path."""
        return export.write_json(Path(path), self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Everything that is known of the runs, as plain data."""
        return {
            "name": self.name,
            "output_dir": str(self.output_dir),
            "mode": self.mode.value if self.mode else None,
            "counts": {status.value: count for status, count in self.counts.items()},
            "runs": [export.run_to_dict(run) for run in self.runs],
            "orphaned": list(self.orphaned),
        }

    def to_dataframe(self) -> Any:
        """The table as a pandas DataFrame.

        Raises:
            SLURMError: pandas is not installed.
        """
        return export.to_dataframe(export.rows(self.runs))


def _number(run: RunResult, metric: str) -> float | None:
    value = run.metrics.get(metric)
    return value if value is not None and not math.isnan(value) else None


def read_run(witness: Witness, entry: Mapping[str, Any]) -> RunResult:
    """One run, from its entry in `sweep.json` and what is known of it."""
    run = witness.directory.run(entry["name"])
    evidence, verdict = witness.verdict(run.name)
    submission = witness.latest.get(run.name)
    log = run.log_file(evidence.last.number) if evidence.last else None
    return RunResult(
        name=run.name,
        grid=entry["grid"],
        parameters=entry["parameters"],
        identity=entry["identity"],
        status=verdict.status,
        reason=failure_reason(evidence, verdict, log),
        attempts=len(evidence.attempts),
        path=run.path,
        log=log if log is not None and log.exists() else None,
        job_id=submission.job_id(run.name) if submission else None,
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
        return dataclasses.asdict(telemetry)
    monitored = (result.best or {}).get("metric")
    return {
        "metrics": result.metrics,
        "headline": monitored if monitored in result.metrics else next(iter(result.metrics), None),
        "best": result.best,
        "epoch": result.epoch,
        "global_step": result.global_step,
        "checkpoint": run.path / result.checkpoint,
    }
