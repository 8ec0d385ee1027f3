"""Accelerate: the loop by hand, its parts prepared."""

from __future__ import annotations

from accelerate import Accelerator

from looping.task import CLIP, Job


def run(job: Job) -> None:
    """Train until the process is ended."""
    accelerator = Accelerator(cpu=True)
    model = job.model()
    optimizer = job.optimizer(model)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, job.loader(), job.scheduler(optimizer))
    model.train()
    for batch in loader:
        loss = model(**batch)["loss"]
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
