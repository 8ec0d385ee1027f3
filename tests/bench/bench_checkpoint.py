"""A checkpoint of ~600 MB (MTF_BENCH_PARAMETERS), for loop and disk, against a memory copy, a bare write, and peers."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import tempfile
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


def _own(training: Training, store: CheckpointStore, folder: Path, samples: int) -> Iterator[Row]:
    in_save: list[float] = []
    losses: list[float] = []
    slower: list[float] = []
    copies: list[float] = []
    quiets: list[float] = []
    durable: list[float] = []
    bare: list[float] = []

    def save() -> Callable[[], bool]:
        store.save_in_background(_snapshot(training), kind=Kind.PERIODIC)
        return lambda: not store.is_saving

    store.save(_snapshot(training), kind=Kind.INITIAL)
    for number in range(samples + 1):
        joins: list[float] = []

        def join(joins: list[float] = joins) -> None:
            began = time.perf_counter()
            store.join_copies()
            joins.append(time.perf_counter() - began)

        copied = _seconds(training.copy)
        wrote = _seconds(lambda: write_and_sync(training, folder))
        call_s, steps, quiet = _save_and_train(training, save, join)
        if number == 0:  # memory is mapped, code is loaded
            store.wait()
            _clean(folder, store)
            continue
        copies.append(copied)
        bare.append(wrote)
        in_save.append(call_s + sum(joins))
        losses.append(call_s + sum(steps) - quiet * len(steps))
        slower.append(statistics.mean(steps))
        quiets.append(quiet)
        began = time.perf_counter()
        store.save_in_background(_snapshot(training), kind=Kind.PERIODIC)
        store.wait()
        durable.append(time.perf_counter() - began)
        _clean(folder, store)
    yield _row("loop's time in save code", "memcpy", in_save, copies)
    yield _row("whole loss of the loop per save", "memcpy", losses, copies)
    yield _row("steps while it is written", "step", slower, quiets)
    yield _row("until durable", "write + fsync", durable, bare)
    yield from _load(store, samples)


def _clean(folder: Path, store: CheckpointStore) -> None:
    """Delete what is not needed, outside what is timed."""
    (folder / "bare").unlink()
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
