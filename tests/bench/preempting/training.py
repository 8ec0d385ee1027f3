"""One attempt of a training that stops at a chosen event and waits there to be preempted.

`python training.py SEED PREEMPTIONS` in the environment that job.sh sets. At the end it writes a digest of everything.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
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
LONGEST_WAIT_S = 240.0


class Wait(TrainingCallback):
    """At the n-th of the events, says that it waits, and goes on when a signal has come."""

    def __init__(self, mark: Path, choice: random.Random) -> None:
        self._told, self._mark = False, mark  # no Event: a handler that takes its lock may interrupt itself
        self._event = choice.choice(EVENTS)
        self._left = choice.randrange(1, 8 if self._event.startswith("on_batch") else 2)

    def setup(self, trainer: Any) -> None:
        """Listen beside the trainer, which listens by now; before that a signal ends the process."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
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
    """Train until training is complete or Slurm wants the node."""
    seed, preemptions = sys.argv[1], int(sys.argv[2])
    run = current_run()
    assert run is not None
    directory, attempt = run
    assert attempt is not None
    torch.set_num_threads(1)
    task = load_task()
    saving = CheckpointConfig(checkpoint_dir=str(directory.checkpoints_dir), save_every_n_steps=2)
    trainer, train = task.prepare(directory.path, epochs=8, checkpoint=saving)
    if attempt.number <= preemptions:
        choice = random.Random(f"{seed} {directory.name} {attempt.number}")
        trainer.add_callback(Wait(directory.path / f"waits-{attempt.number}", choice))
    train()
    (directory.path / "digest.json").write_text(json.dumps(task.digest(trainer)))


if __name__ == "__main__":
    main()
