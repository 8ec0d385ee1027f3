"""Sample-weighted means that come out the same wherever a run was interrupted."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch

from mtf_trainer.errors import TrainerError

__all__ = ["Means", "combined", "count_samples", "named", "to_numbers", "to_scalars"]

Scalar = float | torch.Tensor

MOST_PENDING: Final = 256
"""So that memory stays bounded however rarely a sum is asked for."""


class Means:
    """Weighted sums of named scalars, added one after the other in the order of the batches, over one or more periods.

    What is added waits until a sum is asked for: values on an accelerator are fetched all at once, so that adding one
    costs no synchronisation. The sums are Python floats, added in sequence: they do not depend on when that was.

    Args:
        periods: the sums so far of every period; each can begin anew by itself.
    """

    __slots__ = ("_pending", "_periods")

    def __init__(self, *periods: Mapping[str, Iterable[float]]) -> None:
        self._periods: list[dict[str, list[float]]] = [
            {name: list(pair) for name, pair in sums.items()} for sums in periods
        ]
        self._pending: list[tuple[Mapping[str, Scalar], float]] = []

    def add(self, values: Mapping[str, Scalar], weight: float) -> None:
        """Count `values` with `weight`, the number of samples that they are the mean of."""
        self._pending.append((values, weight))
        if len(self._pending) >= MOST_PENDING:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        pending, self._pending = _fetched(self._pending), []
        for values, weight in pending:
            for name, value in values.items():
                amount = value * weight
                for sums in self._periods:
                    pair = sums.get(name)
                    if pair is None:
                        pair = sums[name] = [0.0, 0.0]
                    pair[0] += amount
                    pair[1] += weight

    def means(self, period: int = 0) -> dict[str, float]:
        """The mean of every name so far."""
        self._flush()
        sums = self._periods[period]
        return {name: total / weight if weight else math.nan for name, (total, weight) in sums.items()}

    def copy_sums(self, period: int = 0) -> dict[str, list[float]]:
        """The sums as a value of their own, for the state."""
        self._flush()
        return {name: list(pair) for name, pair in self._periods[period].items()}

    def clear(self, period: int = 0) -> None:
        """Begin a period anew."""
        self._flush()
        self._periods[period] = {}


def _fetched(pending: list[tuple[Mapping[str, Scalar], float]]) -> list[tuple[Mapping[str, float], float]]:
    """The same with numbers in place of tensors; of each device and type they come in one copy."""
    kinds: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for values, _ in pending:
        for value in values.values():
            if type(value) is not float and isinstance(value, torch.Tensor):
                kinds.setdefault((value.device, value.dtype), []).append(value)
    if not kinds:
        return pending  # type: ignore[return-value]  # there is no tensor in it
    numbers = {kind: iter(torch.stack(tensors).tolist()) for kind, tensors in kinds.items()}
    return [
        (
            {
                name: next(numbers[value.device, value.dtype]) if isinstance(value, torch.Tensor) else value
                for name, value in values.items()
            },
            weight,
        )
        for values, weight in pending
    ]


def combined(ranks: Iterable[Mapping[str, Iterable[float]]]) -> dict[str, float]:
    """The means out of the sums of several ranks, added in the order of the ranks."""
    added: dict[str, list[float]] = {}
    for sums in ranks:
        for name, (total, weight) in sums.items():
            pair = added.setdefault(name, [0.0, 0.0])
            pair[0] += total
            pair[1] += weight
    return Means(added).means()


def named(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The values with a prefix before every name that lacks it."""
    return {_name(name, prefix): value for name, value in values.items()}


@functools.lru_cache(maxsize=1024)
def _name(name: str, prefix: str) -> str:
    return name if name.startswith(prefix) else prefix + name


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
        if type(value) is float:
            scalars[name] = value
        elif isinstance(value, torch.Tensor):
            if value.numel() != 1:
                raise TrainerError(
                    f"{step} returned {name!r} with shape {tuple(value.shape)}: a metric is a number or a tensor of "
                    "one element; reduce it, for example with .mean()"
                )
            scalars[name] = value.item() if value.is_cpu else value.detach().reshape(())
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
    if all(type(value) is float for value in outputs.values()) and "num_samples" not in outputs:
        return dict(outputs)
    return {name: float(value) for name, value in to_scalars(outputs, step=step).items()}


def count_samples(outputs: Mapping[str, Any], batch: Any) -> float:
    """The number of samples of a batch: `num_samples` of the outputs, else the first dimension found in the batch."""
    if "num_samples" in outputs:
        return float(outputs["num_samples"])
    first = next(iter(batch.values()), None) if type(batch) is dict else batch  # what nearly all batches are
    return float(first.size(0) if type(first) is torch.Tensor and first.dim() else _first_dimension(batch) or 1)


def _first_dimension(batch: Any) -> int | None:
    shape = getattr(batch, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    if isinstance(batch, dict) or isinstance(batch, Mapping):  # noqa: SIM101 - the first is found out sooner
        items: Iterable[Any] = batch.values()
    elif isinstance(batch, list | tuple):
        items = batch
    elif dataclasses.is_dataclass(batch):
        items = [getattr(batch, item.name) for item in dataclasses.fields(batch)]
    else:
        return None
    for item in items:
        if (size := _first_dimension(item)) is not None:
            return size
    return len(batch) or None
