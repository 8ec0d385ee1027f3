"""One attempt of a training that stops at a chosen event and waits there to be told to go.

`python training.py SEED STOPS [SIGNAL]` in the environment that job.sh sets. In the first STOPS attempts it waits for
the signal, or for any that announces a preemption. At the end it writes a digest of everything.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mtf_trainer import CheckpointConfig, TrainingCallback
from mtf_utils.rundir import current_run

sys.path.append(str(Path(__file__).resolve().parents[1]))
from exact_training import load_task

EVENTS = (
    "on_batch_start",
    "on_batch_end",
    "on_validation_start",
    "on_validation_end",
    "on_epoch_start",
    "on_epoch_end",
)
SIGNALS = ("SIGTERM", "SIGUSR1")
LONGEST_WAIT_S = 600.0


class Wait(TrainingCallback):
    """At the n-th of the events, says that it waits, and goes on when one of the signals has come."""

    def __init__(self, mark: Path, choice: random.Random, signals: Sequence[str]) -> None:
        self._told, self._mark = False, mark  # no Event: a handler that takes its lock may interrupt itself
        self._signals = signals
        self._event = choice.choice(EVENTS)
        self._left = choice.randrange(1, 8 if self._event.startswith("on_batch") else 2)

    def setup(self, trainer: Any) -> None:
        """Listen beside the trainer, which listens by now; before that a signal ends the process."""
        for number in (signal.Signals[name] for name in self._signals):
            signal.signal(number, self._beside(signal.getsignal(number)))

    def _beside(self, handler: Any) -> Any:
        def handle(number: int, frame: Any) -> None:
            self._told = True
            handler(number, frame)

        return handle

    def _happen(self, event: str) -> None:
        if event != self._event:
            return
        self._left -= 1
        if self._left == 0:
            self._mark.write_text(event)
            deadline = time.monotonic() + LONGEST_WAIT_S
            while not self._told and time.monotonic() < deadline:
                time.sleep(0.01)

    def on_batch_start(self, trainer: Any, batch_idx: int) -> None:
        self._happen("on_batch_start")

    def on_batch_end(self, trainer: Any, batch_idx: int, logs: dict[str, Any]) -> None:
        self._happen("on_batch_end")

    def on_validation_start(self, trainer: Any) -> None:
        self._happen("on_validation_start")

    def on_validation_end(self, trainer: Any, logs: dict[str, Any]) -> None:
        self._happen("on_validation_end")

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        self._happen("on_epoch_start")

    def on_epoch_end(self, trainer: Any, epoch: int, logs: dict[str, Any]) -> None:
        self._happen("on_epoch_end")


def main() -> None:
    """Train until training is complete or Slurm says that it must go."""
    seed, stops, signals = sys.argv[1], int(sys.argv[2]), sys.argv[3:] or SIGNALS
    run = current_run()
    assert run is not None
    directory, attempt = run
    assert attempt is not None
    torch.set_num_threads(1)
    task = load_task()
    saving = CheckpointConfig(checkpoint_dir=str(directory.checkpoints_dir), save_every_n_steps=2)
    trainer, train = task.prepare(directory.path, epochs=8, checkpoint=saving)
    if attempt.number <= stops:
        choice = random.Random(f"{seed} {directory.name} {attempt.number}")
        trainer.add_callback(Wait(directory.path / f"waits-{attempt.number}", choice, signals))
    train()
    (directory.path / "digest.json").write_text(json.dumps(task.digest(trainer)))


if __name__ == "__main__":
    main()
