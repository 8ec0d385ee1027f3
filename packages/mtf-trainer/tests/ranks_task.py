"""A training task for several ranks, which loses whatever can be lost, and a digest of what came of it on every rank.

Started by torchrun or srun: `torchrun --nproc-per-node 2 ranks_task.py FOLDER`. When training is complete every rank
writes FOLDER/digest-<rank>.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from pathlib import Path
from typing import Any

import exact_task
import torch
from torch.utils.data import DataLoader

from mtf_trainer import EMA, CheckpointConfig, DistributedConfig, LoggingConfig, TrainingCallback
from mtf_trainer.distributed import find_world
from mtf_utils.sections import PerformanceConfig

SAMPLES = 58  # of three a rank: no part of a batch has one sample only, as batch normalisation requires


class Pace(TrainingCallback):
    """Takes its time, so that a signal meets the run somewhere, and says where it stands."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.file = folder / f"pace-{find_world().rank}"
        self.seconds = seconds

    def on_batch_end(self, trainer: Any, batch_idx: int, logs: dict[str, Any]) -> None:
        self.file.write_text(f"{os.getpid()} {trainer.current_epoch} {batch_idx}")
        time.sleep(self.seconds)


def prepare(folder: Path, *, workers: int = 0, pace_s: float = 0.0, **changes: Any) -> tuple[Any, Any]:
    """A trainer, and what to call to train."""
    settings: dict[str, Any] = {
        "epochs": 3,
        "logging": LoggingConfig(log_every_n_steps=1, log_level="INFO", progress="off"),
        "checkpoint": CheckpointConfig(checkpoint_dir=str(folder / "checkpoints"), save_every_n_steps=2),
    }
    trainer = exact_task.Regression(exact_task.configure(folder, **(settings | changes)))
    model = exact_task.build_model()
    schedule = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=9)
    train = DataLoader(exact_task.Noisy(SAMPLES), batch_size=3, shuffle=True, num_workers=workers)
    val = DataLoader(exact_task.Noisy(11), batch_size=3, num_workers=workers)
    for callback in (exact_task.Trace("first"), exact_task.Sum("second"), EMA(0.9), Pace(folder, pace_s)):
        trainer.add_callback(callback)
    return trainer, lambda: trainer.fit(model, lambda each: torch.optim.AdamW(each, lr=0.01), train, val, schedule)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--pace", type=float, default=0.0, help="seconds that a batch takes")
    parser.add_argument("--fail", type=int, help="a rank that fails in its second epoch")
    parser.add_argument("--leave", type=int, help="a rank that ends there as if all were well")
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--recompute", nargs="*", default=[], help="modules whose activations are not kept")
    parser.add_argument("--lonely", action="store_true", help="give a callback to rank 0 alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    distributed = DistributedConfig(strategy=arguments.strategy)
    trainer, train = prepare(
        arguments.folder,
        workers=arguments.workers,
        pace_s=arguments.pace,
        distributed=distributed,
        performance=PerformanceConfig(activation_checkpointing=arguments.recompute),
    )
    if arguments.fail is not None:
        trainer.add_callback(Failing(arguments.fail, ValueError("the last words of this rank")))
    if arguments.leave is not None:
        trainer.add_callback(Failing(arguments.leave, SystemExit(0)))
    if arguments.lonely and trainer.rank == 0:
        trainer.add_callback(Failing(0, ValueError("never called")))
    train()
    digest = exact_task.digest(trainer)
    if find_world().rank:
        del digest[
            "averages"
        ]  # of running statistics, which are each rank's own: those of rank 0 are the ones that count
    (arguments.folder / f"digest-{find_world().rank}.json").write_text(json.dumps(digest))


class Failing(TrainingCallback):
    """Fails on one rank."""

    def __init__(self, rank: int, error: BaseException) -> None:
        self.rank = rank
        self.error = error

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        if epoch == 1 and trainer.rank == self.rank:
            raise self.error


if __name__ == "__main__":
    main()
