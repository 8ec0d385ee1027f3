"""Whole tensors of a checkpoint, marked to be divided among the ranks as those are of the run that takes them up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from mtf_trainer.checkpoint.pieces import Whole
from mtf_trainer.errors import CheckpointError
from mtf_trainer.preparation import plain_state
from mtf_trainer.steps import Engine

__all__ = ["to_divide"]


def to_divide(
    sections: Mapping[str, Any], engine: Engine, live: Callable[[], Mapping[str, Any]], *, source: str
) -> dict[str, Any]:
    """The sections of a checkpoint of whole tensors, with those marked of which every rank now has a part.

    Args:
        sections: `model`, `optimizer` and `training`.
        engine: its model is divided.
        live: gives the section `training` of this run as it is.
        source: where the sections are from, for errors.

    Raises:
        CheckpointError: the optimizer's state cannot be divided.
    """
    training, model, now = sections["training"], plain_state(engine.model), live()
    parts = {name for name, value in model.items() if isinstance(value, DTensor)}
    gradients = [None if each is None else Whole(each) for each in training["engine"]["gradients"]]
    marked = {name: _marked(training[name], now[name], parts) for name in ("callbacks", "registered")}
    return {
        "model": _marked(sections["model"], model, parts),
        "optimizer": _optimizer(sections["optimizer"], engine.parameters(), source),
        "training": {**training, **marked, "engine": {**training["engine"], "gradients": gradients}},
    }


def _marked(saved: Any, live: Any, parts: set[str], key: str = "") -> Any:
    """What is divided in the run as it is; where that has nothing yet, what is called as a divided parameter is."""
    if isinstance(saved, torch.Tensor):
        is_part = isinstance(live, DTensor) if isinstance(live, torch.Tensor) else key in parts
        return Whole(saved) if is_part else saved
    if isinstance(saved, dict):
        held = live if isinstance(live, Mapping) else {}
        return {name: _marked(value, held.get(name), parts, str(name)) for name, value in saved.items()}
    if type(saved) is list:
        items = live if isinstance(live, list) and len(live) == len(saved) else [None] * len(saved)
        return [_marked(value, item, parts) for value, item in zip(saved, items, strict=True)]
    return saved


def _optimizer(saved: Mapping[str, Any], parameters: list[nn.Parameter], source: str) -> dict[str, Any]:
    indices = [index for group in saved["param_groups"] for index in group["params"]]
    state = dict(saved["state"])
    for index, parameter in zip(indices, parameters, strict=False):  # another number of them is told of later
        if index in state:
            state[index] = dict(_of_parameter(state[index], parameter, source))
    return {**saved, "state": state}


def _of_parameter(state: Mapping[str, Any], parameter: nn.Parameter, source: str) -> Iterator[tuple[str, Any]]:
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            yield name, Whole(value)
        elif not isinstance(value, torch.Tensor) or value.numel() == 1:
            yield name, value
        else:
            raise CheckpointError(
                f"{source}: the optimizer's {name!r} of shape {list(value.shape)} belongs to a parameter of shape "
                f"{list(parameter.shape)}, and cannot be divided among the ranks: go on without "
                "distributed.strategy='fsdp', or begin a new run with load_weights"
            )
