"""Trains with loggers on, killed or told to stop in turn at boundaries drawn at random: a script for the tests.

`python telemetry_kills.py FOLDER KILLS LOGGER …` trains once without a kill in FOLDER/whole and once with them in
FOLDER/killed, with the loggers of `LoggingConfig` that are named, and prints one JSON object. It imports torch once and
forks for every process that trains.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import exact_task
import torch

from mtf_trainer import LoggingConfig, TrainingPreempted
from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.loggers import build_loggers
from mtf_trainer.loop import Loop


def die_at(boundary: int, number: int) -> None:
    """Send this process a signal when it comes to that boundary."""
    boundaries = Loop.boundaries

    def counted(self):
        for count, phase in enumerate(boundaries(self)):
            if count == boundary:
                os.kill(os.getpid(), number)
            yield phase

    Loop.boundaries = counted


def train(folder: Path, loggers: list[str], death: tuple[int, int] | None = None) -> int:
    """Train in a process of its own; returns how it ended."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if death is not None:
                die_at(*death)
            logging = LoggingConfig(log_every_n_steps=1, log_level="ERROR", **dict.fromkeys(loggers, True))
            trainer, fit = exact_task.prepare(folder, stock=True, logging=logging)
            fit()
            (folder / "digest.json").write_text(json.dumps(exact_task.digest(trainer)))
            status = 0
        except TrainingPreempted as stop:
            status = stop.code
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    torch.set_num_threads(1)
    place, kills, loggers = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if "use_tensorboard" in loggers:  # imported once for all
        build_loggers(GenericTrainerConfig(logging=LoggingConfig(use_tensorboard=True)), place)
    whole = train(place / "whole", loggers)
    draw, statuses = random.Random(8), []
    while len(statuses) < kills:
        number = signal.SIGTERM if len(statuses) % 2 else signal.SIGKILL
        statuses.append(train(place / "killed", loggers, (draw.randint(1, 45), number)))
    statuses.append(train(place / "killed", loggers))
    equal = (place / "whole" / "digest.json").read_text() == (place / "killed" / "digest.json").read_text()
    print(json.dumps({"whole": whole, "statuses": statuses, "equal": equal}))


if __name__ == "__main__":
    main()
