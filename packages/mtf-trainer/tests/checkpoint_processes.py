"""Processes that save checkpoints, are killed, or hold the lock: a script for the tests.

It imports torch once and forks for every process that is to die, and reports in JSON lines.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sys
import threading
from pathlib import Path

import torch

from mtf_trainer.checkpoint import CheckpointStore, Kind, Snapshot
from mtf_utils.sections import CheckpointConfig

CONFIG = CheckpointConfig(keep_last=1, save_top_k=1)
CALLS = {"open", "write", "flush", "fsync", "close", "rename", "replace", "mkdir", "rmdir", "unlink", "scandir"}


def snapshot(step, size):
    model = {f"layer.{index}": torch.full((size,), step + index / 8) for index in range(4)}
    return Snapshot({"step": step}, {"model": model, "training": {"step": step}}, 0, step, metric=float(step % 5))


def report(directory):
    """What a new process finds: every checkpoint must be whole, the newest right, and nothing half-done left."""
    with CheckpointStore(directory, CONFIG, run_id="run") as store:
        for path in store.paths():
            store.load(path)
        checkpoint = store.newest()
        names = sorted(entry.name for entry in directory.iterdir() if entry.name not in (".lock", "latest"))
    found = {"names": names, "step": None, "whole": True}
    if checkpoint is not None:
        step = found["step"] = checkpoint.global_step
        expected = snapshot(step, checkpoint.sections["model"]["layer.0"].numel())
        same = [
            torch.equal(value, expected.sections["model"][key]) for key, value in checkpoint.sections["model"].items()
        ]
        found["whole"] = all(same) and len(same) == 4 and checkpoint.resume == {"step": step}
    return found


def fork(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return pid


def save_without_end(directory, pipe):
    with CheckpointStore(directory, CONFIG, run_id="run") as store:
        newest = store.newest()
        step = 0 if newest is None else newest.global_step
        while True:
            step += 1
            if step % 2:
                store.save(snapshot(step, 50_000), kind=Kind.PERIODIC)
            else:
                store.save_in_background(snapshot(step, 50_000), kind=Kind.PERIODIC)
            durable = max(int(path.name[-8:]) for path in store.paths())
            os.write(pipe, durable.to_bytes(8, "little"))


def kill_at_random(directory, count, seed):
    """Kill a process that saves all the time, again and again; say what was durable and what is found."""
    generator = random.Random(seed)
    durable = 0
    for _ in range(count):
        reading, writing = os.pipe()
        pid = fork(lambda pipe=writing: save_without_end(directory, pipe))
        os.close(writing)
        for _ in range(generator.randrange(4)):
            durable = max(durable, int.from_bytes(os.read(reading, 8), "little"))
        moment = generator.random() * 0.02
        while select.select([reading], [], [], moment)[0] and generator.random() < 0.7:
            durable = max(durable, int.from_bytes(os.read(reading, 8), "little"))
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        while select.select([reading], [], [], 0)[0] and (rest := os.read(reading, 8)):
            durable = max(durable, int.from_bytes(rest, "little"))
        os.close(reading)
        print(json.dumps(report(directory) | {"durable": durable, "signal": os.WTERMSIG(status)}), flush=True)


def save_once_more(directory):
    """Save the step after the newest, uninterrupted, and say what is found then."""
    with CheckpointStore(directory, CONFIG, run_id="run") as store:
        store.save(snapshot(store.newest().global_step + 1, 50_000), kind=Kind.PERIODIC)
    print(json.dumps(report(directory)), flush=True)


def save_until_call(directory, number):
    """Save once; die immediately before the call of that number that could change the disk."""
    with CheckpointStore(directory, CONFIG, run_id="run") as store:
        calls = 0

        def count(frame, event, function):
            nonlocal calls
            if event == "c_call" and function.__name__ in CALLS:
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        threading.setprofile(count)  # it is a thread of the store that writes
        store.save(snapshot(2, 100), kind=Kind.PERIODIC)
        threading.setprofile(None)
        os._exit(0)


def kill_at_every_call(directory):
    """Kill a save before each of its calls in turn, until one gets through."""
    original = directory / "original"
    with CheckpointStore(original, CONFIG, run_id="run") as store:
        store.save(snapshot(1, 100), kind=Kind.PERIODIC)
    number, killed = 0, True
    while killed:
        number += 1
        copy = directory / str(number)
        shutil.copytree(original, copy)
        status = os.waitpid(fork(lambda place=copy, call=number: save_until_call(place, call)), 0)[1]
        killed = os.WIFSIGNALED(status)
        print(json.dumps(report(copy) | {"killed": killed, "status": status}), flush=True)


def hold(directory):
    """Hold the lock until the input ends."""
    with CheckpointStore(directory, CONFIG, run_id="holder"):
        print(json.dumps({"pid": os.getpid()}), flush=True)
        sys.stdin.read()


def hold_in_a_parent(directory):
    """Hold the lock in a process with a forked child that outlives it."""
    store = CheckpointStore(directory, CONFIG, run_id="holder")
    child = fork(lambda: sys.stdin.read())
    print(json.dumps({"pid": os.getpid(), "child": child}), flush=True)
    signal.pause()
    store.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    mode, place, *numbers = sys.argv[1:]
    globals()[mode](Path(place), *map(int, numbers))
