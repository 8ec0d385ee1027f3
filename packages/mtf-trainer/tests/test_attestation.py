"""A restored run says whether it is exactly the saved one, and names what is not."""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mtf_trainer import TrainingCallback, TrainingPreempted, attestation, rng, session
from mtf_trainer.data import order


class StopAt(TrainingCallback):
    """Has the process told to go in the middle of an accumulation window."""

    def __init__(self, batch: int | None) -> None:
        self.batch = batch

    def on_batch_end(self, trainer: Any, batch_idx: int, logs: dict[str, Any]) -> None:
        if trainer.current_epoch == 1 and batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGTERM)


def stopped(task: ModuleType, folder: Path) -> None:
    trainer, fit = task.prepare(folder)
    trainer.add_callback(StopAt(5))
    with pytest.raises(TrainingPreempted):
        fit()


def resumed(task: ModuleType, folder: Path, caplog: pytest.LogCaptureFixture) -> tuple[Any, str]:
    trainer, fit = task.prepare(folder)
    trainer.add_callback(StopAt(None))
    caplog.set_level(logging.INFO)
    fit()
    return trainer, next(message for message in caplog.messages if message.startswith("restored from"))


def test_an_undisturbed_restart_is_exact(task: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stopped(task, tmp_path)
    _, message = resumed(task, tmp_path, caplog)
    assert message.endswith(": exact")


class StopBeforeTheFirstBatch(StopAt):
    """Has the process told to go when an epoch begins, whose order is not drawn yet."""

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        if epoch == 1 and self.batch is not None:
            os.kill(os.getpid(), signal.SIGTERM)

    on_batch_end = TrainingCallback.on_batch_end


def test_a_restart_before_the_first_batch_of_an_epoch_is_exact(
    task: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "StopAt", StopBeforeTheFirstBatch)
    stopped(task, tmp_path)
    _, message = resumed(task, tmp_path, caplog)
    assert message.endswith(": exact")


def _nudge(tensor: torch.Tensor) -> None:
    tensor.data.view(-1)[0] = torch.nextafter(tensor.data.view(-1)[0], torch.tensor(9.0))


INJURIES: dict[str, Callable[[Any], Any]] = {
    "weights 0.weight": lambda trainer: _nudge(trainer.model[0].weight),
    "weights 1.running_mean": lambda trainer: _nudge(trainer.model[1].running_mean),
    "optimizer state.0.exp_avg": lambda trainer: _nudge(trainer.optimizer.state[trainer.model[0].weight]["exp_avg"]),
    "optimizer param_groups[0].lr": lambda trainer: trainer.optimizer.param_groups[0].update(lr=0.5),
    "scheduler last_epoch": lambda trainer: setattr(trainer.scheduler, "last_epoch", 0),
    "accumulated gradients [0]": lambda trainer: _nudge(trainer.model[0].weight.grad),
    "training modes ": lambda trainer: trainer.model[3].eval(),
    "random stream python": lambda trainer: random.random(),
    "random stream numpy": lambda trainer: np.random.rand(),
    "random stream torch": lambda trainer: torch.rand(()),
    "callback [0]": lambda trainer: trainer.callbacks[0].events.append("twice"),
}


@pytest.mark.parametrize("component", INJURIES)
def test_what_differs_is_named(
    task: ModuleType,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    component: str,
) -> None:
    stopped(task, tmp_path)
    trainers: list[Any] = []
    prepare = task.prepare

    def prepared(*arguments: Any, **options: Any) -> Any:
        trainer, fit = prepare(*arguments, **options)
        trainers.append(trainer)
        return trainer, fit

    def restored_and_injured(state: Any) -> None:
        rng.restore(state)
        INJURIES[component](trainers[-1])

    monkeypatch.setattr(task, "prepare", prepared)
    monkeypatch.setattr(session, "rng", SimpleNamespace(capture=rng.capture, restore=restored_and_injured))
    _, message = resumed(task, tmp_path, caplog)
    assert "but not exact: " in message
    first = message.partition("but not exact: ")[2].split("; ")[0]
    assert first.startswith(component.strip()), message


def test_another_order_of_the_data_is_noticed(
    task: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(task, tmp_path)
    monkeypatch.setattr(order.torch, "randperm", lambda size, generator: torch.arange(size))
    _, message = resumed(task, tmp_path, caplog)
    assert "not exact: next batch [" in message


def test_a_library_that_draws_differently_is_noticed(
    task: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(task, tmp_path)
    canary = attestation.canary
    monkeypatch.setattr(attestation, "canary", lambda state: canary(state) | {"torch": [0.0, 0.0]})
    _, message = resumed(task, tmp_path, caplog)
    assert "not exact: next draw of random stream torch[0]" in message


def test_the_canary_draws_nothing_from_the_streams() -> None:
    before = rng.capture()
    first = attestation.canary(before)
    assert rng.capture().differing(before) == []
    assert first["python"][0] == random.random()
    assert first["numpy"][0] == np.random.random_sample()
    assert first["torch"] == torch.randn(2).tolist()
