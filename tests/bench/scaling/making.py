"""A sweep of any size in the midst of its work: planned by the product, its files written by the product's writers.

No run is trained. Everything else is real: the folder comes from a dry submission, journals are written by the
trainer's `Journal`, results and receipts by the records of the run directory.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from mtf_trainer.journal import Journal
from mtf_utils.rundir import FinishReceipt, Outcome, RunDirectory, RunResultFile, StartReceipt, SweepDirectory

EPOCHS = 20
STEPS = 10
LOGGED = 5
BEGAN_S = 1_760_000_000.0

OPTIMIZERS = ["adamw", "sgd"]


def sweep_file(folder: Path, runs: int) -> Path:
    """Write a sweep file of so many runs over four parameters, with the script that its command names."""
    ranges = {
        "training.learning_rate": {"low": 1e-4, "high": 1e-1, "scale": "log"},
        "model.hidden_size": {"low": 16, "high": 512, "scale": "integer"},
        "model.dropout": {"low": 0.0, "high": 0.5, "scale": "linear"},
    }
    sweep = {
        "base": {
            "experiment_name": "digits",
            "model": {"name": "mlp", "hidden_size": 64, "dropout": 0.1},
            "data": {"dataset_name": "digits"},
            "optimizer": {"name": "adamw"},
            "training": {"epochs": EPOCHS, "batch_size": 64},
            "checkpoint": {"monitor": "val_loss", "mode": "min"},
        },
        "grids": [
            {
                "name": "search",
                "parameters": {"optimizer.name": OPTIMIZERS},
                "sampled": [{"count": math.ceil(runs / len(OPTIMIZERS)), "seed": 0, "ranges": ranges}],
            }
        ],
        "command": "python train.py --config {config}",
        "output_dir": "sweep",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").touch()
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep, sort_keys=False), encoding="utf-8")
    return file


@dataclass(frozen=True)
class Fate:
    """What became of a run.

    Attributes:
        outcomes: of its attempts; None is one that is still at work, or was when it was last heard of.
        epochs: how many it got through.
    """

    outcomes: tuple[Outcome | None, ...]
    epochs: int


def fate_of(chance: random.Random) -> Fate:
    """Draw one: four of five runs have finished, some after preemptions; the rest is what a sweep brings along."""
    draw = chance.random()
    preempted = tuple([Outcome.PREEMPTED] * (chance.randrange(1, 4) if chance.random() < 0.15 else 0))
    some = chance.randrange(1, EPOCHS)
    if draw < 0.80:
        return Fate((*preempted, Outcome.FINISHED), EPOCHS)
    if draw < 0.87:
        return Fate((*preempted, Outcome.FAILED), some)
    if draw < 0.92:
        return Fate((*preempted, Outcome.PREEMPTED), some)
    if draw < 0.97:
        return Fate((*preempted, None), some)
    return Fate((), 0)


def fill(folder: Path, *, seed: int = 0) -> None:
    """Write what the runs of a planned sweep would have left by now.

    Args:
        folder: of the sweep.
        seed: of the fates and of the curves.
    """
    directory = SweepDirectory(folder)
    sweep = directory.sweep()
    entries = sweep.runs if sweep else []
    with ThreadPoolExecutor(16) as pool:  # they wait for the disk, not for each other
        for _ in pool.map(lambda item: _fill_run(directory, item[0], item[1], seed), enumerate(entries)):
            pass
    os.sync()  # whoever looks next is not to wait for what was written here


def _fill_run(directory: SweepDirectory, number: int, entry: dict[str, Any], seed: int) -> None:
    chance = random.Random(f"{seed}-{number}")
    run, fate = directory.run(entry["name"]), fate_of(chance)
    clock = _clock(BEGAN_S + 40 * (number // 64) + chance.random() * 20, chance)
    for attempt, outcome in enumerate(fate.outcomes, 1):
        _begin(run, attempt, next(clock))
        if attempt == len(fate.outcomes):
            _train(run, entry["parameters"], fate, lambda: next(clock), chance)
        else:
            for _ in range(60):  # the work of the attempts before is done again in none of them
                next(clock)
        if outcome is not None:
            _end(run, attempt, outcome, next(clock))


def _clock(start_s: float, chance: random.Random) -> Iterator[float]:
    now, pace = start_s, 0.5 + chance.random()
    while True:
        yield now
        now += pace


def _begin(run: RunDirectory, attempt: int, now: float) -> None:
    run.attempt(attempt).path.mkdir()
    receipt = StartReceipt(attempt=attempt, token="by-hand", host="node-17.cluster", pid=4711, started_at=_iso(now))
    receipt.write(run.attempt(attempt).started_file)


def _end(run: RunDirectory, attempt: int, outcome: Outcome, now: float) -> None:
    reason, status = None, 0
    if outcome is Outcome.PREEMPTED:
        reason, status = "SIGUSR1: saved at global step 40", 75
    elif outcome is Outcome.FAILED:
        reason, status = "the command ended with status 1", 1
        trace = 'Traceback (most recent call last):\n  File "train.py", line 12, in <module>\nValueError: loss is NaN\n'
        run.log_file(attempt).write_text(trace, encoding="utf-8")
    FinishReceipt(attempt=attempt, outcome=outcome, exit_status=status, reason=reason, finished_at=_iso(now)).write(
        run.attempt(attempt).finished_file
    )


def _train(
    run: RunDirectory, parameters: dict[str, Any], fate: Fate, clock: Callable[[], float], chance: random.Random
) -> None:
    """The records of a training whose loss depends on its parameters, and its result."""
    journal = Journal(run.metrics_file, clock=clock)
    journal.open(None)
    best: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    for epoch in range(fate.epochs):
        for place in range(1, LOGGED + 1):
            step = epoch * STEPS + place * STEPS // LOGGED
            journal.write({"event": "train", "epoch": epoch, "step": step, **_losses(parameters, step, chance)})
        step = (epoch + 1) * STEPS
        metrics = _losses(parameters, step, chance)
        shown = {"val_loss": metrics["train_loss"] * 1.1 + 0.02, "val_accuracy": metrics["train_accuracy"] - 0.02}
        journal.write({"event": "validation", "epoch": epoch, "step": step, **shown})
        metrics |= shown
        journal.write({"event": "epoch", "epoch": epoch, "step": step, **metrics})
        if not best or metrics["val_loss"] < best["value"]:
            best = {"metric": "val_loss", "value": metrics["val_loss"], "epoch": epoch, "global_step": step}
    journal.close()
    if fate.outcomes[-1] is Outcome.FINISHED:
        RunResultFile(
            epoch=fate.epochs,
            global_step=fate.epochs * STEPS,
            metrics=dict(metrics),
            best=best,
            checkpoint="checkpoints/final",
            seed=0,
            finished_at=_iso(clock()),
        ).write(run.result_file)


def _losses(parameters: dict[str, Any], step: int, chance: random.Random) -> dict[str, float]:
    rate = math.log10(parameters["training.learning_rate"])
    floor = 0.05 + 0.25 * (rate + 2.4) ** 2 / 4 + 8 / parameters["model.hidden_size"]
    floor += 0.4 * (parameters["model.dropout"] - 0.15) ** 2 + (0.06 if parameters["optimizer.name"] == "sgd" else 0)
    speed = 6.0 / (EPOCHS * STEPS) * (1.2 + (rate + 4) / 3)
    loss = floor + (2.3 - floor) * math.exp(-speed * step) + abs(chance.gauss(0, 0.015))
    return {"train_loss": loss, "train_accuracy": math.exp(-loss), "lr": parameters["training.learning_rate"]}


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
