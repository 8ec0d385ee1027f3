"""Metrics that are more than a mean: objects that collect over the batches and compute in the end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, runtime_checkable

import torch

from mtf_trainer.attestation import alike
from mtf_trainer.errors import TrainerError

__all__ = ["MetricObject", "MetricObjects", "MetricState", "Stage"]

Stage = Literal["train", "val"]


@runtime_checkable
class MetricObject(Protocol):
    """What torchmetrics' `Metric` and `MetricCollection` are, and any object with these methods."""

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Take a batch; called by the steps of the user."""

    def compute(self) -> Any:
        """The result: a number, a tensor of one element, or a mapping of such by name."""

    def reset(self) -> None:
        """Forget every batch."""

    def state_dict(self) -> Mapping[str, Any]:
        """Everything collected so far."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Put back what `state_dict` returned."""


class MetricObjects:
    """The metric objects of a training, by stage and name."""

    def __init__(self) -> None:
        self._objects: dict[Stage, dict[str, MetricObject]] = {"train": {}, "val": {}}

    def add(self, stage: Stage, name: str, metric: MetricObject) -> None:
        """Add a metric.

        Raises:
            TypeError: it lacks a method.
            TrainerError: the stage is unknown, or the name taken.
        """
        if stage not in self._objects:
            raise TrainerError(f"metric {name!r}: the stage is {stage!r}, expected 'train' or 'val'")
        if isinstance(metric, type):
            raise TypeError(f"metric {name!r}: {metric.__name__} is a class; add an object of it, {metric.__name__}()")
        if not isinstance(metric, MetricObject):
            needed = ("update", "compute", "reset", "state_dict", "load_state_dict")
            lacking = ", ".join(f"{method}()" for method in needed if not hasattr(metric, method))
            raise TypeError(f"metric {name!r}: a {type(metric).__name__} has no {lacking}")
        if name in self._objects[stage]:
            raise TrainerError(f"there is a metric {name!r} for {stage!r} already")
        for part in _parts(metric):  # torchmetrics leaves its states out of the state_dict unless told
            if hasattr(part, "persistent"):
                part.persistent(True)
        self._objects[stage][name] = metric

    def check_shared(self) -> None:
        """See to it that every metric can be computed over the batches of several ranks.

        Raises:
            TrainerError: one does not bring together what the ranks have collected, as those of torchmetrics do.
        """
        for metrics in self._objects.values():
            for name, metric in metrics.items():
                parts = metric.values() if isinstance(metric, Mapping) else [metric]
                if not all(callable(getattr(part, "sync", None)) for part in parts):
                    raise TrainerError(
                        f"the metric {name!r} has no sync(): each rank would compute it over its own batches; use "
                        "one of torchmetrics, or return sums from the steps"
                    )

    def move_to(self, device: torch.device) -> None:
        """Bring those that hold tensors to the device of the batches."""
        for stage in self._objects.values():
            for metric in stage.values():
                if hasattr(metric, "to"):
                    metric.to(device)

    def reset(self, stage: Stage) -> None:
        """Begin anew."""
        for metric in self._objects[stage].values():
            metric.reset()

    def compute(self, stage: Stage) -> dict[str, float]:
        """The results, named as the means are: `val_accuracy`.

        Raises:
            TrainerError: one is not a number.
        """
        results: dict[str, float] = {}
        for name, metric in self._objects[stage].items():
            value = metric.compute()
            parts = value.items() if isinstance(value, Mapping) else [("", value)]
            for part, item in parts:
                key = f"{name}_{part}" if part else name
                results[key if key.startswith(f"{stage}_") else f"{stage}_{key}"] = _number(key, item)
        return results

    def states(self, device: torch.device) -> dict[str, MetricState]:
        """What each one needs in a checkpoint, by stage and name."""
        return {
            f"metric {stage}/{name}": MetricState(metric, device)
            for stage, metrics in self._objects.items()
            for name, metric in metrics.items()
        }


