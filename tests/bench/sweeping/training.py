"""A small training with the real trainer, one run of a sweep; says so if it is not the only one in its folder."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from mtf_trainer import (
    GenericTrainer,
    GenericTrainerConfig,
    build_optimizer,
    build_scheduler,
    load_run_config,
    make_loader,
    optimizer_steps,
)

FOLDER = Path(os.environ["MTF_RUN_DIR"])


class Regression(GenericTrainer):
    """Takes `custom_params.pace_s` seconds for a step, so that it can be met at work."""

    pace_s = 0.0

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """The mean squared error of a batch."""
        time.sleep(self.pace_s)
        inputs, targets = batch
        return {"loss": nn.functional.mse_loss(self.model(inputs), targets)}


def main() -> None:
    """Train what the configuration describes."""
    run = load_run_config(sys.argv[2])
    config = GenericTrainerConfig.from_experiment(run)
    trainer = Regression(config)
    trainer.pace_s = run.custom_params.pace_s
    inputs = torch.randn(96, 8, generator=torch.Generator().manual_seed(3))
    data = TensorDataset(inputs, inputs.sin().sum(dim=1, keepdim=True))
    width = run.model.hidden_size
    model = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Dropout(0.2), nn.Linear(width, 1))
    optimizer = build_optimizer(model, run)
    loader = make_loader(data, run, train=True)
    schedule = build_scheduler(optimizer, run, total_steps=optimizer_steps(len(loader), config))
    trainer.fit(model, optimizer, loader, make_loader(data, run, train=False), schedule)


if __name__ == "__main__":
    with (FOLDER / "only.lock").open("w") as only:
        try:
            fcntl.flock(only, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            (FOLDER / "two-at-once").touch()
            raise
        main()
