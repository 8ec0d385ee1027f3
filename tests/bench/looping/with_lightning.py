"""Lightning: as lean as it can be, and as it is by default with one logged value."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import nn

from looping.task import CLIP, Job


class Module(L.LightningModule):  # type: ignore[misc,unused-ignore]
    """The training as a module of theirs."""

    def __init__(self, job: Job, *, logs: bool) -> None:
        super().__init__()
        self.job = job
        self.net: nn.Module = job.model()
        self.logs = logs

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.net(**batch)["loss"]
        if self.logs:
            self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = self.job.optimizer(self.net)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.job.scheduler(optimizer), "interval": "step"},
        }


def run_lean(job: Job) -> None:
    """Train with everything off that can be off."""
    _train(
        job,
        logs=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def run_default(job: Job) -> None:
    """Train with what is on by default: the bar, a logger, checkpoints after epochs."""
    _train(job, logs=True)


def _train(job: Job, *, logs: bool, **options: Any) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        gradient_clip_val=CLIP,
        default_root_dir=job.folder,
        **options,
    )
    trainer.fit(Module(job, logs=logs), job.loader())
