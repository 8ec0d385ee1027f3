"""A training as a compute node sees it: `mtf-trainer` and a `config.json`, nothing that reads YAML or knows Slurm.

    pip install mtf-trainer scikit-learn
    python train.py --config config.json      or: sbatch job.sh

A launcher that starts this script hands it the same kind of file; `grid_search.py` and `slurm_batch.py` do.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset, random_split

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


def load_splits(run: RunConfig) -> list[Dataset[tuple[torch.Tensor, ...]]]:
    """The training and the validation data: vectors of 64 pixels in [0, 1], and labels."""
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels, dtype=torch.int64))
    held_out = run.data.validation_fraction
    return [*random_split(data, [1 - held_out, held_out], generator=torch.Generator().manual_seed(0))]


def build_model(run: RunConfig) -> nn.Module:
    """A network with one hidden layer: (batch, 64) to (batch, 10)."""
    hidden = run.model.hidden_size
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(run.model.dropout), nn.Linear(hidden, 10))


def classify(trainer: GenericTrainer, batch: Any, batch_idx: int) -> dict[str, Any]:
    """Cross entropy and accuracy of a batch."""
    pixels, labels = batch
    logits = trainer.model(pixels)
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    return {"loss": functional.cross_entropy(logits, labels), "accuracy": accuracy}


def main() -> None:
    """Read the configuration, build what it describes, and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="the run's config.json")
    run = load_run_config(parser.parse_args().config)
    config = GenericTrainerConfig.from_experiment(run)
    trainer = GenericTrainer(config, training_step=classify)  # seeds every random stream: the model comes after it
    model = build_model(run)
    training, validation = load_splits(run)
    train_loader = make_loader(training, run, train=True)
    val_loader = make_loader(validation, run, train=False)
    optimizer = build_optimizer(model, run)
    scheduler = build_scheduler(optimizer, run, total_steps=optimizer_steps(len(train_loader), config))
    trainer.fit(model, optimizer, train_loader, val_loader, scheduler)


if __name__ == "__main__":
    main()
