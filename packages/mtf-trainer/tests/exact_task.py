"""A small training task that uses everything whose state can be lost, and a digest of all that came of it.

As a script it trains until it is done or killed: `python exact_task.py FOLDER [--workers N] [--precision P]`.
When training is complete it writes FOLDER/digest.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mtf_trainer import (
    EMA,
    CheckpointConfig,
    EarlyStopping,
    GenericTrainer,
    GenericTrainerConfig,
    GradientNorm,
    LearningRateMonitor,
    LoggingConfig,
    ModelSummary,
    Profiler,
    Throughput,
    TrainingCallback,
)
from mtf_utils.rundir import WALL_CLOCK_FIELDS, read_metrics


class Noisy(Dataset):
    """Samples that differ every time they are fetched, through all three global streams."""

    def __init__(self, size: int) -> None:
        source = torch.Generator().manual_seed(5)
        self.inputs = torch.randn(size, 6, generator=source)
        self.targets = self.inputs.sum(dim=1, keepdim=True)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = 0.1 * torch.randn(6) + 0.1 * random.random() + 0.1 * float(np.random.rand())
        return self.inputs[index] + noise, self.targets[index]


class Trace(TrainingCallback):
    """Remembers every event in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[str] = []

    def on_training_start(self, trainer: GenericTrainer) -> None:
        self.events.append("training_start")

    def on_training_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
        self.events.append(f"training_end {sorted(logs.items())}")

    def on_epoch_start(self, trainer: GenericTrainer, epoch: int) -> None:
        self.events.append(f"epoch_start {epoch} {trainer.global_step}")

    def on_epoch_end(self, trainer: GenericTrainer, epoch: int, logs: dict[str, Any]) -> None:
        self.events.append(f"epoch_end {epoch} {sorted(logs.items())}")

    def on_batch_start(self, trainer: GenericTrainer, batch_idx: int) -> None:
        self.events.append(f"batch_start {batch_idx}")

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        self.events.append(f"batch_end {batch_idx} {float(logs['loss'])!r}")

    def on_validation_start(self, trainer: GenericTrainer) -> None:
        self.events.append("validation_start")

    def on_validation_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
        self.events.append(f"validation_end {sorted(logs.items())}")

    def on_checkpoint(self, trainer: GenericTrainer) -> None:
        self.events.append(f"checkpoint {trainer.global_step}")

    def state_dict(self) -> dict[str, Any]:
        return {"events": list(self.events)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.events = list(state["events"])


class Sum(Trace):
    """A callback that needs few events and draws random numbers of its own."""

    on_batch_start = TrainingCallback.on_batch_start
    on_training_start = TrainingCallback.on_training_start

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        self.events.append(f"{torch.rand(()).item()!r}")


class LargestError:
    """A metric that is no mean, as torchmetrics has them."""

    def __init__(self) -> None:
        self.reset()

    def update(self, errors: torch.Tensor) -> None:
        self.largest = torch.maximum(self.largest, errors.detach().abs().max())

    def compute(self) -> torch.Tensor:
        return self.largest

    def reset(self) -> None:
        self.largest = torch.zeros(())

    def state_dict(self) -> dict[str, Any]:
        return {"largest": self.largest}

    def load_state_dict(self, state: Any) -> None:
        self.largest = state["largest"]


class Pictures(TrainingCallback):
    """Logs a number and an image of its own after every validation."""

    def on_validation_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
        trainer.log_metrics({"weight": trainer.model[0].weight[0, 0]})
        trainer.log_image("weights", trainer.model[0].weight.sigmoid())


class Regression(GenericTrainer):
    """Fits the sum of the inputs."""

    errors: dict[str, LargestError] | None = None

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        inputs, targets = batch
        outputs = self.model(inputs).float()
        loss = nn.functional.mse_loss(outputs, targets)
        if self.errors is not None:
            self.errors["train" if self.model.training else "val"].update(outputs - targets)
        return {"loss": loss, "scale": random.random()}

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return {"loss": self.training_step(batch, batch_idx)["loss"]}


def build_model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def configure(folder: Path, *, precision: str = "fp32", **changes: Any) -> GenericTrainerConfig:
    settings: dict[str, Any] = {
        "epochs": 3,
        "gradient_accumulation_steps": 4,
        "max_grad_norm": 0.5,
        "precision": precision,
        "validate_every_n_steps": 2,
        "seed": 3,
        "checkpoint": CheckpointConfig(checkpoint_dir=str(folder / "checkpoints"), save_every_n_steps=2),
        "logging": LoggingConfig(log_every_n_steps=1, log_level="WARNING"),
    }
    return GenericTrainerConfig(**(settings | changes))


def prepare(
    folder: Path, *, workers: int = 0, persistent: bool = False, stock: bool = False, **changes: Any
) -> tuple[Regression, Any]:
    """A trainer with its callbacks, and what to call to train."""
    trainer = Regression(configure(folder, **changes))
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9)
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": persistent and workers > 0}
    train = DataLoader(Noisy(22), batch_size=2, shuffle=True, **options)
    val = DataLoader(Noisy(6), batch_size=3, **options)
    trainer.add_callback(Trace("first"))
    trainer.add_callback(Sum("second"))
    if stock:
        add_stock(trainer)
    return trainer, lambda: trainer.fit(model, optimizer, train, val, scheduler)


