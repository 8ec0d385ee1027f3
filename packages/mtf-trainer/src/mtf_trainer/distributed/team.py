"""The processes that train together, seen from one of them: what they tell each other between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from mtf_trainer.checkpoint.publishing import Crew

__all__ = ["Team"]

T = TypeVar("T")


class Team:
    """A process that trains alone, and the interface to all others.

    Every method that concerns the others has to be called by all ranks, in the same order.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
        local_rank: its number on its node.
    """

    rank = 0
    size = 1
    local_rank = 0

    @property
    def is_first(self) -> bool:
        """Whether this rank speaks for all: it logs, and what exists once is written by it."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """What every rank gave, in the order of the ranks; plain JSON."""
        return [value]

    def share_tensors(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give every rank the first rank's values."""

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in host memory."""
        return tensor.detach().cpu()

    def crew(self) -> Crew | None:
        """Those who save together with this process."""
        return None

    def on_first(self, work: Callable[[], T]) -> T | None:
        """Have the first rank do something, and the others wait until it is done.

        Returns:
            What came of it; None on the other ranks.

        Raises:
            TrainerError: it failed, here or on the first rank.
        """
        return work()
