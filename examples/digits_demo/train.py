"""Train a small convolutional network on handwritten digits: one run of the demo's sweep.

Nothing in here knows of preemption, checkpoints or resuming: that is the trainer's business.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset

from mtf_trainer import (
    GenericTrainer,
    GenericTrainerConfig,
    RunConfig,
    build_optimizer,
    build_scheduler,
    load_run_config,
    make_loader,
    optimizer_steps,
)


class Digits(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Digits as images of shape (1, 8, 8) in [0, 1] and labels; a training image is shifted at random."""

    def __init__(self, run: RunConfig, *, train: bool) -> None:
        images, labels = load_digits(return_X_y=True)
        self.images = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        self.labels = torch.tensor(labels, dtype=torch.int64)
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(0))
        split = int(len(order) * run.data.validation_fraction)
        self.indices = order[split:].repeat(run.data.shifts) if train else order[:split]
        self.train = train

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        index = self.indices[position]
        image = self.images[index]
        if self.train:
            down, right = torch.randint(-1, 2, (2,)).tolist()
            image = image.roll((down, right), dims=(1, 2))
        return image, self.labels[index]


def build_model(run: RunConfig) -> nn.Module:
    """Two convolutions and a linear layer: (batch, 1, 8, 8) to (batch, 10)."""
    channels = run.model.channels
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.BatchNorm2d(2 * channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(run.model.dropout),
        nn.Linear(8 * channels, 10),
    )


class DigitsTrainer(GenericTrainer):
    """Classification."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Cross entropy and accuracy of a batch."""
        images, labels = batch
        logits = self.model(images)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return {"loss": nn.functional.cross_entropy(logits, labels), "accuracy": accuracy}


def main() -> None:
    """Read the configuration, build what it describes, and train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True, help="the run's config.json")
    run = load_run_config(parser.parse_args().config)
    config = GenericTrainerConfig.from_experiment(run)
    trainer = DigitsTrainer(config)  # seeds every random stream: build the model after it
    model = build_model(run)
    train_loader = make_loader(Digits(run, train=True), run, train=True)
    val_loader = make_loader(Digits(run, train=False), run, train=False)
    optimizer = build_optimizer(model, run)
    scheduler = build_scheduler(optimizer, run, total_steps=optimizer_steps(len(train_loader), config))
    trainer.fit(model, optimizer, train_loader, val_loader, scheduler)


if __name__ == "__main__":
    main()
