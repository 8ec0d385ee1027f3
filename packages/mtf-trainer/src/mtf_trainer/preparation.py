"""What a model is given for the time of a training: a memory layout, recomputed activations, compiled code.

None of it shows in a checkpoint: names of state are those of the model as it was written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import nn

from mtf_trainer.compiling import compilation
from mtf_trainer.recomputation import checkpoint_activations, is_recomputed, stop_recomputing
from mtf_utils.sections import PerformanceConfig

__all__ = ["load_plain_state", "memory_format", "original", "plain_name", "plain_state", "prepared"]

_WRAPPERS: Final = frozenset({"_orig_mod", "_checkpoint_wrapped_module"})
"""What `torch.compile` and torch's checkpoint wrapper call the module inside."""


def plain_name(name: str) -> str:
    """The name of a module or a tensor without what wrappers around modules add to it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def plain_state(model: nn.Module) -> dict[str, Any]:
    """The state of a model under the names that it has without wrappers; the tensors are the live ones."""
    return {plain_name(name): value for name, value in model.state_dict().items()}


def load_plain_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Put back what `plain_state` returned, also if it was that of a model with other wrappers."""
    model.load_state_dict({name: state[plain_name(name)] for name in model.state_dict()})


def original(model: nn.Module) -> nn.Module:
    """The module that `torch.compile` was given; any other as it is."""
    inside: nn.Module = getattr(model, "_orig_mod", model)
    return inside


def memory_format(performance: PerformanceConfig) -> torch.memory_format | None:
    """The layout of four-dimensional weights and batches; None leaves it as it is."""
    return torch.channels_last if performance.channels_last else None


@contextlib.contextmanager
def prepared(model: nn.Module, performance: PerformanceConfig) -> Iterator[None]:
    """Have activations recomputed and the model compiled, as configured, within this block.

    A model that comes compiled stays as it is. Compiled is the call of the model, in place: it stays the same object
    with the same names.

    Raises:
        TrainerError: no module is called what `activation_checkpointing` says.
    """
    with contextlib.ExitStack() as stack:
        inside = original(model)
        if performance.activation_checkpointing:
            before = {name for name, module in inside.named_modules() if is_recomputed(module)}
            chosen = checkpoint_activations(inside, performance.activation_checkpointing)
            stack.callback(stop_recomputing, inside, [name for name in chosen if name not in before])
        options = compilation(performance)
        if options is not None and inside is model:
            uncompiled = model._compiled_call_impl
            model.compile(**options)
            stack.callback(setattr, model, "_compiled_call_impl", uncompiled)
        yield
