"""The task with Lightning: `ModelCheckpoint` with `save_last`, resumed by `fit(ckpt_path="last")`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from killing.peers import task


class Module(L.LightningModule):  # type: ignore[misc]
    """The task as a module of theirs."""

    def __init__(self, watch: task.Watch) -> None:
        super().__init__()
        self.net = task.Net()
        self.watch = watch

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.net(**batch)["loss"]
        self.watch.train(self.trainer.global_step, batch_idx % task.WINDOW, batch, loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss = self.net(**batch)["loss"]
        self.watch.validate(self.trainer.global_step, batch_idx, batch, loss)
        self.log("val_loss", loss)

    def configure_optimizers(self) -> Any:
        optimizer = task.make_optimizer(self.net)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": task.make_scheduler(optimizer), "interval": "step"},
        }


class Announced(ModelCheckpoint):  # type: ignore[misc]
    """Says when it writes."""

    watch: task.Watch

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        with self.watch.saving():
            super()._save_checkpoint(trainer, filepath)

    def _save_last_checkpoint(self, trainer: Any, monitor_candidates: Any) -> None:
        with self.watch.saving():
            super()._save_last_checkpoint(trainer, monitor_candidates)


def run(request: dict[str, Any]) -> None:
    """Train until training is complete or the process is stopped."""
    folder = Path(request["folder"])
    torch.set_num_threads(1)
    L.seed_everything(task.SEED, workers=True, verbose=False)
    watch = task.Watch(request)
    saver = Announced(
        dirpath=folder / "checkpoints",
        every_n_train_steps=task.SAVE_EVERY,
        save_last=True,
        save_on_exception=request["careful"],
    )
    saver.watch = watch
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=task.EPOCHS,
        accumulate_grad_batches=task.WINDOW,
        gradient_clip_val=0.5,
        deterministic=True,
        callbacks=[saver],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    module = Module(watch)
    options: dict[str, Any] = {"batch_size": task.BATCH, "num_workers": request["workers"]}
    trainer.fit(
        module,
        DataLoader(task.Noisy(task.TRAIN_SIZE), shuffle=True, **options),
        DataLoader(task.Noisy(task.VAL_SIZE), **options),
        ckpt_path="last",
    )
    if trainer.global_step == task.STEPS:  # after SIGTERM it returns as if all were done
        task.write_digest(folder, module.net, trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler)
