"""A checkpoint of ~600 MB (MTF_BENCH_PARAMETERS), for loop and disk, against a memory copy, a bare write, and peers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from measure import Row
from mtf_trainer.checkpoint import CheckpointStore, Kind, Snapshot, read_checkpoint
from mtf_utils.sections import CheckpointConfig
from training_state import PEERS, Training, read_and_hash, saved_by_torch, write_and_sync

PARAMETERS = int(os.environ.get("MTF_BENCH_PARAMETERS", "50_000_000"))
QUIET_STEPS = 3

Save = Callable[[], Callable[[], bool]]
"""Begins to save, and returns what tells whether the checkpoint is complete."""


def rows(samples: int) -> Iterator[Row]:
    """The store's own figures, those of its peers, and loading."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=os.environ.get("MTF_BENCH_DIR")) as place:
        folder = Path(place)
        training = Training(PARAMETERS)
        config = CheckpointConfig(keep_last=1000)
        with CheckpointStore(folder / "ours", config, run_id="bench") as store:
            yield from _own(training, store, folder, samples)
        yield from _peers(training, folder, samples)


def _snapshot(training: Training) -> Snapshot:
    return Snapshot({"step": 1}, dict(training.state()), 0, 1, steady=training.tensors)


@dataclasses.dataclass
class _Figures:
    """Seconds of each sample."""

    copies: list[float] = dataclasses.field(default_factory=list)
    bare: list[float] = dataclasses.field(default_factory=list)
    in_save: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    slower: list[float] = dataclasses.field(default_factory=list)
    quiets: list[float] = dataclasses.field(default_factory=list)
    beside: list[float] = dataclasses.field(default_factory=list)
    awaited: list[float] = dataclasses.field(default_factory=list)
    blocking: list[float] = dataclasses.field(default_factory=list)


def _own(training: Training, store: CheckpointStore, folder: Path, samples: int) -> Iterator[Row]:
    _sample(training, store, folder, _Figures())  # memory is mapped, code is loaded
    taken = _Figures()
    for _ in range(samples):
        _sample(training, store, folder, taken)
    yield _row("loop's time in save code", "memcpy", taken.in_save, taken.copies)
    yield _row("whole loss of the loop per save", "memcpy", taken.losses, taken.copies)
    yield _row("steps while it is written", "step", taken.slower, taken.quiets)
    yield _row("until durable, while it trains", "write + fsync", taken.beside, taken.bare)
    yield _row("until durable, the loop waits", "write + fsync", taken.awaited, taken.bare)
    yield _row("blocking save, as for a preemption", "write + fsync", taken.blocking, taken.bare)
    yield from _load(store, samples)


def _sample(training: Training, store: CheckpointStore, folder: Path, taken: _Figures) -> None:
    joins: list[float] = []
    ended: list[float] = []

    def save() -> Callable[[], bool]:
        began = time.perf_counter()
        store.save_in_background(_snapshot(training), kind=Kind.PERIODIC)
        threading.Thread(target=lambda: ended.append(_until(lambda: not store.is_saving) - began)).start()
        return lambda: bool(ended)

    def save_and_wait() -> None:
        store.save_in_background(_snapshot(training), kind=Kind.PERIODIC)
        store.wait()

    taken.copies.append(_seconds(training.copy))
    taken.bare.append(_seconds(lambda: write_and_sync(training, folder)))
    (folder / "bare").unlink()
    call_s, steps, quiet = _save_and_train(training, save, lambda: joins.append(_seconds(store.join_copies)))
    taken.in_save.append(call_s + sum(joins))
    taken.losses.append(call_s + sum(steps) - quiet * len(steps))
    taken.slower.append(statistics.mean(steps))
    taken.quiets.append(quiet)
    taken.beside += ended
    _keep_newest(store)
    taken.awaited.append(_seconds(save_and_wait))
    _keep_newest(store)
    taken.blocking.append(_seconds(lambda: store.save(_snapshot(training), kind=Kind.MANUAL)))
    _keep_newest(store)


def _until(condition: Callable[[], bool]) -> float:
    while not condition():
        time.sleep(0.005)
    return time.perf_counter()


def _keep_newest(store: CheckpointStore) -> None:
    """Delete the others, outside what is timed."""
    for path in store.paths()[:-1]:
        shutil.rmtree(path)


def _load(store: CheckpointStore, samples: int) -> Iterator[Row]:
    path = store.paths()[-1]
    read_checkpoint(path)
    loads, bare = [], []
    for _ in range(samples):
        loads.append(_seconds(lambda: read_checkpoint(path)))
        bare.append(_seconds(lambda: read_and_hash(path)))
    yield _row("load, verified", "read + hash", loads, bare)


def _peers(training: Training, folder: Path, samples: int) -> Iterator[Row]:
    yield _peer(training, "torch.save + fsync: loss", lambda: saved_by_torch(training, folder), samples)
    for name, make in PEERS.items():
        with contextlib.contextmanager(make)(training, folder) as save:
            yield _peer(training, f"{name}: loss", save, samples)


def _peer(training: Training, name: str, save: Save, samples: int) -> Row:
    losses, copies = [], []
    for number in range(samples + 1):
        copied = _seconds(training.copy)
        call_s, steps, quiet = _save_and_train(training, save)
        if number:
            losses.append(call_s + sum(steps) - quiet * len(steps))
            copies.append(copied)
    return _row(name, "memcpy", losses, copies)


def _save_and_train(
    training: Training, save: Save, join: Callable[[], None] = lambda: None
) -> tuple[float, list[float], float]:
    """Save, and train until the checkpoint is complete.

    Returns:
        Seconds in the call, of each step until the end, and of a step before.
    """
    quiet = statistics.median(training.step() for _ in range(QUIET_STEPS))
    began = time.perf_counter()
    done = save()
    call_s = time.perf_counter() - began
    steps = [training.step(join)]
    while not done():
        steps.append(training.step(join))
    return call_s, steps, quiet


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _row(name: str, reference: str, taken: list[float], beside: list[float]) -> Row:
    ratios = [one / other for one, other in zip(taken, beside, strict=True)]
    return Row(
        name=name,
        reference=reference,
        median_ms=1000 * statistics.median(taken),
        reference_ms=1000 * statistics.median(beside),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
    )
