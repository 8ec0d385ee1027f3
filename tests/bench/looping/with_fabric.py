"""Lightning's Fabric: the loop by hand, its parts wrapped."""

from __future__ import annotations

from lightning.fabric import Fabric

from looping.task import CLIP, Job


def run(job: Job) -> None:
    """Train until the process is ended."""
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    model = job.model()
    wrapped, optimizer = fabric.setup(model, job.optimizer(model))
    scheduler = job.scheduler(optimizer)
    wrapped.train()
    for batch in fabric.setup_dataloaders(job.loader()):
        loss = wrapped(**batch)["loss"]
        fabric.backward(loss)
        fabric.clip_gradients(wrapped, optimizer, max_norm=CLIP)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
