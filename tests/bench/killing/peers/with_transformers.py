"""The task with the Trainer of transformers: `save_steps`, resumed from `get_last_checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from killing.peers import task


class Traced(Trainer):  # type: ignore[misc]
    """Traces every loss, and says when a checkpoint is written."""

    watch: task.Watch
    _position = (-1, 0)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **others: Any) -> Any:
        outputs = model(**inputs)
        step = self.state.global_step
        kind = step if model.training else -1 - step
        number = self._position[1] + 1 if self._position[0] == kind else 0
        self._position = (kind, number)
        (self.watch.train if model.training else self.watch.validate)(step, number, inputs, outputs["loss"])
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        with self.watch.saving():
            super()._save_checkpoint(*arguments, **named)


def run(request: dict[str, Any]) -> None:
    """Train until training is complete or the process is stopped."""
    folder = Path(request["folder"])
    torch.set_num_threads(1)
    set_seed(task.SEED)
    directory = folder / "checkpoints"
    model = task.Net()
    optimizer = task.make_optimizer(model)
    trainer = Traced(
        model=model,
        args=TrainingArguments(
            output_dir=str(directory),
            use_cpu=True,
            num_train_epochs=task.EPOCHS,
            per_device_train_batch_size=task.BATCH,
            per_device_eval_batch_size=task.BATCH,
            gradient_accumulation_steps=task.WINDOW,
            max_grad_norm=0.5,
            save_strategy="steps",
            save_steps=task.SAVE_EVERY,
            eval_strategy="epoch",
            dataloader_num_workers=request["workers"],
            remove_unused_columns=False,
            label_names=["targets"],
            seed=task.SEED,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=task.Noisy(task.TRAIN_SIZE),
        eval_dataset=task.Noisy(task.VAL_SIZE),
        optimizers=(optimizer, task.make_scheduler(optimizer)),
    )
    trainer.watch = task.Watch(request)
    last = get_last_checkpoint(str(directory)) if directory.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    task.write_digest(folder, model, trainer.optimizer, trainer.lr_scheduler)
