"""Folders of checkpoints, for blocks of the documentation that begin where somebody has trained: `trained FOLDER...`.

Each is that of a small training of 160 steps, saved every 20, with averaged weights and a metric that is monitored.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mtf_trainer import EMA, CheckpointConfig, GenericTrainer, GenericTrainerConfig, LoggingConfig


def square_error(trainer, batch, batch_idx):
    inputs, targets = batch
    return {"loss": (trainer.model(inputs) - targets).square().mean()}


def train(folder, seed):
    config = GenericTrainerConfig(
        epochs=1,
        seed=seed,
        validate_every_n_steps=40,
        checkpoint=CheckpointConfig(
            checkpoint_dir=folder, monitor="val_loss", save_every_n_steps=20, keep_last=20, async_save=False
        ),
        logging=LoggingConfig(progress="off", log_level="WARNING"),
    )
    trainer = GenericTrainer(config, training_step=square_error)
    trainer.add_callback(EMA(0.9))
    inputs = torch.randn(1280, 8)
    data = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    trainer.fit(model, optimizer, DataLoader(data, batch_size=8, shuffle=True), DataLoader(data, batch_size=64))


for number, path in enumerate(sys.argv[1:]):
    train(path, seed=number)
