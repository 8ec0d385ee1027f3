"""Data parallel training in which every rank has the whole model: torch's `DistributedDataParallel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn
from torch.distributed import Reducer  # type: ignore[attr-defined]  # exported, but by another module
from torch.nn.parallel import DistributedDataParallel

from mtf_trainer.checkpoint.pieces import whole
from mtf_trainer.distributed.parallel import Step
from mtf_trainer.distributed.team import Team

__all__ = ["Replicas"]

CAN_FIX_BUCKETS: Final = hasattr(Reducer, "_push_all_rebuilt_params")
"""Whether this torch can be told the layout of the buckets."""


class _StepModule(nn.Module):
    """Makes a step a forward pass, so that whatever it calls of the model is what torch prepares the reduction for.

    It has the model's parameters, last ones first, which is about the order in which their gradients are there, and
    nothing else of it: buffers are no business of the reduction.
    """

    def __init__(self, model: nn.Module, step: Step) -> None:
        super().__init__()
        self.step = step
        for name, parameter in reversed(list(model.named_parameters())):
            if parameter.requires_grad:
                self.register_parameter(f"model/{name}".replace(".", "/"), parameter)

    def forward(self, batch: Any, batch_idx: int) -> Mapping[str, Any]:
        return self.step(batch, batch_idx)


class Replicas:
    """Keeps the gradients of all ranks the same.

    They are summed up at the end of an accumulation window only. Buffers are each rank's own until a validation, for
    which all take those of the first rank.

    Args:
        model: on its device; the first rank's values are given to all.
        team: all ranks.
        unused_parameters: whether a step may leave parameters out.
    """

    is_sharded = False

    def __init__(self, model: nn.Module, team: Team, *, unused_parameters: bool) -> None:
        self._model = model
        self._team = team
        self._unused_parameters = unused_parameters
        self._ddp: DistributedDataParallel | None = None
        self.syncs = False
        self.is_reduced = False
        team.share_tensors([*model.parameters(), *model.buffers()])

    def training_step(self, step: Step, is_last: Callable[[], bool]) -> Step:
        """See `Parallel.training_step`."""

        def call(batch: Any, batch_idx: int) -> Mapping[str, Any]:
            if self._ddp is None:  # only now it is known which parameters are frozen
                self._ddp = self._wrapped(step)
            self.syncs = self._ddp.require_backward_grad_sync = is_last()
            outputs: Mapping[str, Any] = self._ddp(batch, batch_idx)
            return outputs

        return call

    def _wrapped(self, step: Step) -> DistributedDataParallel:
        ddp = DistributedDataParallel(
            _StepModule(self._model, step), find_unused_parameters=self._unused_parameters or not CAN_FIX_BUCKETS
        )
        if CAN_FIX_BUCKETS and not self._unused_parameters:
            # By itself torch lays the buckets out anew after the first step of a process, and from three ranks on a
            # resumed run would add up in another order than one that went on. Where it is to look for unused
            # parameters, it leaves them as they are.
            ddp.reducer._push_all_rebuilt_params()
            ddp.reducer._rebuild_buckets()
        return ddp

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """See `Parallel.reduce`."""
        if self.is_reduced:
            return
        held = [[parameter.grad is not None for parameter in parameters]]
        anywhere = [any(ranks) for ranks in zip(*self._team.gather(held[0]), strict=True)]
        for parameter, needed in zip(parameters, anywhere, strict=True):
            if needed:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = (self._team.add_up(gradient) / self._team.size).to(parameter.device)
        self.is_reduced = True

    def before_validation(self) -> None:
        """See `Parallel.before_validation`."""
        self._team.share_tensors(self._model.buffers())

    def to_save(self, sections: dict[str, Any]) -> dict[str, Any]:
        """See `Parallel.to_save`."""
        return sections

    def to_load(self, sections: dict[str, Any]) -> dict[str, Any]:
        """See `Parallel.to_load`."""
        made: dict[str, Any] = whole(sections)
        return made

    def local(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Parallel.local`."""
        return tensor
