"""A training task without chance but the order of the data: for runs of different numbers of ranks to be compared.

Every rank notes each sample that it trained on, as `<epoch> <index>`, in FOLDER/seen-<rank of this start>.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mtf_trainer import (
    CheckpointConfig,
    DistributedConfig,
    GenericTrainer,
    GenericTrainerConfig,
    LoggingConfig,
    TrainingCallback,
)


class Regression(GenericTrainer):
    """Fits a sine, and notes what it sees."""

    seen: Any
    errors: Any = None

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        index, inputs, targets = batch
        if self.model.training and self.counts():
            self.seen.writelines(f"{self.current_epoch} {each}\n" for each in index.tolist())
            self.seen.flush()
        outputs = self.model(inputs)
        if self.errors is not None and self.model.training:
            self.errors.update(outputs.detach(), targets)
        return {"loss": nn.functional.mse_loss(outputs, targets)}

    def counts(self) -> bool:
        """Whether the batch is more than a stand-in."""
        return bool(self._session.loop.train.factor)


class Losses(TrainingCallback):
    """Collects what is different on every rank."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        self.losses.append(float(logs["loss"]))

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = list(state["losses"])


class Lonely(TrainingCallback):
    """Does on one rank what concerns all: saves or asks for an early end, after a batch or a validation.

    Args:
        word: `stop` or `save`, and on which rank.
        place: epoch and batch; without a batch it is the epoch's validation.
    """

    def __init__(self, word: str, place: str) -> None:
        self.what, _, rank = word.partition(":")
        self.rank, self.place = int(rank), place

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        self.act(trainer, f"{trainer.current_epoch}:{batch_idx}")

    def on_validation_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
        self.act(trainer, f"{trainer.current_epoch}:")

    def act(self, trainer: GenericTrainer, place: str) -> None:
        if place == self.place and trainer.rank == self.rank:
            trainer.request_stop() if self.what == "stop" else trainer.save_checkpoint()


class Stop(TrainingCallback):
    """Has the last rank told to stop at the end of a batch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.place = (epoch, batch)

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        is_last = trainer.rank == trainer.world_size - 1
        if is_last and (trainer.current_epoch, batch_idx) == self.place:
            os.kill(os.getpid(), signal.SIGTERM)
            agreement = trainer._session.agreement
            while agreement is not None and not agreement._held:  # the news takes its time
                time.sleep(0.001)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=58)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--stop", help="EPOCH:BATCH at whose end the last rank is told to stop")
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--lonely", nargs=2, metavar=("WHAT:RANK", "EPOCH:BATCH"), help="what one rank does by itself")
    parser.add_argument("--collect", action="store_true", help="have a metric and a callback that collect")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = GenericTrainerConfig(
        epochs=2,
        gradient_accumulation_steps=arguments.accumulate,
        seed=3,
        device="cpu",
        checkpoint=CheckpointConfig(checkpoint_dir=str(arguments.folder / "checkpoints")),
        distributed=DistributedConfig(strategy=arguments.strategy),
        logging=LoggingConfig(log_every_n_steps=1, progress="off"),
    )
    trainer = Regression(config)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    inputs = torch.randn(arguments.samples, 4, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(torch.arange(arguments.samples), inputs, inputs.sum(dim=1, keepdim=True).sin())
    train = DataLoader(data, batch_size=arguments.batch, shuffle=True)
    val = DataLoader(data, batch_size=arguments.batch)
    if arguments.collect:
        import torchmetrics

        trainer.errors = torchmetrics.MeanSquaredError()
        trainer.add_metric("mse", trainer.errors, stage="train")
        trainer.add_callback(Losses())
    if arguments.lonely:
        trainer.add_callback(Lonely(*arguments.lonely))
    if arguments.stop:
        epoch, batch = arguments.stop.split(":")
        trainer.add_callback(Stop(int(epoch), int(batch)))
    with (arguments.folder / f"seen-{trainer.rank}").open("a") as trainer.seen:
        trainer.fit(model, lambda parameters: torch.optim.SGD(parameters, lr=0.05), train, val)


if __name__ == "__main__":
    main()
