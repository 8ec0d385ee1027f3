"""Be preempted on purpose, go on, and compare with a training that nothing disturbed.

    pip install mtf-trainer scikit-learn
    python examples/preemption_handling.py

It starts itself as a training three times over: told to go by SIGTERM in the middle of an epoch, as Slurm does it;
killed by SIGKILL, which nobody can handle; and at last left alone. A second folder gets a training that was left alone
from the start. Both end with the same weights, bit for bit.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from mtf_trainer import (
    CheckpointConfig,
    CheckpointStore,
    GenericTrainer,
    GenericTrainerConfig,
    LoggingConfig,
    PreemptionConfig,
    TrainingCallback,
    TrainingPreempted,
)
from mtf_utils import EXIT_PREEMPTED
from support import load_images


class TellPlace(TrainingCallback):
    """Prints a line for every batch, so that another process knows when to strike."""

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        """Each batch is told once in the history of the run, however often the run is interrupted."""
        print(f"epoch {trainer.current_epoch + 1}, batch {batch_idx + 1}", flush=True)


def classify(trainer: GenericTrainer, batch: Any, batch_idx: int) -> dict[str, Any]:
    """The loss of a batch."""
    pixels, labels = batch
    return {"loss": functional.cross_entropy(trainer.model(pixels), labels)}


def train(folder: Path) -> None:
    """Three epochs, with the state in a folder; an interruption is told, and ends the process with status 75."""
    config = GenericTrainerConfig(
        epochs=3,
        gradient_accumulation_steps=4,  # a stop may well come in the middle of these
        seed=0,
        checkpoint=CheckpointConfig(checkpoint_dir=str(folder), save_every_n_steps=10),
        preemption=PreemptionConfig(grace_period_seconds=20),  # how long the last save may take after the signal
        logging=LoggingConfig(progress="off", log_level="WARNING"),
    )
    trainer = GenericTrainer(config, training_step=classify)
    trainer.add_callback(TellPlace())
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))
    images, labels = load_images(held_out=0, train=True)
    data = TensorDataset(images.flatten(start_dim=1).float() / 16, labels)
    try:
        trainer.fit(model, torch.optim.Adam(model.parameters()), DataLoader(data, batch_size=32, shuffle=True))
    except TrainingPreempted as preempted:  # catch it only to add something; it is a SystemExit with status 75
        print(f"saved in {preempted.checkpoint.name}", flush=True)
        raise


def train_elsewhere(folder: Path, *, strike: signal.Signals | None = None, at: str = "") -> int:
    """Train in a process of its own, send it a signal when it tells of a place, and return its status."""
    command = [sys.executable, __file__, "--train", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if strike is not None and line.strip() == at:
                process.send_signal(strike)
            if line.startswith("saved"):
                print(f"  {line.strip()}")
    return process.returncode


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights in the newest checkpoint of a folder."""
    with CheckpointStore(folder, CheckpointConfig(), run_id=None) as store:
        checkpoint = store.newest()
    assert checkpoint is not None
    weights: dict[str, torch.Tensor] = checkpoint.sections["model"]
    return weights


def main() -> int:
    """Disturb one training and not the other; 0 if that made no difference."""
    with tempfile.TemporaryDirectory() as temporary:
        disturbed, undisturbed = Path(temporary, "disturbed"), Path(temporary, "undisturbed")
        for strike, place in ((signal.SIGTERM, "epoch 1, batch 30"), (signal.SIGKILL, "epoch 2, batch 17")):
            status = train_elsewhere(disturbed, strike=strike, at=place)
            remark = "saved, run me again" if status == EXIT_PREEMPTED else "no word; the last checkpoint is there"
            print(f"{strike.name} in {place}: status {status}: {remark}")
        print(f"left alone: status {train_elsewhere(disturbed)}")
        print(f"left alone from the start: status {train_elsewhere(undisturbed)}")
        ours, theirs = final_weights(disturbed), final_weights(undisturbed)
    identical = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    print("the weights are the same, bit for bit" if identical else "THE WEIGHTS DIFFER")
    return 0 if identical else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, metavar="FOLDER", help="only train, with the state in that folder")
    options = parser.parse_args()
    if options.train is None:
        sys.exit(main())
    train(options.train)
