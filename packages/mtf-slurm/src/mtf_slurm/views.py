"""A run as displays show it; what draws them is elsewhere, so that nothing is loaded that draws nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mtf_slurm.evidence import Witness
from mtf_slurm.pace import Goal, Pace, duration, pace_of, took_s
from mtf_slurm.status import JobStatus
from mtf_slurm.telemetry import Telemetry, failure_reason, read_records, telemetry_of
from mtf_utils.rundir import RunDirectory

__all__ = ["Display", "RunView", "format_metric", "left_of_all", "view_run"]


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One run as a display shows it.

    Attributes:
        name: of the experiment.
        status: its state.
        attempts: how many were claimed.
        reason: why it is in that state, where there is something to say.
        telemetry: how far it is.
        goal: how far it is to go.
        pace: how fast it goes, while it is at work.
        took_s: how long it took, once it has finished.
    """

    name: str
    status: JobStatus
    attempts: int = 0
    reason: str = ""
    telemetry: Telemetry = field(default_factory=Telemetry)
    goal: Goal = field(default_factory=Goal)
    pace: Pace = field(default_factory=Pace)
    took_s: float | None = None

    @property
    def epoch(self) -> str:
        """The epoch, and of how many: `3/10`; empty before the first."""
        return _part_of(self.telemetry.epoch, self.goal.epochs)

    @property
    def step(self) -> str:
        """The optimizer step, and of how many where that is known; empty before the first record."""
        return _part_of(self.telemetry.global_step, self.pace.total_steps)

    @property
    def metric(self) -> str:
        """The leading metric: `val_loss 0.1234`; empty without one."""
        name = self.telemetry.headline
        return format_metric(name, self.telemetry.metrics[name]) if name else ""

    def left(self, now: float | None = None) -> str:
        """The time that is left: `1:05`; empty if that is not known, or over."""
        left_s = self.pace.left_s(now)
        return duration(left_s) if left_s else ""


def left_of_all(runs: Iterable[RunView], now: float | None = None) -> float | None:
    """Seconds until all are done, about: from what is left of those at work and how long runs take; None if unknown.

    Args:
        runs: as they stand; as many go on side by side as are at work.
        now: seconds since 1970; None is now.
    """
    runs, now = list(runs), time.time() if now is None else now
    paces = [run.pace for run in runs if run.status is JobStatus.RUNNING]
    left = [left_s for pace in paces if (left_s := pace.left_s(now)) is not None]
    if not left or len(left) < len(paces):
        return None
    lengths = [run.took_s for run in runs if run.took_s is not None]
    lengths += [now - pace.began_at + left_s for pace, left_s in zip(paces, left, strict=True) if pace.began_at]
    waiting = sum(run.status is JobStatus.PENDING for run in runs)
    return max(*left, (sum(left) + waiting * sum(lengths) / max(1, len(lengths))) / len(left))


def _part_of(value: int | None, whole: int | None) -> str:
    if value is None:
        return ""
    return str(value) if whole is None else f"{value}/{whole}"


def format_metric(name: str, value: float | None) -> str:
    """A metric as people read it: `val_loss 0.1234`."""
    return f"{name} {'nan' if value is None else format(value, '.5g')}"


class Display(Protocol):
    """Shows the runs while they go on."""

    def update(self, runs: Sequence[RunView]) -> None:
        """Show how the runs stand now."""

    def say(self, text: str) -> None:
        """Show one line that stays."""

    def close(self) -> None:
        """Show the last state and leave the terminal in order."""


def view_run(witness: Witness, run: RunDirectory) -> RunView:
    """A run as a display shows it."""
    evidence, verdict = witness.verdict(run.name)
    goal, records = Goal.of(run), read_records(run.metrics_file)
    started = evidence.last.started if evidence.last and verdict.status is JobStatus.RUNNING else None
    return RunView(
        name=run.name,
        status=verdict.status,
        attempts=len(evidence.attempts),
        reason=failure_reason(evidence, verdict, run),
        telemetry=telemetry_of(records, goal.monitor),
        goal=goal,
        pace=pace_of(records, goal, started),
        took_s=took_s(evidence.attempts) if verdict.status is JobStatus.COMPLETED else None,
    )
