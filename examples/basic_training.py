"""Train a small network on handwritten digits: everything that a plain training needs, and nothing more.

    pip install mtf-trainer scikit-learn
    python examples/basic_training.py

Kill it whenever you like and start it again: it goes on where it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from mtf_trainer import CheckpointConfig, GenericTrainer, GenericTrainerConfig, LoggingConfig
from support import load_images, read_options


class DigitsTrainer(GenericTrainer):
    """Classification; the validation does the same without gradients."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Cross entropy and accuracy of a batch."""
        images, labels = batch
        logits = self.model(images)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return {"loss": functional.cross_entropy(logits, labels), "accuracy": accuracy}


def load_digits(*, train: bool) -> TensorDataset:
    """Vectors of 64 pixels in [0, 1], and labels."""
    images, labels = load_images(held_out=300, train=train)
    return TensorDataset(images.flatten(start_dim=1).float() / 16, labels)


def main() -> None:
    """Say how to train, build what is trained, and train it."""
    options = read_options(__doc__, name="basic_training", epochs=10)
    config = GenericTrainerConfig(
        epochs=options.epochs,
        seed=0,
        checkpoint=CheckpointConfig(
            checkpoint_dir=options.checkpoints, save_every_n_steps=20, monitor="val_accuracy", mode="max"
        ),
        logging=LoggingConfig(log_every_n_steps=5),
    )
    trainer = DigitsTrainer(config)  # seeds every random stream: the model comes after it
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=200, gamma=0.5)
    train_loader = DataLoader(load_digits(train=True), batch_size=32, shuffle=True)
    val_loader = DataLoader(load_digits(train=False), batch_size=100)
    trainer.fit(model, optimizer, train_loader, val_loader, scheduler)

    images, labels = load_digits(train=False).tensors
    wrong = (model.eval()(images).argmax(dim=1) != labels).sum().item()
    print(f"{wrong} of {len(labels)} digits that it has never seen are taken for another")


if __name__ == "__main__":
    main()
