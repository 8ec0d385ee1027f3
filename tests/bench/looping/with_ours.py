"""Our trainer with everything on: journal, bar, means, throughput, checkpoint store, signals."""

from __future__ import annotations

from typing import Any

from looping.task import CLIP, Job
from mtf_trainer import (
    CheckpointConfig,
    GenericTrainer,
    GenericTrainerConfig,
    LearningRateMonitor,
    LoggingConfig,
    Throughput,
)


class Trainer(GenericTrainer):
    """Takes the loss that the model computes."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return {"loss": self.model(**batch)["loss"]}


def run(job: Job) -> None:
    """Train until the process is ended."""
    trainer = Trainer(
        GenericTrainerConfig(
            epochs=1,
            max_grad_norm=CLIP,
            seed=0,
            checkpoint=CheckpointConfig(checkpoint_dir=str(job.folder)),
            logging=LoggingConfig(progress="bar"),
        )
    )
    trainer.add_callback(Throughput())
    trainer.add_callback(LearningRateMonitor())
    model = job.model()
    optimizer = job.optimizer(model)
    trainer.fit(model, optimizer, job.loader(), scheduler=job.scheduler(optimizer))
