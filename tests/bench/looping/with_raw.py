"""The loop as one writes it by hand; nothing is logged or saved."""

from __future__ import annotations

from torch import nn

from looping.task import CLIP, Job


def run(job: Job) -> None:
    """Train until the process is ended."""
    model = job.model()
    optimizer = job.optimizer(model)
    scheduler = job.scheduler(optimizer)
    model.train()
    for batch in job.loader():
        loss = model(**batch)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
