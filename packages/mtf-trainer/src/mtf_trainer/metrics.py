"""Sample-weighted means that come out the same wherever a run was interrupted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from mtf_trainer.errors import TrainerError

__all__ = ["Means", "count_samples", "to_numbers", "to_scalars"]

Scalar = float | torch.Tensor


class Means:
    """Weighted sums of named scalars, added one after the other in the order of the batches.

    Values on an accelerator are kept as they are until `flush`, so that adding one costs no synchronisation. The sums
    are Python floats, added in sequence: they do not depend on when `flush` was called.
    """

    __slots__ = ("_pending", "sums")

    def __init__(self, sums: Mapping[str, Iterable[float]] | None = None) -> None:
        self.sums: dict[str, list[float]] = {name: list(pair) for name, pair in (sums or {}).items()}
        self._pending: list[tuple[Mapping[str, Scalar], float]] = []

    def add(self, values: Mapping[str, Scalar], weight: float) -> None:
        """Count `values` with `weight`, the number of samples that they are the mean of."""
        self._pending.append((values, weight))
        if len(self._pending) >= 256:
            self.flush()

    def flush(self) -> None:
        """Bring what is pending into `sums`."""
        pending, self._pending = self._pending, []
        for values, weight in pending:
            for name, value in values.items():
                pair = self.sums.setdefault(name, [0.0, 0.0])
                pair[0] += float(value) * weight
                pair[1] += weight

    def means(self) -> dict[str, float]:
        """The mean of every name so far."""
        self.flush()
        return {name: total / weight if weight else math.nan for name, (total, weight) in self.sums.items()}

    def copy_sums(self) -> dict[str, list[float]]:
        """The sums as a value of their own, for the state."""
        self.flush()
        return {name: list(pair) for name, pair in self.sums.items()}

    def clear(self) -> None:
        """Begin anew."""
        self.sums = {}
        self._pending = []


def to_scalars(outputs: Mapping[str, Any], *, step: str) -> dict[str, Scalar]:
    """The metrics among the outputs of a step: numbers, and tensors of one element (detached).

    `num_samples` is not a metric. On the CPU tensors become floats; elsewhere they stay where they are.

    Raises:
        TrainerError: a value is neither a number nor a tensor of one element.
    """
    scalars: dict[str, Scalar] = {}
    for name, value in outputs.items():
        if name == "num_samples":
            continue
        if isinstance(value, torch.Tensor):
            if value.numel() != 1:
                raise TrainerError(
                    f"{step} returned {name!r} with shape {tuple(value.shape)}: a metric is a number or a tensor of "
                    "one element; reduce it, for example with .mean()"
                )
            value = value.detach()
            scalars[name] = value.item() if value.device.type == "cpu" else value.reshape(())
        elif isinstance(value, int | float):
            scalars[name] = float(value)
        elif hasattr(value, "item") and getattr(value, "size", 0) == 1:  # a NumPy scalar or array of one
            scalars[name] = float(value.item())
        else:
            raise TrainerError(
                f"{step} returned {name!r} as {type(value).__name__}: a metric is a number or a tensor of one element"
                + ("; hand the object to trainer.add_metric, once" if hasattr(value, "compute") else "")
            )
    return scalars


def to_numbers(outputs: Mapping[str, Any], *, step: str) -> dict[str, float]:
    """The same as plain floats; waits for an accelerator that holds one."""
    return {name: float(value) for name, value in to_scalars(outputs, step=step).items()}


def count_samples(outputs: Mapping[str, Any], batch: Any) -> float:
    """The number of samples of a batch: `num_samples` of the outputs, else the first dimension found in the batch."""
    if "num_samples" in outputs:
        return float(outputs["num_samples"])
    return float(_first_dimension(batch) or 1)


def _first_dimension(batch: Any) -> int | None:
    shape = getattr(batch, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    if isinstance(batch, Mapping):
        batch = batch.values()
    elif dataclasses.is_dataclass(batch):
        batch = [getattr(batch, item.name) for item in dataclasses.fields(batch)]
    elif not isinstance(batch, list | tuple):
        return None
    items = list(batch)
    for item in items:
        if (size := _first_dimension(item)) is not None:
            return size
    return len(items) or None
