"""What `mtf status --watch` knows of the runs of a sweep: everything once, then what is seen, then the rest in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from mtf_slurm.cluster.watch import Watch
from mtf_slurm.errors import SLURMError
from mtf_slurm.evidence import Witness
from mtf_slurm.pace import Goal, pace_of
from mtf_slurm.selection import Row
from mtf_slurm.status import JobStatus
from mtf_slurm.telemetry import Telemetry, failure_reason, read_records, telemetry_of
from mtf_slurm.views import RunView
from mtf_utils.rundir import SweepDirectory, SweepFile

__all__ = ["Board"]

BUDGET_S: Final = 0.25
"""How long a look reads runs that are not seen."""


@dataclass(frozen=True)
class _Known:
    """A run as it was read last.

    Attributes:
        view: how it stands.
        may_change: whether it is worth another look.
        is_whole: whether its metrics were read, too.
    """

    view: RunView
    may_change: bool
    is_whole: bool


class Board:
    """The runs of a sweep as they are looked at again and again.

    A look reads the runs that are seen, and of the others as many as fit into a fraction of a second, in turn; so a
    sweep of thousands of runs costs no more than what a screen shows. What has finished is not read again.

    Args:
        folder: of the sweep.
        watch: asks Slurm.
        budget_s: how long a look reads runs that are not seen.
        clock: a monotonic clock, in seconds.

    Attributes:
        name: of the sweep.
        cluster_error: why Slurm could not be asked; empty if it could, or need not be.
    """

    def __init__(
        self,
        folder: Path,
        watch: Watch | None = None,
        *,
        budget_s: float = BUDGET_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = SweepDirectory(folder.absolute())
        self.name = ""
        self.cluster_error = ""
        self._watch = watch or Watch()
        self._budget_s, self._clock = budget_s, clock
        self._entries: dict[str, Mapping[str, Any]] = {}
        self._stamp: tuple[int, int] | None = None
        self._known: dict[str, _Known] = {}
        self._goals: dict[str, Goal] = {}
        self._turn: list[str] = []

    def look(self, seen: Collection[str] = (), *, whole: bool = False) -> None:
        """Read what may have changed.

        Args:
            seen: the names of the runs that are shown, which are read in any case.
            whole: whether metrics are needed of every run, because something is sorted by them.

        Raises:
            SLURMError: there is no sweep in the folder.
            RunDirectoryError: a file of a submission cannot be read.
        """
        first = not self._known
        self._read_sweep()
        open_names = {name for name in self._entries if name not in self._known or self._known[name].may_change}
        witness = Witness.look(self.directory, self._watch, patient=True, names=open_names)
        self.cluster_error = witness.observation.queue_error if witness.observation else ""
        for name in self._entries:
            if name in seen or name not in self._known:
                self._read(witness, name, whole=whole or name in seen)
        self._read_others(witness, whole=whole or not first)

    def _read_sweep(self) -> None:
        file = self.directory.sweep_file
        try:
            status = file.stat()
        except FileNotFoundError:
            raise SLURMError(f"{self.directory.path}: there is no sweep here (no {file.name})") from None
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        sweep = SweepFile.read(file)
        if sweep is None:  # it went between the two
            return
        self.name, self._stamp = sweep.name, stamp
        self._entries = {entry["name"]: entry for entry in sweep.runs if not entry.get("orphaned")}
        self._known = {name: known for name, known in self._known.items() if name in self._entries}

    def _read_others(self, witness: Witness, *, whole: bool) -> None:
        until = self._clock() + self._budget_s
        left = len(self._entries)
        while left and self._clock() < until:
            if not self._turn:
                self._turn = list(self._entries)[::-1]
            name = self._turn.pop()
            left -= 1
            known = self._known.get(name)
            if known is not None and (known.may_change or not known.is_whole):
                self._read(witness, name, whole=whole)

    def _read(self, witness: Witness, name: str, *, whole: bool) -> None:
        before = self._known.get(name)
        if before is not None and not before.may_change and (before.is_whole or not whole):
            return
        run = self.directory.run(name)
        evidence, verdict = witness.verdict(name)
        view = RunView(name=name, status=verdict.status, attempts=len(evidence.attempts), reason=verdict.reason)
        if whole:
            goal = self._goals.setdefault(name, Goal.of(run)) if name not in self._goals else self._goals[name]
            records = read_records(run.metrics_file)
            started = evidence.last.started if evidence.last and verdict.status is JobStatus.RUNNING else None
            view = replace(
                view,
                reason=failure_reason(evidence, verdict, run),
                telemetry=telemetry_of(records, goal.monitor),
                goal=goal,
                pace=pace_of(records, goal, started),
            )
        elif before is not None:
            view = replace(view, telemetry=before.view.telemetry, goal=before.view.goal, pace=before.view.pace)
        # only what has finished stays what it is whatever is asked for next
        settled = verdict.status is JobStatus.COMPLETED
        is_whole = whole or (before is not None and before.is_whole)
        self._known[name] = _Known(view, not settled, is_whole)

    def rows(self) -> list[Row]:
        """Every run as it was read last, in the order of the sweep."""
        now = time.time()
        return [self._row(name, now) for name in self._entries if name in self._known]

    def _row(self, name: str, now: float) -> Row:
        view, entry = self._known[name].view, self._entries[name]
        telemetry: Telemetry = view.telemetry
        return Row(
            name=name,
            status=view.status,
            grid=entry["grid"],
            parameters=entry["parameters"],
            attempts=view.attempts,
            epoch=telemetry.epoch,
            step=telemetry.global_step,
            metrics=telemetry.metrics,
            rate=view.pace.steps_per_s,
            left_s=view.pace.left_s(now),
            source=view,
        )

    @property
    def is_over(self) -> bool:
        """Whether no run is at work or waits its turn, as far as is known."""
        return not self.cluster_error and not any(known.view.status.is_active for known in self._known.values())
