"""The task with Accelerate: `save_state` into step_N, resumed with `load_state` and `skip_first_batches`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from killing.peers import task


def run(request: dict[str, Any]) -> None:
    """Train until training is complete or the process is stopped."""
    folder = Path(request["folder"])
    torch.set_num_threads(1)
    directory = folder / "checkpoints"
    directory.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=task.WINDOW, step_scheduler_with_optimizer=True)
    set_seed(task.SEED)
    net = task.Net()
    adam = task.make_optimizer(net)
    options: dict[str, Any] = {"batch_size": task.BATCH, "num_workers": request["workers"]}
    model, optimizer, loader, val, scheduler = accelerator.prepare(
        net,
        adam,
        DataLoader(task.Noisy(task.TRAIN_SIZE), shuffle=True, **options),
        DataLoader(task.Noisy(task.VAL_SIZE), **options),
        task.make_scheduler(adam),
    )
    train(accelerator, model, optimizer, loader, val, scheduler, directory, task.Watch(request))
    task.write_digest(folder, accelerator.unwrap_model(model), optimizer, scheduler)


def train(
    accelerator: Any, model: Any, optimizer: Any, loader: Any, val: Any, scheduler: Any, directory: Path, watch: Any
) -> None:
    """The loop of their checkpointing example."""
    overall = 0
    if found := sorted(directory.iterdir(), key=lambda path: path.stat().st_ctime):
        accelerator.load_state(str(found[-1]))
        overall = int(found[-1].name.removeprefix("step_"))
    starting_epoch, resume_step = divmod(overall, len(loader))
    for epoch in range(starting_epoch, task.EPOCHS):
        model.train()
        resumes = epoch == starting_epoch and resume_step > 0
        batches = accelerator.skip_first_batches(loader, resume_step) if resumes else loader
        for batch in batches:
            with accelerator.accumulate(model):
                loss = model(**batch)["loss"]
                watch.train(overall // task.WINDOW, overall % task.WINDOW, batch, loss)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            overall += 1
            if overall % (task.SAVE_EVERY * task.WINDOW) == 0:
                with watch.saving():
                    accelerator.save_state(str(directory / f"step_{overall}"))
        validate(model, val, overall // task.WINDOW, watch)


def validate(model: Any, val: Any, step: int, watch: Any) -> None:
    """Go through the validation data."""
    model.eval()
    with torch.no_grad():
        for index, batch in enumerate(val):
            watch.validate(step, index, batch, model(**batch)["loss"])
