"""Resuming at batch k of a shuffled epoch of 10^7 samples, against batch 10: `fit()` up to the first training step."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from measure import Row, compare, compare_timed
from mtf_trainer import CheckpointConfig, GenericTrainer, GenericTrainerConfig, LoggingConfig
from mtf_trainer.checkpoint import CheckpointStore, Kind, Snapshot
from mtf_trainer.phases import TrainerPhase
from mtf_trainer.state import ResumeState, TrainMicroState

SAMPLES = 10**7
BATCH = 8
FIRST = 10
BATCHES = (10**3, 10**5, 10**6)
_randperm = torch.randperm


class Numbers(Dataset[torch.Tensor]):
    """As many samples as wanted, none of them stored."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((4,), index / SAMPLES)


class ReachedError(Exception):
    """The first training step has its batch."""


class Resuming(GenericTrainer):
    """Stops the clock at its first step."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        if batch_idx > 0:
            raise ReachedError(batch_idx, time.perf_counter())
        return {"loss": self.model(batch).mean()}


def rows(samples: int) -> Iterator[Row]:
    """Each position against batch 10; then the permutation, which is made once in every start and left out above."""
    with tempfile.TemporaryDirectory() as folder, permutations_made_once():
        root = Path(folder)
        begin(root / "begun")
        for batch in (FIRST, *BATCHES):
            forge(root / "begun", root / str(batch), batch)
        reference = functools.partial(resume, root / str(FIRST), FIRST)
        for batch in BATCHES:
            subject = functools.partial(resume, root / str(batch), batch)
            yield compare_timed(f"resume at batch {batch:,}", subject, f"resume at batch {FIRST}", reference, samples)
        permute = functools.partial(_randperm, SAMPLES)
        yield compare("the permutation itself, made apart", permute, f"resume at batch {FIRST}", reference, samples)


@contextmanager
def permutations_made_once() -> Iterator[None]:
    """Give the same permutation again without the work of making it, for the same length and seed."""
    made: dict[tuple[int, int], torch.Tensor] = {}

    def randperm(size: int, *, generator: torch.Generator) -> torch.Tensor:
        key = (size, generator.initial_seed())
        if key not in made:
            made[key] = _randperm(size, generator=generator)
        return made[key]

    torch.randperm = randperm  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.randperm = _randperm


def fit(directory: Path) -> None:
    """Train, or continue what the directory holds."""
    saving = CheckpointConfig(checkpoint_dir=str(directory), save_every_n_epochs=None)
    logging = LoggingConfig(log_level="ERROR")
    trainer = Resuming(GenericTrainerConfig(epochs=1, seed=3, device="cpu", checkpoint=saving, logging=logging))
    model = nn.Linear(4, 1)
    loader = DataLoader(Numbers(), batch_size=BATCH, shuffle=True)
    trainer.fit(model, torch.optim.AdamW(model.parameters()), loader)


def begin(directory: Path) -> None:
    """Leave a checkpoint of a run that has begun, made by `fit` itself."""
    try:
        fit(directory)
    except ReachedError:
        return


def forge(begun: Path, directory: Path, batch: int) -> None:
    """Make the checkpoint of a run that stands before that batch, without training so far."""
    config = CheckpointConfig(checkpoint_dir=str(directory))
    with CheckpointStore(begun, config, run_id="run") as store:
        checkpoint = store.newest()
    assert checkpoint is not None
    directory.mkdir()
    (directory / "metrics.jsonl").touch()
    state = replace(
        ResumeState.from_dict(checkpoint.resume),
        phase=TrainerPhase.TRAIN_BATCH_LOAD,
        global_step=batch,
        train=TrainMicroState(batch_idx=batch),
    )
    snapshot = Snapshot(state.to_dict(), checkpoint.sections, 0, batch, fingerprint=checkpoint.fingerprint)
    with CheckpointStore(directory, config, run_id="run") as store:
        store.save(snapshot, kind=Kind.MANUAL)


def resume(directory: Path, batch: int) -> float:
    """Seconds from the call of `fit` until the step has its batch."""
    start = time.perf_counter()
    try:
        fit(directory)
    except ReachedError as reached:
        found, end = reached.args
        assert found == batch
        return float(end - start)
    raise RuntimeError(f"training did not reach batch {batch}")
