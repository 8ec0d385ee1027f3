"""Reads the batches of a source in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mtf_trainer.data import DataSource
from mtf_trainer.steps import to_device

__all__ = ["Reader"]


@dataclass(slots=True)
class Reader:
    """Reads batches in order, and opens the source wherever the state says to go on.

    Attributes:
        before_read: called before every batch.
        layout: of tensors with four dimensions; None leaves it as it is.
        is_divided: whether other ranks read other parts of the same batches.
        factor: how much the batch that was read counts among theirs.
    """

    source: DataSource
    device: torch.device
    before_read: Callable[[], None]
    layout: torch.memory_format | None = None
    is_divided: bool = False
    factor: float = 1.0
    _next: tuple[int, int] | None = None

    def go_to(self, epoch: int, batch: int) -> None:
        """Stand before batch number `batch` of `epoch`."""
        if self._next != (epoch, batch):
            self._next = None
            self.source.open(epoch, batch)
            self._next = (epoch, batch)

    def read(self, epoch: int, batch: int) -> Any:
        """Batch number `batch` of `epoch`, on the device."""
        if self._next != (epoch, batch):
            self.go_to(epoch, batch)
        self.before_read()
        try:
            item = self.source.next()
        except BaseException:
            self._next = None
            raise
        self._next = (epoch, batch + 1)
        if self.is_divided:
            self.factor = self.source.factor(epoch, batch)
        stays = self.layout is None and self.device.type == "cpu"
        return item if stays else to_device(item, self.device, self.layout)
