"""What a person sees of a run: lines, or a bar."""

from __future__ import annotations

import itertools
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from mtf_trainer.phases import TrainerPhase
from mtf_trainer.progress import Progress
from mtf_trainer.state import ResumeState

TRAIN = """
import os, signal, sys
import torch
from torch.utils.data import DataLoader, TensorDataset
from mtf_trainer import *

class Stop(TrainingCallback):
    def on_batch_end(self, trainer, batch_idx, logs):
        if trainer.global_step == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGTERM)

trainer = GenericTrainer(
    GenericTrainerConfig(epochs=2, seed=1, logging=LoggingConfig(log_every_n_steps=1)),
    training_step=lambda trainer, batch, k: {"loss": trainer.model(batch[0]).square().mean()},
)
trainer.add_callback(Stop())
model = torch.nn.Linear(2, 1)
data = DataLoader(TensorDataset(torch.ones(40, 2)), batch_size=2)
trainer.fit(model, torch.optim.SGD(model.parameters(), lr=0.1), data)
"""

IN_A_NOTEBOOK = """
class Shell:
    config = {"IPKernelApp": {}}

def get_ipython():
    return Shell()
"""


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_lines_say_everything_and_begin_where_the_state_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clock, state = Clock(), ResumeState(TrainerPhase.INIT, 2, 600, samples=19200.0)
    progress = Progress("lines", epochs=10, total_steps=3000, clock=clock)
    progress.open(state)
    clock.now += 4.0
    state.global_step, state.samples = 610, 19520.0
    progress.show(state, {"train_loss": 0.123456, "lr": 0.001})
    assert lines(caplog) == ["epoch 3/10, step 610/3000, train_loss 0.1235, lr 0.001, samples/s 80, 15:56 left"]
    progress.close()


def test_lines_come_at_sensible_intervals(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clock, state = Clock(), ResumeState(TrainerPhase.INIT, 0, 0)
    progress = Progress("lines", epochs=1, total_steps=None, clock=clock)
    progress.open(state)
    moments = []
    for second in range(3600):
        clock.now = 100.0 + second
        state.global_step += 5
        progress.show(state, {"train_loss": 1.0})
        if lines(caplog):
            moments.append(second)
    assert moments[:4] == [0, 10, 20, 30]
    pauses = [b - a for a, b in itertools.pairwise(moments)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60


def test_the_last_step_is_always_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clock, state = Clock(), ResumeState(TrainerPhase.INIT, 0, 0)
    progress = Progress("lines", epochs=1, total_steps=3, clock=clock)
    progress.open(state)
    for _ in range(3):
        clock.now += 0.5
        state.global_step += 1
        progress.show(state, {"train_loss": 1.0})
    state.epoch = 1
    progress.show(state, {"val_loss": 2.0})  # of the same step, and no line of its own
    progress.close()
    shown = [line.split(", ")[:3] for line in lines(caplog)]
    assert shown == [["epoch 1/1", "step 1/3", "train_loss 1"], ["epoch 1/1", "step 3/3", "val_loss 2"]]


def test_off_shows_nothing(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level("INFO")
    progress = Progress("off", epochs=1, total_steps=3)
    state = ResumeState(TrainerPhase.INIT, 0, 0)
    progress.open(state)
    progress.show(state, {"train_loss": 1.0})
    progress.close()
    assert lines(caplog) == []
    assert capfd.readouterr().err == ""


def test_without_a_terminal_there_are_lines(tmp_path: Path) -> None:
    done = train(tmp_path, 0)
    assert done.returncode == 0, done.stderr
    assert "epoch 1/2, step 1/40, train_loss " in done.stderr
    assert "\r" not in done.stderr


def test_in_a_notebook_there_is_a_bar(tmp_path: Path) -> None:
    (tmp_path / "IPython.py").write_text(IN_A_NOTEBOOK)
    done = train(tmp_path, 0, prelude="import IPython")
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2: 100%" in done.stderr
    assert "40/40" in done.stderr


def train(folder: Path, stop_at: int, prelude: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"{prelude}\n{TRAIN}", str(stop_at)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_bar_on_a_terminal_goes_on_where_the_run_was(tmp_path: Path) -> None:
    first, status = on_a_terminal(tmp_path, 25)
    assert status == 75, first
    assert "epoch 2/2: " in first
    assert " 25/40" in first
    second, status = on_a_terminal(tmp_path, 0)
    assert status == 0, second
    assert "25/40" in second
    assert " 24/40" not in second
    assert "40/40" in second
    for word in ("loss=", "lr=", "samples/s=", "step/s"):
        assert word in second


def on_a_terminal(folder: Path, stop_at: int) -> tuple[str, int]:
    """Train with standard error on a pseudo-terminal; what it showed, and the exit status."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 200))
    command = [sys.executable, "-c", TRAIN, str(stop_at)]
    with subprocess.Popen(command, cwd=folder, stderr=slave) as process:
        os.close(slave)
        shown = b""
        try:
            while part := os.read(master, 65536):
                shown += part
        except OSError:  # Linux says so when the other end is closed
            pass
        os.close(master)
    return shown.decode(), process.returncode
