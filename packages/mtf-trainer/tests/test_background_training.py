"""Training while checkpoints are written in the background: errors of the writer, and steps that edit weights."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mtf_trainer import (
    CheckpointConfig,
    CheckpointError,
    GenericTrainer,
    GenericTrainerConfig,
    TrainingCallback,
)
from mtf_trainer.checkpoint import read_checkpoint


class Fit(GenericTrainer):
    """Regression to the sum of the inputs; may clip its weights in every step."""

    clips = ""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        inputs, targets = batch
        if self.clips == "tracked":
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.clamp_(-0.05, 0.05)
        elif self.clips == "hidden":
            for parameter in self.model.parameters():
                parameter.data.clamp_(-0.05, 0.05)
        return {"loss": nn.functional.mse_loss(self.model(inputs), targets)}


def prepare(folder: Path, *, callbacks: tuple[TrainingCallback, ...] = (), **checkpoint: Any) -> tuple[Fit, Any]:
    settings = CheckpointConfig(
        checkpoint_dir=str(folder), save_every_n_steps=2, save_every_n_epochs=None, **({"keep_last": 100} | checkpoint)
    )
    trainer = Fit(GenericTrainerConfig(epochs=2, seed=1, device="cpu", checkpoint=settings))
    inputs = torch.randn(16, 4)
    loader = DataLoader(TensorDataset(inputs, inputs.sum(dim=1, keepdim=True)), batch_size=2, shuffle=True)
    model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for callback in callbacks:
        trainer.add_callback(callback)
    return trainer, lambda: trainer.fit(model, optimizer, loader)


class Limit(TrainingCallback):
    """From a step on lets no file grow, as a full disk does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_start(self, trainer: GenericTrainer, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (256, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture
def _unlimited() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("_unlimited")
def test_an_error_of_the_writer_ends_training_and_what_was_durable_is_used_next(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    _, train = prepare(tmp_path, callbacks=(Limit(5),))
    with pytest.raises(CheckpointError, match="File too large"):
        train()
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = sorted(tmp_path.glob("ckpt-*"))
    assert left
    assert all(read_checkpoint(path).global_step <= 5 for path in left)
    trainer, train = prepare(tmp_path, callbacks=(Limit(-1),))
    train()
    assert trainer.global_step == 16


def weights_after(folder: Path, **checkpoint: Any) -> tuple[Fit, list[Path]]:
    trainer, train = prepare(folder, **checkpoint)
    trainer.clips = folder.name.split("-")[0]
    train()
    return trainer, sorted(folder.glob("ckpt-*"))


@pytest.mark.parametrize("clips", ["tracked", "hidden"])
def test_steps_that_edit_weights_never_leave_a_wrong_checkpoint(
    tmp_path: Path, clips: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is saved in the background equals what is saved at once, with the setting where edits cannot be seen."""
    at_once, expected = weights_after(tmp_path / f"{clips}-at-once", async_save=False)
    with caplog.at_level(logging.WARNING):
        overlapped, found = weights_after(tmp_path / f"{clips}-overlapped", overlap_copy=clips == "tracked")
    for name, value in at_once.model.state_dict().items():
        assert torch.equal(overlapped.model.state_dict()[name], value)
    by_step = {read_checkpoint(path).global_step: read_checkpoint(path) for path in expected}
    assert len(found) == len(expected) - (clips == "tracked")  # the first one is given up
    for path in found:
        checkpoint = read_checkpoint(path)
        reference = by_step[checkpoint.global_step].sections
        for name, value in reference["model"].items():
            assert torch.equal(checkpoint.sections["model"][name], value), path
        for index, state in reference["optimizer"]["state"].items():
            for key, value in state.items():
                assert torch.equal(checkpoint.sections["optimizer"]["state"][index][key], value), path
    assert ("was written to between two updates" in caplog.text) == (clips == "tracked")
