"""The task with our trainer: `fit`, and the same command again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from killing.ours import observe
from killing.peers import task
from killing.whereabouts import Whereabouts
from mtf_trainer import CheckpointConfig, GenericTrainer, GenericTrainerConfig


class Traced(GenericTrainer):
    """Traces every loss."""

    watch: task.Watch

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        loss = self.model(**batch)["loss"]
        self.watch.train(self.global_step, batch_idx % task.WINDOW, batch, loss)
        return {"loss": loss}

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        loss = self.model(**batch)["loss"]
        self.watch.validate(self.global_step, batch_idx, batch, loss)
        return {"loss": loss}


def run(request: dict[str, Any]) -> None:
    """Train until training is complete or the process is stopped."""
    folder = Path(request["folder"])
    if request["whereabouts"]:
        observe(Whereabouts(Path(request["whereabouts"])))
    torch.set_num_threads(1)
    trainer = Traced(
        GenericTrainerConfig(
            epochs=task.EPOCHS,
            gradient_accumulation_steps=task.WINDOW,
            max_grad_norm=0.5,
            seed=task.SEED,
            checkpoint=CheckpointConfig(
                checkpoint_dir=str(folder / "checkpoints"), save_every_n_steps=task.SAVE_EVERY, save_every_n_epochs=None
            ),
        )
    )
    trainer.watch = task.Watch(request | {"whereabouts": None})
    model = task.Net()
    optimizer = task.make_optimizer(model)
    scheduler = task.make_scheduler(optimizer)
    options: dict[str, Any] = {"batch_size": task.BATCH, "num_workers": request["workers"]}
    trainer.fit(
        model,
        optimizer,
        DataLoader(task.Noisy(task.TRAIN_SIZE), shuffle=True, **options),
        DataLoader(task.Noisy(task.VAL_SIZE), **options),
        scheduler,
    )
    task.write_digest(folder, model, optimizer, scheduler)
