"""Trains in several processes by turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import random
import statistics
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

__all__ = ["Runner", "race"]

WARM_UP: Final = 3
"""Turns that do not count: memory is not warm yet, and some frameworks measure at first."""


@dataclass
class Runner:
    """One way to train.

    Attributes:
        name: for people.
        place: `module:function` that takes a `Job`.
        wall_s: seconds of every turn.
        cpu_s: the same of the processor's time.
    """

    name: str
    place: str
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def ratios(self, reference: Runner, *, cpu: bool = False) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of this one's turns over the reference's in the same round."""
        pairs = zip(self.cpu_s, reference.cpu_s) if cpu else zip(self.wall_s, reference.wall_s)  # noqa: B905
        ratios = [mine / other for mine, other in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        return low, middle, high


def race(runners: Sequence[Runner], task: str, turns: int) -> None:
    """Let every runner train `turns` turns, one runner at a time, in an order that changes from round to round."""
    with tempfile.TemporaryDirectory(prefix="loops-") as folder, contextlib.ExitStack() as stack:
        started = [
            (runner, stack.enter_context(_process(runner, task, turns, Path(folder) / str(number))))
            for number, runner in enumerate(runners)
        ]
        for runner, connection in started:
            _hear(runner, connection)  # it has reached its first step
        order = random.Random(0)
        for number in range(WARM_UP + turns):
            for runner, connection in order.sample(started, len(started)):
                connection.send(True)
                wall_s, cpu_s = _hear(runner, connection)
                if number >= WARM_UP:
                    runner.wall_s.append(wall_s)
                    runner.cpu_s.append(cpu_s)


@contextlib.contextmanager
def _process(runner: Runner, task: str, turns: int, folder: Path) -> Iterator[Connection]:
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_train, args=(runner.place, theirs, task, turns, folder), daemon=True)
    process.start()
    theirs.close()  # so that its end shows here as an error, not as silence
    try:
        yield ours
        ours.send(False)
    finally:
        ours.close()
        process.join()


def _hear(runner: Runner, connection: Connection) -> tuple[float, float]:
    told: tuple[float, float] | str = connection.recv()
    if isinstance(told, str):
        raise RuntimeError(f"{runner.name} failed: {told}")
    return told


def _train(place: str, driver: Connection, task: str, turns: int, folder: Path) -> None:
    """In the process: train on one processor, the same for all, and say nothing."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    import torch

    from looping.task import STEPS_A_TURN, Gate, Job, RaceIsOver

    torch.set_num_threads(1)
    steps = STEPS_A_TURN[task]
    module, _, function = place.partition(":")
    run = getattr(importlib.import_module(module), function)
    try:
        # Two turns more than are trained, since some loops read ahead.
        run(Job(task=task, steps=(WARM_UP + turns + 2) * steps, folder=folder, gate=Gate(driver, steps)))
    except RaceIsOver:
        pass
    except Exception:
        driver.send(traceback.format_exc())
        raise
