"""Sends SIGTERM to one run and SIGKILL to another, each in the middle of an epoch."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mtf_utils.atomic import write_json
from mtf_utils.rundir import RunDirectory, RunDirectoryError, SweepDirectory, read_metrics

STEPS_PER_EPOCH = 90
SIGNALS = (signal.SIGTERM, signal.SIGKILL)


@dataclass(frozen=True)
class Disturbance:
    """What was done to a run, and where that run stood according to its metrics."""

    run: str
    signal_name: str
    epoch: int
    step: int

    @property
    def place(self) -> str:
        """Where the run stood."""
        inside = self.step - self.epoch * STEPS_PER_EPOCH
        return f"in epoch {self.epoch + 1}, step {inside} of {STEPS_PER_EPOCH}"


class Disturber:
    """Watches the runs of a sweep from a thread while the block runs.

    Args:
        sweep: whose runs to disturb.
        record: a file that remembers what was done, for a demo that is interrupted and called again.
    """

    def __init__(self, sweep: SweepDirectory, record: Path) -> None:
        self.sweep = sweep
        self.record = record
        known = json.loads(record.read_text("utf-8")) if record.exists() else []
        self.done = [Disturbance(**item) for item in known]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while len(self.done) < len(SIGNALS) and not self._over.wait(0.05):
            for run in self.sweep.runs():
                if run.name not in [item.run for item in self.done] and self._disturb(run):
                    break

    def _disturb(self, run: RunDirectory) -> bool:
        """Send the next signal if the run is in the middle of an epoch."""
        attempts = run.attempts()
        receipt = attempts[-1].started() if attempts else None
        if receipt is None or attempts[-1].finished() is not None:
            return False
        try:
            records = [record for record in read_metrics(run.metrics_file) if record["event"] == "train"]
        except (FileNotFoundError, RunDirectoryError):
            return False
        if not records:
            return False
        epoch, step = records[-1]["epoch"], records[-1]["step"]
        if epoch < 2 or not 0.2 <= step / STEPS_PER_EPOCH - epoch <= 0.7:
            return False
        number = SIGNALS[len(self.done)]
        if number is signal.SIGKILL:
            os.killpg(receipt.pid, number)  # the whole group at once, as when a node goes down
        else:
            os.kill(receipt.pid, number)  # job.sh passes it on, as it does under Slurm
        self.done.append(Disturbance(run.name, number.name, epoch, step))
        write_json(self.record, [asdict(item) for item in self.done])
        print(f"{number.name} sent to {run.name} {self.done[-1].place}")
        return True
