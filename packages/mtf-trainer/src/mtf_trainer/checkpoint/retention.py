"""Which checkpoints are kept: the newest, the best, and the pinned ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeVar

from mtf_trainer.checkpoint.manifest import Manifest

__all__ = ["superseded"]

Key = TypeVar("Key")


def superseded(
    manifests: Mapping[Key, Manifest], *, keep_last: int, save_top_k: int, mode: Literal["min", "max"]
) -> list[Key]:
    """The checkpoints of one run that no rule keeps, oldest first.

    Args:
        manifests: those of the run's checkpoints.
        keep_last: how many of the newest are kept.
        save_top_k: how many of the best by metric are kept; of equal ones the older. NaN is worse than any number.
        mode: whether the smallest or the largest metric is the best.
    """
    by_age = sorted(manifests, key=lambda key: manifests[key].sequence)
    keep = {key for key in by_age if manifests[key].pinned}
    keep.update(by_age[-keep_last:])
    ranked = [key for key in by_age if manifests[key].metric is not None]
    ranked.sort(key=lambda key: _rank(manifests[key].metric, mode))
    keep.update(ranked[:save_top_k])
    return [key for key in by_age if key not in keep]


def _rank(metric: float | None, mode: Literal["min", "max"]) -> float:
    if metric is None or math.isnan(metric):
        return math.inf
    return metric if mode == "min" else -metric
