"""One sweep whose runner is killed at random and called again, until it is done; and what is wrong with it then."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mtf_slurm import GridSearchResult, JobStatus
from mtf_utils.rundir import Outcome, RunDirectory, SweepDirectory
from sweeping.project import outcome_of

__all__ = ["Kill", "Round"]

DRIVER: Final = Path(__file__).with_name("driver.py")
LONGEST_S: Final = 600.0
TARGETS: Final = ("runner", "everything")


@dataclass(frozen=True)
class Kill:
    """One SIGKILL.

    Attributes:
        target: the runner alone, whose runs go on, or everything, as when the machine goes down.
        after_s: seconds since the call began.
        at_work: how many runs were at work.
    """

    target: str
    after_s: float
    at_work: int


@dataclass
class Round:
    """A sweep in a folder of its own.

    Attributes:
        project: the folder of the project.
        folder: of the sweep.
        runs: how many it has.
        pace_s: how long a training step takes.
        kills: those that hit.
        calls: how often it was called.
    """

    project: Path
    folder: Path
    runs: int
    pace_s: float
    kills: list[Kill] = field(default_factory=list)
    calls: int = 0

    def play(self, chance: random.Random, most: int, longest_s: float) -> None:
        """Call and kill until the sweep is done, or until there were enough kills; then call until it is done.

        Args:
            chance: chooses targets and moments.
            most: how many kills there are at most.
            longest_s: how long a call goes on at most before it is killed.
        """
        while len(self.kills) < most:
            with self._called() as call:
                began, patience_s = time.monotonic(), chance.uniform(0, longest_s)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    call.wait(patience_s)
                    return
                target = chance.choice(TARGETS)
                self.kills.append(Kill(target, time.monotonic() - began, len(self._pids_of_runs())))
                call.kill()
                if target == "everything":
                    self._kill_runs()
        self.finish()

    def finish(self) -> None:
        """Call it and let it be."""
        with self._called() as call:
            call.wait(LONGEST_S)

    @contextlib.contextmanager
    def _called(self) -> Iterator[subprocess.Popen[bytes]]:
        self.calls += 1
        words = [sys.executable, str(DRIVER), str(self.project), str(self.folder), str(self.runs), str(self.pace_s)]
        with self.log.open("ab") as log:
            call = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            yield call
        finally:
            call.kill()
            call.wait()

    @property
    def log(self) -> Path:
        """What all calls printed."""
        return self.folder.with_suffix(".log")

    def _kill_runs(self) -> None:
        while pids := self._pids_of_runs():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _pids_of_runs(self) -> list[int]:
        """The processes of the sweep's runs: those that say so, and the scripts that start them."""
        found = []
        inside = f"{self.folder}/runs/".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                said = (entry / "environ").read_bytes() + b"\0" + (entry / "cmdline").read_bytes()
                if b"MTF_RUN_DIR=" + inside in said or inside in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def outcomes(self) -> dict[str, Any]:
        """What the runs came to, by name."""
        return {run.name: outcome_of(run) for run in SweepDirectory(self.folder).runs()}

    def faults(self, wanted: dict[str, Any]) -> list[str]:
        """What is wrong with the sweep now that it should be done.

        Args:
            wanted: what undisturbed runs come to.
        """
        result = GridSearchResult.load(self.folder)
        found = [f"{run.name}: {run.status}: {run.reason}" for run in result if run.status is not JobStatus.COMPLETED]
        found += [fault for run in SweepDirectory(self.folder).runs() for fault in _faults_of(run)]
        outcomes = self.outcomes()
        found += [
            f"{name}: differs in {_differing(outcomes.get(name, {}), wanted[name])}"
            for name in wanted
            if outcomes.get(name) != wanted[name]
        ]
        found += ["there are other runs than there should be"] if set(outcomes) != set(wanted) else []
        found += [f"process {pid} is still at work" for pid in self._pids_of_runs()]
        before = {run.name: run.attempts for run in result}
        self.finish()
        after = {run.name: run.attempts for run in result.refresh()}
        return found + (["another call did something again"] if before != after else [])

    @property
    def attempts(self) -> int:
        """How many attempts all runs together took."""
        return sum(len(run.attempts()) for run in SweepDirectory(self.folder).runs())


def _faults_of(run: RunDirectory) -> list[str]:
    receipts = [attempt.finished() for attempt in run.attempts()]
    times = sum(receipt is not None and receipt.outcome is Outcome.FINISHED for receipt in receipts)
    found = [] if times == 1 else [f"{run.name}: finished {times} times"]
    return [*found, f"{run.name}: two attempts were at work at once"] if (run.path / "two-at-once").exists() else found


def _differing(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    return ", ".join(part for part in wanted if found.get(part) != wanted[part])
