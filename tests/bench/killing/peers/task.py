"""The task that all trainers get: what they share, and a trace of what each training step saw."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # the first optimizer that is made imports it, which takes longer than the whole training
from torch import nn
from torch.utils.data import Dataset

from killing.peers.layout import BATCH, EPOCHS, SAVE_EVERY, STEPS, TRAIN_SIZE, VAL_SIZE, WINDOW
from killing.whereabouts import Activity, Whereabouts

__all__ = [
    "BATCH",
    "EPOCHS",
    "SAVE_EVERY",
    "SEED",
    "STEPS",
    "TRAIN_SIZE",
    "VAL_SIZE",
    "WINDOW",
    "Net",
    "Noisy",
    "Watch",
    "make_optimizer",
    "make_scheduler",
    "write_digest",
]

SEED = 3


class Noisy(Dataset[dict[str, torch.Tensor]]):
    """Samples that differ every time they are fetched, through all three global streams."""

    def __init__(self, size: int) -> None:
        source = torch.Generator().manual_seed(5)
        self.inputs = torch.randn(size, 6, generator=source)
        self.targets = self.inputs.sum(dim=1, keepdim=True)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        noise = 0.1 * torch.randn(6) + 0.1 * random.random() + 0.1 * float(np.random.rand())
        return {"ids": torch.tensor(index), "inputs": self.inputs[index] + noise, "targets": self.targets[index]}


class Net(nn.Module):
    """A small regression with dropout that computes its own loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss of a batch; the samples' numbers are for the trace only."""
        predicted = self.layers(inputs)
        return {"loss": nn.functional.mse_loss(predicted, targets), "logits": predicted}


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, as every trainer uses it."""
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def make_scheduler(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """A cosine over the whole run, stepped once an optimizer step."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)


class Watch:
    """Writes the trace, one line a micro-batch, and says where the process stands.

    Args:
        request: `folder`, and `whereabouts` (a file to map, or None).
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._whereabouts = Whereabouts(Path(request["whereabouts"])) if request["whereabouts"] else None
        self._saved = 0
        folder = Path(request["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        self._trace = os.open(folder / "trace.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def train(self, step: int, micro: int, batch: Mapping[str, torch.Tensor], loss: torch.Tensor) -> None:
        """A training loss was computed.

        Args:
            step: optimizer steps taken before it.
            micro: micro-batches of its window before it.
            batch: what it was computed of.
            loss: the loss.
        """
        self._write([step, micro], batch, loss)
        self._move(Activity.ACCUMULATION if micro + 1 < WINDOW else Activity.TRAINING)

    def validate(self, step: int, index: int, batch: Mapping[str, torch.Tensor], loss: torch.Tensor) -> None:
        """A validation loss was computed, of batch number `index` after `step` optimizer steps."""
        self._write([step, -1, index], batch, loss)
        self._move(Activity.VALIDATION)

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """A checkpoint is written in this block."""
        if self._whereabouts is not None:
            self._whereabouts.saving = True
        yield
        self._saved += 1
        if self._whereabouts is not None:
            self._whereabouts.saving = False

    def _move(self, activity: Activity) -> None:
        if self._whereabouts is not None:
            self._whereabouts.move(activity, {"saved": self._saved})

    def _write(self, key: list[int], batch: Mapping[str, torch.Tensor], loss: torch.Tensor) -> None:
        inputs = hashlib.sha256(batch["inputs"].numpy().tobytes()).hexdigest()[:16]
        value = float(loss.detach()).hex()
        line = {"process": os.getpid(), "at": key, "ids": batch["ids"].tolist(), "inputs": inputs, "loss": value}
        os.write(self._trace, json.dumps(line).encode() + b"\n")


def write_digest(folder: Path, model: nn.Module, optimizer: Any, scheduler: Any) -> None:
    """Write what a completed training came to; the trace holds the rest."""
    optimizer = getattr(optimizer, "optimizer", optimizer)
    scheduler = getattr(scheduler, "scheduler", scheduler)
    parts = {
        "weights": [tensor.numpy().tobytes() for tensor in model.state_dict().values()],
        "optimizer": [
            repr(value.tolist())
            for group in optimizer.param_groups
            for parameter in group["params"]
            for _, value in sorted(optimizer.state[parameter].items())
        ],
        "schedule": [optimizer.param_groups[0]["lr"].hex(), scheduler.last_epoch],
    }
    digest = {name: hashlib.sha256(repr(part).encode()).hexdigest() for name, part in parts.items()}
    temporary = folder / "digest.tmp"
    temporary.write_text(json.dumps(digest))
    temporary.rename(folder / "digest.json")
