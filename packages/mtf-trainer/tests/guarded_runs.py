"""Trains again and again until it is told not to, with something wrong at one batch: a script for the tests.

`python guarded_runs.py FOLDER CASE … [--attempts N]` prints one JSON object: how each attempt of each case ended. What
they say goes to FOLDER/CASE.log. It imports torch once and forks for every attempt.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the first optimizer that is made imports it, which takes longer than the whole training
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from mtf_trainer import (
    CheckpointConfig,
    GenericTrainer,
    GenericTrainerConfig,
    LoggingConfig,
    PreemptionConfig,
    TrainingCallback,
    preemption,
)

SIZE, BATCH_SIZE = 24, 3
BAD = 13  # of the training samples; without shuffling in batch 4


def crash() -> None:
    """End at once, as a mistake in native code does."""
    os.kill(os.getpid(), signal.SIGSEGV)


def die() -> None:
    """End at once, as the kernel ends a process that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise ValueError("no such image")


class Samples(Dataset):
    """Numbers, one of which there is trouble with."""

    def __init__(self, trouble: Callable[[], None] | None = None) -> None:
        self.trouble = trouble

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.trouble is not None and index == BAD:
            self.trouble()
        return torch.tensor([float(index)])


class Stream(IterableDataset):
    """The same numbers, one after the other, split over the workers."""

    def __init__(self, trouble: Callable[[], None] | None = None) -> None:
        self.samples = Samples(trouble)

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return (self.samples[index] for index in range(first, SIZE, step))


class Clumsy(torch.autograd.Function):
    """The identity, with a backward pass that fails for one sample."""

    @staticmethod
    def forward(context: Any, inputs: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(inputs)
        return inputs.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        if BAD in context.saved_tensors[0]:
            fail()
        return gradient


class Trainer(GenericTrainer):
    """A linear fit; `trouble` comes in the step that sees the sample."""

    def __init__(self, config: GenericTrainerConfig, case: str) -> None:
        super().__init__(config)
        self.case = case

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> dict[str, Any]:
        if BAD in batch and self.model.training:
            {"step": fail, "step-dies": die, "step-crashes": crash}.get(self.case, lambda: None)()
        inputs = Clumsy.apply(batch.requires_grad_()) if self.case == "backward" and self.model.training else batch
        return {"loss": (self.model(inputs) - inputs).square().mean()}

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> dict[str, Any]:
        if BAD in batch and self.case == "validation-dies":
            die()
        return super().validation_step(batch, batch_idx)


class Clumsiness(TrainingCallback):
    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        if batch_idx == BAD // BATCH_SIZE:
            fail()


class Preempted(TrainingCallback):
    """Has another thread send a signal after so many batches of this process."""

    def __init__(self, after: int, number: int = signal.SIGTERM) -> None:
        self.left, self.number = after, number

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        self.left -= 1
        if self.left == 0:
            sender = threading.Thread(target=os.kill, args=(os.getpid(), self.number))
            sender.start()
            sender.join()


def collate(samples: list[torch.Tensor]) -> torch.Tensor:
    batch = torch.stack(samples)
    if BAD in batch:
        fail()
    return batch


def loaders(case: str) -> tuple[Any, Any]:
    """The training and the validation loader of a case, such as `dataset+workers+shuffle`."""
    what, *how = case.split("+")
    trouble = {"dataset": fail, "dataset-crashes": crash, "dataset-dies": die}.get(what)
    options: dict[str, Any] = {"batch_size": BATCH_SIZE, "num_workers": 2 if "workers" in how else 0}
    dataset: Any = Stream(trouble) if "stream" in how else Samples(trouble)
    if what == "collate":
        options["collate_fn"] = collate
    if "shuffle" in how:
        options["shuffle"] = True
    val = Samples(fail if what == "validation" else None)
    return DataLoader(dataset, **options), DataLoader(val, batch_size=BATCH_SIZE, num_workers=options["num_workers"])


def attempt(folder: Path, case: str, number: int) -> None:
    """Train, as far as it goes."""
    torch.set_num_threads(1)
    what = case.split("+")[0]
    limit = {"too-often": 2}.get(what)
    config = GenericTrainerConfig(
        epochs=100 if what == "productive" else 2,
        seed=1,
        checkpoint=CheckpointConfig(checkpoint_dir=str(folder), save_every_n_steps=2, async_save="later" in case),
        preemption=PreemptionConfig(max_preemptions=limit),
        logging=LoggingConfig(log_level="ERROR", log_every_n_steps=1, progress="off"),
    )
    trainer = Trainer(config, what)
    if what == "callback":
        trainer.add_callback(Clumsiness())
    elif what == "productive":
        trainer.add_callback(Preempted(1 + number % 9))
    elif what == "too-often":
        trainer.add_callback(Preempted(1))
    elif what == "unproductive":
        stop_at_once()
    elif what == "killed":  # from outside, ever later
        trainer.add_callback(Preempted(3 + number, signal.SIGKILL))
    model = nn.Linear(1, 1)
    trainer.fit(model, torch.optim.SGD(model.parameters(), lr=1e-4), *loaders(case))


def stop_at_once() -> None:
    """Have a signal come before anything is done."""
    listening = preemption.listening

    def told(flag: preemption.StopFlag, names: Any) -> Any:
        flag.request("SIGTERM")
        return listening(flag, names)

    preemption.listening = told


def run(folder: Path, case: str, number: int) -> int:
    """Make an attempt in a process of its own; returns its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            sys.stderr = log = (folder / f"{case}.log").open("a", buffering=1)
            attempt(folder / case, case, number)
            status = 0
        except SystemExit as stop:
            status = int(stop.code)
        except Exception:  # noqa: BLE001 - whatever it is, it ends the attempt
            traceback.print_exc()
        finally:
            log.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--attempts", type=int, default=10)
    arguments = parser.parse_args()
    outcome: dict[str, list[int]] = {}
    for case in arguments.cases:
        statuses = outcome[case] = []
        while len(statuses) < arguments.attempts and not {0, 76} & set(statuses[-1:]):
            statuses.append(run(arguments.folder, case, len(statuses)))
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
