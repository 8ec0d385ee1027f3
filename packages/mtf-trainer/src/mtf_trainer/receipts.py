"""What a run leaves in its run directory for those who started it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from mtf_trainer.state import ResumeState
from mtf_utils import rundir
from mtf_utils.exits import EXIT_DO_NOT_REQUEUE, EXIT_PREEMPTED
from mtf_utils.rundir import Attempt, FinishReceipt, GoalFile, Outcome, RunResultFile

__all__ = ["current_attempt", "finite", "write_goal", "write_receipt", "write_result"]

STATUSES = {Outcome.PREEMPTED: EXIT_PREEMPTED, Outcome.DO_NOT_REQUEUE: EXIT_DO_NOT_REQUEUE}


def current_attempt() -> Attempt | None:
    """The attempt that this process is; None outside one, where nobody else counts how often it was preempted."""
    run = rundir.current_run()
    return run[1] if run is not None else None


def write_goal(epochs: int, total_steps: int | None) -> None:
    """Say how far training is to go, for whoever watches it; does nothing outside a run directory."""
    run = rundir.current_run()
    if run is not None:
        GoalFile(epochs=epochs, total_steps=total_steps).write(run[0].goal_file)


def write_receipt(outcome: Outcome, reason: str) -> None:
    """Say how this attempt ended, where an exit status may not arrive; does nothing outside an attempt."""
    attempt = current_attempt()
    if attempt is None:
        return
    attempt.path.mkdir(parents=True, exist_ok=True)
    FinishReceipt(
        attempt=attempt.number,
        outcome=outcome,
        exit_status=STATUSES[outcome],
        reason=reason,
        finished_at=rundir.now(),
    ).write(attempt.finished_file)


def write_result(state: ResumeState, *, checkpoint: Path, seed: int, directory: Path) -> None:
    """Write `result.json`, and take back a receipt that an earlier `fit` of this attempt left.

    Args:
        state: of the completed training.
        checkpoint: the final one.
        seed: the one that was used.
        directory: where the file goes outside a run directory.
    """
    run = rundir.current_run()
    folder = run[0].path if run else directory
    relative = checkpoint.relative_to(folder) if checkpoint.is_relative_to(folder) else checkpoint
    RunResultFile(
        epoch=state.epoch,
        global_step=state.global_step,
        metrics=_finite_values(state.epoch_metrics),
        best=state.best,
        checkpoint=str(relative),
        seed=seed,
        finished_at=rundir.now(),
    ).write(run[0].result_file if run else folder / "result.json")
    if run is not None and run[1] is not None:
        run[1].finished_file.unlink(missing_ok=True)


def finite(value: float | None) -> float | None:
    """The value, or None for what JSON does not have."""
    return None if value is None or not math.isfinite(value) else value


def _finite_values(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: finite(value) for name, value in metrics.items()}
