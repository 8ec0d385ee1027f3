"""Train one model in several processes: a convolutional network on digits, each rank with a part of the data.

    pip install mtf-trainer scikit-learn
    torchrun --standalone --nproc-per-node 2 examples/ddp.py
    srun --ntasks 2 python examples/ddp.py          on a cluster
    python examples/ddp.py                          the same in one process, with batches half as large in all

Nothing in here knows how many processes there are. Tell any of them, or torchrun, to stop: all save one checkpoint
together and end; the same command goes on from there. With another number of processes it goes on, too, and says what
is no longer exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from mtf_trainer import CheckpointConfig, DistributedConfig, GenericTrainer, GenericTrainerConfig, LoggingConfig
from mtf_utils import get_logger
from support import load_images, read_options

BATCH_SIZE = 16  # of every rank


class DigitsTrainer(GenericTrainer):
    """Classification; a step has the batch of its rank, and what is recorded is the mean over all ranks."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Cross entropy and accuracy of a batch."""
        images, labels = batch
        logits = self.model(images)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return {"loss": functional.cross_entropy(logits, labels), "accuracy": accuracy}


def load_digits(*, train: bool) -> TensorDataset:
    """All images of shape (1, 8, 8) in [0, 1], and their labels; the trainer gives each rank its share of them."""
    images, labels = load_images(held_out=300, train=train)
    return TensorDataset(images[:, None].float() / 16, labels)


def build_model() -> nn.Module:
    """Two convolutions and a linear layer: (batch, 1, 8, 8) to (batch, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),  # every rank draws random numbers of its own
        nn.Linear(128, 10),
    )


def main() -> None:
    """Train; the ranks meet in `fit`."""
    options = read_options(__doc__, name="ddp", epochs=6)
    config = GenericTrainerConfig(
        epochs=options.epochs,
        seed=0,
        distributed=DistributedConfig(strategy="auto", timeout_minutes=2),
        checkpoint=CheckpointConfig(checkpoint_dir=options.checkpoints, save_every_n_steps=20),
        logging=LoggingConfig(log_every_n_steps=5),
    )
    trainer = DigitsTrainer(config)  # seeds every random stream: the model comes after it
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    train_loader = DataLoader(load_digits(train=True), batch_size=BATCH_SIZE, shuffle=True)
    val_loader = DataLoader(load_digits(train=False), batch_size=100)
    trainer.fit(model, optimizer, train_loader, val_loader)
    get_logger(__name__).info("every rank is here; the first one says so")  # from the others only warnings are heard


if __name__ == "__main__":
    main()
