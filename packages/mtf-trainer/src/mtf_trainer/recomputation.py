"""Activation checkpointing: activations that are computed again in the backward pass, instead of being kept for it."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mtf_trainer.errors import TrainerError

__all__ = ["checkpoint_activations", "is_recomputed", "stop_recomputing"]

Choice = Sequence[str] | Callable[[str, nn.Module], bool]
"""Class names and patterns of modules' names, or a function of a module's name and the module."""


def checkpoint_activations(model: nn.Module, which: Choice) -> list[str]:
    """Let modules keep their inputs only, and compute everything inside once more when the backward pass comes there.

    The results are the same, bit for bit: random streams and buffers, such as running statistics, are as they were
    when the module runs again. The modules stay the same objects with the same names; only their `forward` is
    replaced. Inside a chosen module no further one is chosen.

    Args:
        model: changed.
        which: names of classes (`TransformerEncoderLayer`), patterns of the names that modules have in the model
            (`blocks.*`), or a function that takes such a name and the module.

    Returns:
        The names of the chosen modules.

    Raises:
        TrainerError: there are none.
    """
    chosen: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in chosen)
        if name and not inside and _is_chosen(which, name, module):
            chosen.append(name)
            if not is_recomputed(module):
                module.forward = functools.partial(_recomputed, module, module.forward)
    if not chosen:
        classes = ", ".join(sorted({_class_name(module) for name, module in model.named_modules() if name})) or "none"
        wanted = "the function" if callable(which) else ", ".join(which)
        raise TrainerError(f"activation checkpointing: {wanted} chooses no module; the model has the classes {classes}")
    return chosen


def is_recomputed(module: nn.Module) -> bool:
    """Whether `checkpoint_activations` has chosen this very module."""
    forward = module.__dict__.get("forward")
    return isinstance(forward, functools.partial) and forward.func is _recomputed


def stop_recomputing(model: nn.Module, chosen: Sequence[str]) -> None:
    """Undo `checkpoint_activations`: each module has the `forward` that it had, be it its class's or its own."""
    for name in chosen:
        module = model.get_submodule(name)
        if is_recomputed(module):
            before = module.__dict__.pop("forward").args[1]
            if before != types.MethodType(type(module).forward, module):
                module.forward = before


def _is_chosen(which: Choice, name: str, module: nn.Module) -> bool:
    if callable(which):
        return which(name, module)
    return any(_class_name(module) == each or fnmatch.fnmatchcase(name, each) for each in which)


def _class_name(module: nn.Module) -> str:
    """As the code of the model has it: a module that FSDP has divided is of a class derived from that."""
    found, bases = type(module), type(module).__bases__
    return (bases[-1] if bases[0].__name__ == "FSDPModule" else found).__name__


def _recomputed(module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    if not module.training or next(module.buffers(), None) is None:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    buffers = list(module.buffers())
    before = [buffer.clone() for buffer in buffers]
    contexts = functools.partial(_contexts, buffers, before)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(buffers: list[torch.Tensor], before: list[torch.Tensor]) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _lent(buffers, before)


@contextlib.contextmanager
def _lent(buffers: list[torch.Tensor], values: list[torch.Tensor]) -> Iterator[None]:
    """Buffers that moved in the forward pass have the values from before it, so that they do not move twice."""
    after = [buffer.clone() for buffer in buffers]
    _copy(buffers, values)
    try:
        yield
    finally:
        _copy(buffers, after)


@torch.no_grad()
def _copy(buffers: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
