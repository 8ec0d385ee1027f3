"""What counts as another run when one is continued: what is said, not how much of it."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from mtf_trainer import CheckpointError, GenericTrainer, GenericTrainerConfig, build_optimizer, make_loader
from mtf_trainer.fingerprint import compare

SHORT: dict[str, Any] = {
    "model": {"name": "line"},
    "training": {"epochs": 1},
    "optimizer": {"name": "sgd"},
    "scheduler": {"name": "linear"},
    "seed": 1,
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The configuration with one value more, or another."""
    run = copy.deepcopy(SHORT)
    section, _, key = path.partition(".")
    run.setdefault(section, {})[key] = value
    return run


def train(folder: Path, run: dict[str, Any]) -> GenericTrainer:
    config = GenericTrainerConfig.from_experiment(run | {"checkpoint": {"checkpoint_dir": str(folder)}})
    trainer = GenericTrainer(config, training_step=lambda trainer, batch, _: {"loss": trainer.model(batch[0]).mean()})
    model = nn.Linear(3, 1)
    trainer.fit(model, build_optimizer(model, run), make_loader(TensorDataset(torch.ones(40, 3)), run, train=True))
    return trainer


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.precision", "fp32"),
        ("training.non_finite_loss", "raise"),
        ("training.float32_matmul_precision", None),
        ("training.max_steps", 1),
        ("training.batch_size", 32),
        ("training.learning_rate", 0.001),
        ("scheduler.min_lr", 0),
        ("scheduler.warmup_steps", 0),
        ("optimizer.weight_decay", None),
        ("performance.compile", False),
        ("performance.channels_last", False),
    ],
)
def test_a_default_that_is_spelled_out_is_no_difference(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str, value: Any
) -> None:
    caplog.set_level(logging.INFO)
    for number, (before, after) in enumerate([(SHORT, changed(path, value)), (changed(path, value), SHORT)]):
        train(tmp_path / str(number), before)
        caplog.clear()
        train(tmp_path / str(number), after)
        assert ": exact" in caplog.text


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training.learning_rate", 0.1, r"run\.training\.learning_rate was 0\.001, is 0\.1"),
        ("training.precision", "bf16", r"trainer\.precision was 'fp32', is 'bf16'\. Use"),
        ("scheduler.min_lr", 1e-5, r"run\.scheduler\.min_lr was 0\.0, is 1e-05"),
        ("model.width", 8, r"run\.model\.width was not set, is 8"),
        ("optimizer.momentum", 0.5, r"run\.optimizer\.momentum was not set, is 0\.5"),
        ("custom_params.note", "x", r"run\.custom_params was not set, is \{'note': 'x'\}"),
    ],
)
def test_a_difference_is_told_with_the_value_that_was_in_effect(
    tmp_path: Path, path: str, value: Any, message: str
) -> None:
    train(tmp_path, SHORT)
    with pytest.raises(CheckpointError, match=message):
        train(tmp_path, changed(path, value))


def test_checkpoints_of_earlier_releases_say_more_of_the_trainer_and_are_understood() -> None:
    settings = {"trainer": {"precision": "fp32"}, "optimizer": {"class": "SGD"}}
    said = {"environment": {}, "data": {"train": None, "val": None}}
    earlier = said | {"settings": settings | {"run": {"model": {"name": "a"}, "training": {"precision": "fp32"}}}}
    now = said | {"settings": settings | {"run": {"model": {"name": "a"}, "training": {"batch_size": 32}}}}
    assert compare(earlier, now) == ([], [])
