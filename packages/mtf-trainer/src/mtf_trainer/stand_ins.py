"""Batches that only stand in: at an epoch's end there may be none left for a rank, and the others wait for it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mtf_trainer.metric_objects import MetricState
from mtf_trainer.reader import Reader

__all__ = ["uncounted", "without_stand_ins"]

Step = Callable[[Any, int], Mapping[str, Any]]


def without_stand_ins(step: Step, reader: Reader | None, metrics: Sequence[MetricState]) -> Step:
    """A step after which metric objects have collected nothing of batches that only stand in.

    Args:
        step: of the user; updates the metric objects.
        reader: read the batch.
        metrics: all of them.
    """
    if reader is None or not metrics:
        return step

    def call(batch: Any, batch_idx: int) -> Mapping[str, Any]:
        with contextlib.nullcontext() if reader.factor else uncounted(metrics):
            return step(batch, batch_idx)

    return call


@contextlib.contextmanager
def uncounted(metrics: Sequence[MetricState]) -> Iterator[None]:
    """Have metric objects forget what the block shows to them."""
    before = [(metric, copy.deepcopy(metric.state_dict())) for metric in metrics]
    yield
    for metric, state in before:
        metric.load_state_dict(metric.emptied_like(state, metric.state_dict()))
