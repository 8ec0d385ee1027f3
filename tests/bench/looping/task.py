"""Two trainings to compare loops by, and the gate at which every process waits for its turn."""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

__all__ = ["BATCH", "CLIP", "STEPS_A_TURN", "TASKS", "Gate", "Job", "RaceIsOver"]

TASKS: Final = ("tiny MLP", "small transformer")
BATCH: Final = {"tiny MLP": 32, "small transformer": 16}
STEPS_A_TURN: Final = {"tiny MLP": 20, "small transformer": 10}
"""Whole numbers of what lies between two records of ours, so that every turn has as many."""

CLIP: Final = 1.0
VOCABULARY: Final = 256
TOKENS: Final = 64
WIDTH: Final = 128
DISTINCT: Final = 1024


class RaceIsOver(BaseException):
    """Ends a training that would go on for long."""


class Gate:
    """Lets a process train a turn at a time, and times it.

    The model passes it at the beginning of every forward pass, so a turn has the same number of whole steps in every
    loop, whatever a framework does before and after.
    """

    def __init__(self, driver: Connection, steps: int) -> None:
        self._driver = driver
        self._steps = steps
        self._left = 0
        self._since = self._cpu_since = 0.0

    def turn(self) -> None:
        """Count a step; after the last one of a turn, report it and wait for the next."""
        if self._left == 0:
            self._driver.send((time.perf_counter() - self._since, time.process_time() - self._cpu_since))
            if not self._driver.recv():
                raise RaceIsOver
            self._left = self._steps
            self._cpu_since, self._since = time.process_time(), time.perf_counter()
        self._left -= 1


class Gated(nn.Module):
    """A model that computes its own loss, as everyone's can."""

    def __init__(self, gate: Gate, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.gate = gate

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        self.gate.turn()
        return {"loss": self.loss(self.body(x), y)}

    def loss(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if y.dtype is torch.int64:
            return nn.functional.cross_entropy(outputs.flatten(0, 1), y.flatten())
        return nn.functional.mse_loss(outputs, y)


class Encoder(nn.Module):
    """Two transformer blocks with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        block = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.1, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.blocks(self.embedding(x)))
        return outputs


class Examples(Dataset[dict[str, torch.Tensor]]):
    """As many as wanted, of which only the first are distinct."""

    def __init__(self, task: str, size: int) -> None:
        source = torch.Generator().manual_seed(1)
        self._size = size
        if task == "tiny MLP":
            self._x = torch.randn(DISTINCT, 32, generator=source)
            self._y = self._x.sum(dim=1, keepdim=True)
        else:
            text = torch.randint(VOCABULARY, (DISTINCT, TOKENS + 1), generator=source)
            self._x, self._y = text[:, :-1], text[:, 1:]

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self._x[index % DISTINCT], "y": self._y[index % DISTINCT]}


@dataclass(frozen=True)
class Job:
    """What one process is to train.

    Attributes:
        task: one of `TASKS`.
        steps: how many it has to be ready for.
        folder: where it may write.
        gate: where it waits.
    """

    task: str
    steps: int
    folder: Path
    gate: Gate

    @property
    def batch(self) -> int:
        """Examples in a batch."""
        return BATCH[self.task]

    def model(self) -> nn.Module:
        """The model, equal in every process."""
        torch.manual_seed(0)
        if self.task == "tiny MLP":
            return Gated(
                self.gate, nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
            )
        return Gated(self.gate, Encoder())

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW as it is by default."""
        return torch.optim.AdamW(model.parameters(), lr=1e-3)

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """Cosine, a step of it with every step of the optimizer."""
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.steps)

    def data(self) -> Dataset[Any]:
        """Enough for a single epoch."""
        return Examples(self.task, self.steps * self.batch)

    def loader(self) -> DataLoader[Any]:
        """Shuffled, without workers."""
        return DataLoader(self.data(), batch_size=self.batch, shuffle=True)
