"""An emergency save on a slow disk: durable in every case that is feasible, and a verdict in time in the rest.

Run it as `python tests/bench/deadlines.py [--megabytes N] [--rate N]`; it ends with status 1 if a case went wrong.
Every write is slowed down to the rate; with and without a save in the background that was begun before.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mtf_trainer.checkpoint import CheckpointStore, Kind, Snapshot
from mtf_trainer.errors import PreemptionTimeoutError
from mtf_utils.sections import CheckpointConfig

GRACE_S = (2.0, 3.0, 5.0, 8.0, 12.0, 30.0)
HEADSTART = (None, 0.1, 0.5, 0.9)
"""How far the save in the background has come when the signal arrives, as a part of its time; None: there is none."""

MARGIN = 1.25
"""A case counts as feasible if the grace period is longer than the bytes take by this factor."""


def slow_down(rate: float) -> None:
    """Let `os.write` take as long as a disk of `rate` bytes per second."""
    write = os.write

    def slow(descriptor: int, data: Any) -> int:
        time.sleep(len(data) / rate)
        return write(descriptor, data)

    os.write = slow


def snapshot(size: int, step: int) -> Snapshot:
    """A state of `size` bytes."""
    weight = torch.full((size // 4,), float(step))
    return Snapshot({"step": step}, {"model": {"weight": weight}}, 0, step, steady=[weight])


def case(folder: Path, size: int, rate: float, grace_s: float, headstart: float | None) -> tuple[bool, str]:
    """One emergency; returns whether it went as it must, and what happened."""
    takes_s = size / rate
    with CheckpointStore(folder, CheckpointConfig(), run_id="run") as store:
        first = store.save(snapshot(size, 1), kind=Kind.INITIAL)
        if headstart is not None:
            store.save_in_background(snapshot(size, 2), kind=Kind.PERIODIC)
            time.sleep(headstart * takes_s)
        began = time.monotonic()
        try:
            path = store.save(snapshot(size, 3), kind=Kind.EMERGENCY, deadline_s=grace_s)
        except PreemptionTimeoutError as error:
            took_s = time.monotonic() - began
            durable = store.load(store.paths()[-1]).global_step
            right = grace_s < MARGIN * takes_s and took_s < grace_s + 1.5 and str(error.path) in str(error)
            return right, f"verdict after {took_s:.1f} s, step {durable} is durable"
        took_s = time.monotonic() - began
        right = store.load(path).global_step == 3 and took_s < grace_s + 0.5 and first != path
        return right, f"durable after {took_s:.1f} s"


def main() -> int:
    """Run every case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=20, help="megabytes per second")
    arguments = parser.parse_args()
    size, rate = int(arguments.megabytes * 1e6), arguments.rate * 1e6
    slow_down(rate)
    wrong = 0
    for grace_s in GRACE_S:
        for headstart in HEADSTART:
            with tempfile.TemporaryDirectory() as place:
                right, outcome = case(Path(place), size, rate, grace_s, headstart)
            beside = "alone" if headstart is None else f"another {headstart:.0%} done"
            wrong += not right
            verdict = "as it must" if right else "WRONG"
            print(
                f"{size / rate:.1f} s of writing, grace {grace_s:4.0f} s, {beside:>16}: {outcome}: {verdict}",
                flush=True,
            )
    print(f"{wrong} of {len(GRACE_S) * len(HEADSTART)} cases went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
