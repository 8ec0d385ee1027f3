"""Sends SIGTERM to one run of a sweep and SIGKILL to another, each in the middle of its training."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from mtf_slurm.pace import Goal
from mtf_slurm.processes import is_alive
from mtf_utils.atomic import write_json
from mtf_utils.rundir import RunDirectory, RunDirectoryError, SweepDirectory, read_metrics

__all__ = ["SIGNALS", "Disturbance", "Disturber"]

SIGNALS: Final = (signal.SIGTERM, signal.SIGKILL)
"""What a preemption sends, and what a node that dies amounts to."""

POLL_S: Final = 0.02
EARLIEST: Final = 2
"""The epoch, counted from 0, from which on a run is disturbed: by then it has something to lose."""


@dataclass(frozen=True)
class Disturbance:
    """What was done to a run, and where its metrics said that it stood.

    Attributes:
        run: its name.
        signal_name: such as `SIGKILL`.
        epoch: in which it was, counted from 1.
        step: the last optimizer step that it had recorded.
    """

    run: str
    signal_name: str
    epoch: int
    step: int

    @property
    def place(self) -> str:
        """Where it stood."""
        return f"in epoch {self.epoch}, at step {self.step}"


class Disturber:
    """Watches the runs of a sweep from a thread while the block runs.

    Args:
        sweep: whose runs to disturb.
        record: a file that remembers what was done, for a demo that is interrupted and called again.
        say: is told.
    """

    def __init__(self, sweep: SweepDirectory, record: Path, say: Callable[[str], None]) -> None:
        self._sweep, self._record, self._say = sweep, record, say
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
        while len(self.done) < len(SIGNALS) and not self._over.wait(POLL_S):
            for run in self._sweep.runs():
                if run.name not in [item.run for item in self.done] and self._disturb(run):
                    break

    def _disturb(self, run: RunDirectory) -> bool:
        """Send the next signal if the run is in the middle of its training."""
        attempts = run.attempts()
        receipt = attempts[-1].started() if attempts else None
        last = _last_record(run)
        if receipt is None or last is None or attempts[-1].finished() is not None or not is_alive(run, receipt):
            return False
        epoch, epochs = last["epoch"], Goal.of(run).epochs or 0
        if last["event"] != "train" or not EARLIEST <= epoch < epochs - 1:
            return False  # too early to matter, or about to be over
        number = SIGNALS[len(self.done)]
        try:
            if number is signal.SIGKILL:
                os.killpg(receipt.pid, number)  # all of it at once, as when a node goes down
            else:
                os.kill(receipt.pid, number)  # job.sh passes it on, as it does under Slurm
        except ProcessLookupError:
            return False
        self.done.append(Disturbance(run.name, number.name, epoch + 1, last["step"]))
        write_json(self._record, [asdict(item) for item in self.done])
        self._say(f"{number.name} to {run.name} {self.done[-1].place}")
        return True


def _last_record(run: RunDirectory) -> dict[str, Any] | None:
    try:
        records = list(read_metrics(run.metrics_file))
    except (FileNotFoundError, RunDirectoryError):
        return None
    return records[-1] if records else None
