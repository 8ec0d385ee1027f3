"""Training in which every rank has a part of the model, the gradients and the optimizer's state: torch's FSDP2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from mtf_trainer.checkpoint.pieces import Whole, is_piece, mapped
from mtf_trainer.distributed.parallel import Step
from mtf_trainer.distributed.team import Team
from mtf_trainer.errors import CheckpointError

__all__ = ["Sharded"]


class Sharded:
    """A model whose parameters are divided by rows, and together only while they are needed.

    The layers of every `ModuleList` and `Sequential` come together one at a time, and the rest with the model. The
    gradients of every micro-batch are summed up and divided at once, so that no rank ever has all of them.

    Args:
        model: on its device; the first rank's values are given to all. It stays the same object.
        team: all ranks.
    """

    is_sharded = True

    def __init__(self, model: nn.Module, team: Team) -> None:
        self._model = model
        self._team = team
        self.syncs = self.is_reduced = True
        team.share_tensors([*model.parameters(), *model.buffers()])
        device = next(model.parameters()).device
        self._mesh = init_device_mesh(device.type, (team.size,))
        for layer in _layers(model):
            fully_shard(layer, mesh=self._mesh)
        fully_shard(model, mesh=self._mesh)

    def training_step(self, step: Step, is_last: Callable[[], bool]) -> Step:
        """See `Parallel.training_step`: the model itself does what has to be done."""
        return step

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """See `Parallel.reduce`: they always are together."""

    def before_validation(self) -> None:
        """See `Parallel.before_validation`."""
        self._team.share_tensors(self._model.buffers())

    def to_save(self, sections: dict[str, Any]) -> dict[str, Any]:
        """See `Parallel.to_save`."""
        taken: dict[str, Any] = mapped(
            sections, lambda value: _piece_of(value) if isinstance(value, DTensor) else value
        )
        return taken

    def to_load(self, sections: dict[str, Any]) -> dict[str, Any]:
        """See `Parallel.to_load`."""
        made: dict[str, Any] = mapped(sections, self._tensor)
        return made

    def local(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Parallel.local`."""
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor

    def _tensor(self, value: Any) -> Any:
        if isinstance(value, Whole):
            return distribute_tensor(value.tensor, self._mesh, [Shard(0)], src_data_rank=None)
        if is_piece(value):
            shape = torch.Size(value["shape"])
            stride = torch.empty(shape, device="meta").stride()
            local = value["piece"].to(self._mesh.device_type)
            return DTensor.from_local(local, self._mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)
        return value


def _piece_of(tensor: DTensor) -> dict[str, Any]:
    """This rank's piece of a tensor.

    Raises:
        CheckpointError: it is divided in another way than by rows.
    """
    if tuple(tensor.placements) != (Shard(0),):
        raise CheckpointError(f"a tensor is laid out as {tensor.placements}: only those divided by rows can be saved")
    local, mesh = tensor.to_local(), tensor.device_mesh
    each = -(-tensor.shape[0] // mesh.size())  # as torch.chunk does: the last ones may have fewer rows, or none
    start = min(mesh.get_local_rank() * each, tensor.shape[0])
    return {"shape": list(tensor.shape), "rows": [start, start + local.shape[0]], "piece": local}


def _layers(model: nn.Module) -> list[nn.Module]:
    """What is brought together at a time, the innermost first."""
    containers = [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    layers = dict.fromkeys(layer for container in containers for layer in container if layer is not model)
    with_parameters = [layer for layer in layers if next(layer.parameters(), None) is not None]
    return [layer for layer in reversed(with_parameters) if not isinstance(layer, nn.ModuleList)]