def add_stock(trainer: Regression) -> None:
    """Everything that the trainer has ready for use; training ends early, in the middle of the last epoch."""
    for callback in (
        EMA(0.9),
        EarlyStopping("val_largest", patience=4, min_delta=1.0),
        LearningRateMonitor(momentum=True, weight_decay=True),
        GradientNorm(),
        Throughput(),
        Profiler(start_step=4, num_steps=1),
        ModelSummary(),
        Pictures(),
    ):
        trainer.add_callback(callback)
    trainer.errors = {"train": LargestError(), "val": LargestError()}
    for stage, metric in trainer.errors.items():
        trainer.add_metric("largest", metric, stage=stage)


def digest(trainer: GenericTrainer) -> dict[str, str]:
    """SHA-256 of every part of what a completed run left."""
    parts: dict[str, Any] = {
        "weights": [(name, _bytes(value)) for name, value in trainer.model.state_dict().items()],
        "optimizer": [
            (key, _bytes(value))
            for group in trainer.optimizer.param_groups
            for parameter in group["params"]
            for key, value in sorted(trainer.optimizer.state[parameter].items())
        ],
        "scheduler": sorted((key, repr(value)) for key, value in trainer.scheduler.state_dict().items()),
        "python": random.getstate(),
        "numpy": [repr(item.tolist() if isinstance(item, np.ndarray) else item) for item in np.random.get_state()],
        "torch": _bytes(torch.get_rng_state()),
        "metrics": [
            {key: value for key, value in record.items() if key not in WALL_CLOCK_FIELDS}
            for record in read_metrics(trainer.directory / "metrics.jsonl")
        ],
        "callbacks": [callback.events for callback in trainer.callbacks if isinstance(callback, Trace)],
        "averages": [
            (callback.updates, name, _bytes(value))
            for callback in trainer.callbacks
            if isinstance(callback, EMA)
            for name, value in callback.weights.items()
        ],
        "media": [(path.name, path.read_bytes()) for path in sorted((trainer.directory / "media").glob("*"))],
    }
    return {name: hashlib.sha256(repr(part).encode()).hexdigest() for name, part in parts.items()}


def _bytes(value: Any) -> bytes:
    value = value.to_local() if hasattr(value, "to_local") else value  # of a model that is divided among ranks
    return value.detach().contiguous().view(torch.uint8).numpy().tobytes() if value.dim() else repr(value).encode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trainer, train = prepare(arguments.folder, workers=arguments.workers, precision=arguments.precision)
    train()
    (arguments.folder / "digest.json").write_text(json.dumps(digest(trainer)))


if __name__ == "__main__":
    main()
