"""The Trainer of transformers as it is by default, but for periodic checkpoints, of which it makes none here."""

from __future__ import annotations

from torch.utils.data import default_collate
from transformers import Trainer, TrainingArguments

from looping.task import CLIP, Job


def run(job: Job) -> None:
    """Train until the process is ended."""
    model = job.model()
    optimizer = job.optimizer(model)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(job.folder),
            use_cpu=True,
            num_train_epochs=1,
            per_device_train_batch_size=job.batch,
            max_grad_norm=CLIP,
            save_strategy="no",
            remove_unused_columns=False,
            report_to=[],
        ),
        train_dataset=job.data(),
        data_collator=default_collate,
        optimizers=(optimizer, job.scheduler(optimizer)),
    )
    trainer.train()
