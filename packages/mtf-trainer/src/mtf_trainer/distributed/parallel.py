"""What training needs of a strategy by which several ranks train one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

__all__ = ["Parallel", "Step"]

Step = Callable[[Any, int], Mapping[str, Any]]


class Parallel(Protocol):
    """A model that is trained by several ranks.

    Attributes:
        is_sharded: whether each rank has a part of every parameter.
        syncs: whether the backward pass that comes next brings the gradients together.
        is_reduced: whether they are together.
    """

    is_sharded: bool
    syncs: bool
    is_reduced: bool

    def training_step(self, step: Step, is_last: Callable[[], bool]) -> Step:
        """The step as it has to be called.

        Args:
            step: of the user.
            is_last: whether the batch at hand completes its accumulation window.
        """

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """Bring together gradients whose window ended without the batch that was to do it."""

    def before_validation(self) -> None:
        """Have all ranks validate the same model."""

    def to_save(self, sections: dict[str, Any]) -> dict[str, Any]:
        """The sections with what this rank has of every tensor."""

    def to_load(self, sections: dict[str, Any]) -> dict[str, Any]:
        """The sections with tensors such as the model has."""

    def local(self, tensor: torch.Tensor) -> torch.Tensor:
        """What this rank has of a tensor; the memory is the same."""
