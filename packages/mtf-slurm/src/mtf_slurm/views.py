"""A run as displays show it; what draws them is elsewhere, so that nothing is loaded that draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mtf_slurm.evidence import Witness
from mtf_slurm.status import JobStatus
from mtf_slurm.telemetry import Telemetry, failure_reason, read_telemetry
from mtf_utils.rundir import RunDirectory

__all__ = ["Display", "RunView", "format_metric", "view_run"]


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One run as a display shows it.

    Attributes:
        name: of the experiment.
        status: its state.
        attempts: how many were claimed.
        reason: why it is in that state, where there is something to say.
        telemetry: how far it is.
    """

    name: str
    status: JobStatus
    attempts: int = 0
    reason: str = ""
    telemetry: Telemetry = field(default_factory=Telemetry)

    @property
    def note(self) -> str:
        """The leading metric, and the reason."""
        name = self.telemetry.headline
        shown = [format_metric(name, self.telemetry.metrics[name])] if name else []
        return "; ".join(shown + ([self.reason] if self.reason else []))


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
    log = run.log_file(evidence.last.number) if evidence.last else None
    return RunView(
        name=run.name,
        status=verdict.status,
        attempts=len(evidence.attempts),
        reason=failure_reason(evidence, verdict, log),
        telemetry=read_telemetry(run.metrics_file),
    )
