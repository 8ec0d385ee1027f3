"""The metric that ranks checkpoints: the best value so far."""

from __future__ import annotations

import math

from mtf_trainer.errors import TrainerError
from mtf_trainer.state import ResumeState
from mtf_utils.sections import CheckpointConfig

__all__ = ["compare_with_best"]


def compare_with_best(state: ResumeState, settings: CheckpointConfig) -> None:
    """Bring the monitored value of the validation that just ended, and the best one so far, into the state.

    Raises:
        TrainerError: validation does not give the metric by which checkpoints are to be kept.
    """
    if settings.monitor not in state.val_metrics and settings.save_top_k:
        known = ", ".join(sorted(state.val_metrics)) or "none"
        raise TrainerError(
            f"checkpoint.monitor is {settings.monitor!r}, but validation gives: {known}; "
            "monitor one of these, or set save_top_k=0"
        )
    value = state.metric = state.val_metrics.get(settings.monitor)
    if value is None or math.isnan(value):
        return
    best = None if state.best is None else state.best["value"]
    if best is None or (value < best if settings.mode == "min" else value > best):
        place = {"epoch": state.epoch, "global_step": state.global_step}
        state.best = {"metric": settings.monitor, "value": value, **place}