class MetricState:
    """The state of a metric, with the number of its updates, which torchmetrics leaves out of its state.

    Args:
        metric: whose state it is.
        device: of the batches.
    """

    def __init__(self, metric: MetricObject, device: torch.device) -> None:
        self._metric = metric
        self._device = device

    def state_dict(self) -> dict[str, Any]:
        """Everything collected so far."""
        if callable(values := getattr(self._metric, "values", None)):
            list(values())  # a collection computes alike metrics once: asked for, the others catch up
        return {
            "collected": dict(self._metric.state_dict()),
            "updates": [part._update_count for part in self._counting()],
            "results": [dict(_results(part)) for part in self._counting()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` or `merged` returned."""
        self._metric.load_state_dict(OrderedDict(state["collected"]))
        if hasattr(self._metric, "to"):
            self._metric.to(self._device)
        for part, count in zip(self._counting(), state["updates"], strict=True):
            part._update_count = count
        for part, results in zip(self._counting(), state.get("results", ()), strict=False):
            for name, value in results.items():
                setattr(part, name, value.to(self._device))

    def merged(self, states: Sequence[Mapping[str, Any]], *, is_first: bool) -> dict[str, Any]:
        """One rank's share of what other ranks have collected: all of it for the first, and nothing for the others.

        Of a maximum, a minimum or a mean every rank gets that of all; of what nobody knows how to bring together the
        first rank gets its own.

        Args:
            states: of the ranks that were, in their order.
            is_first: whether the share is that of the first rank.
        """
        self._metric.reset()
        fresh, first = self.state_dict(), states[0]
        collected = dict(first["collected"] if is_first else fresh["collected"])
        for name, reduction in self._divided():
            values = [state["collected"][name] for state in states]
            if reduction in _OF_ALL:
                collected[name] = _OF_ALL[reduction](torch.stack([value.to(self._device) for value in values]))
            elif is_first and reduction in _ADDITIVE:
                collected[name] = _ADDITIVE[reduction](values)
            elif reduction == _CHAINED and _is_empty(collected[name]):
                collected[name] = _none_of(values)
        updates = [sum(counts) if is_first else 0 for counts in zip(*(each["updates"] for each in states), strict=True)]
        return {"collected": collected, "updates": updates, "results": first.get("results", [])}

    def emptied_like(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
        """An earlier state that torchmetrics can bring together with that of ranks that have collected more.

        Args:
            before: the state.
            after: a later one, which says what is collected.
        """
        collected = dict(before["collected"])
        for name, reduction in self._divided():
            if reduction == _CHAINED and _is_empty(collected[name]):
                collected[name] = _none_of([after["collected"][name]])
        pairs = zip(before["updates"], after["updates"], strict=True)
        return {**before, "collected": collected, "updates": [count or min(later, 1) for count, later in pairs]}

    def is_lossy(self, states: Sequence[Mapping[str, Any]]) -> bool:
        """Whether `merged` leaves something out that other ranks than the first have collected."""
        self._metric.reset()
        fresh = self.state_dict()["collected"]
        merged = {name for name, reduction in self._divided() if reduction in (*_OF_ALL, *_ADDITIVE)}
        names = fresh.keys() - merged
        return any(not alike(state["collected"][name], fresh[name]) for state in states[1:] for name in names)

    def _divided(self) -> Iterator[tuple[str, str]]:
        """What a metric of torchmetrics collects: its name in the state, and how ranks bring it together."""
        modules = getattr(self._metric, "named_modules", None)
        for prefix, part in modules() if modules is not None else ():
            for name in getattr(part, "_defaults", {}):
                reduction = getattr(part, "_reductions", {}).get(name)
                yield f"{prefix}.{name}".lstrip("."), getattr(reduction, "__name__", "")

    def _counting(self) -> list[Any]:
        return [part for part in _parts(self._metric) if hasattr(part, "_update_count")]


def _chained(values: Sequence[Any]) -> Any:
    return (
        torch.cat(list(values)) if isinstance(values[0], torch.Tensor) else [each for value in values for each in value]
    )


def _is_empty(value: Any) -> bool:
    return isinstance(value, list) and not value


def _none_of(lists: Sequence[list[torch.Tensor]]) -> list[torch.Tensor]:
    """Nothing, in the type and shape of what some rank has: torchmetrics would make up those of an empty list."""
    parts = [part for values in lists for part in values][:1]
    return [(part if part.ndim else part.unsqueeze(0))[:0].clone() for part in parts]


_CHAINED: Final = "dim_zero_cat"
_OF_ALL: Final[dict[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "dim_zero_max": lambda stacked: stacked.amax(dim=0),
    "dim_zero_min": lambda stacked: stacked.amin(dim=0),
    "dim_zero_mean": lambda stacked: stacked.mean(dim=0),
}
"""What is the same when it comes several times, by the names that torchmetrics has for it."""
_ADDITIVE: Final[dict[str, Callable[[Sequence[Any]], Any]]] = {
    "dim_zero_sum": lambda values: torch.stack(list(values)).sum(dim=0),
    _CHAINED: _chained,
}
"""What counts as often as it comes."""


def _parts(metric: Any) -> Iterable[Any]:
    """A metric and those that it wraps."""
    return metric.modules() if hasattr(metric, "modules") else (metric,)


def _results(part: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """What a metric of torchmetrics keeps over several validations, such as the best value, outside of its state."""
    states = getattr(part, "_defaults", {})
    for name, value in vars(part).items():
        if isinstance(value, torch.Tensor) and name not in states and not name.startswith("_"):
            yield name, value


def _number(name: str, value: Any) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value.detach())
    if isinstance(value, int | float) or (hasattr(value, "item") and getattr(value, "size", 0) == 1):
        return float(value)
    found = f"shape {tuple(value.shape)}" if hasattr(value, "shape") else f"a {type(value).__name__}"
    raise TrainerError(
        f"the metric {name!r} computed {found}: a metric is one number or a mapping of numbers; have it averaged, "
        "or compute a number from it in a callback"
    )
