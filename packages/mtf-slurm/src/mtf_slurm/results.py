"""The results of a sweep, read from its folder, in any process."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from mtf_slurm import export
from mtf_slurm.cancelling import cancel_runs
from mtf_slurm.cluster.controller import Observation
from mtf_slurm.cluster.holders import rebalance
from mtf_slurm.cluster.reasons import waiting_words, waits_in_vain
from mtf_slurm.cluster.watch import Watch
from mtf_slurm.errors import SLURMError, by_reason
from mtf_slurm.evidence import Witness
from mtf_slurm.requests import check_names, check_path, check_seconds
from mtf_slurm.run_result import RunResult, read_run
from mtf_slurm.status import JobStatus
from mtf_slurm.wording import counted
from mtf_utils.collecting import collection_paused
from mtf_utils.names import nearest
from mtf_utils.rundir import SweepDirectory

if TYPE_CHECKING:
    from mtf_config import ExecutionMode

__all__ = ["GridSearchResult", "RunResult", "read_run"]

logger = logging.getLogger(__name__)

BRISK_S: Final = 0.2
"""How long `wait` pauses at most after a look that found some run over."""

READING_SHARE: Final = 0.2
"""The part of a processor that waiting spends on reading the folder at most."""

_BAD: Final = frozenset(
    {
        JobStatus.BOOT_FAIL,
        JobStatus.DEADLINE,
        JobStatus.FAILED,
        JobStatus.LOST,
        JobStatus.NODE_FAIL,
        JobStatus.OUT_OF_MEMORY,
        JobStatus.TIMEOUT,
        JobStatus.UNKNOWN,
    }
)


class GridSearchResult:
    """The runs of a sweep as they stood at the last `refresh`.

    Args:
        output_dir: the folder of the sweep.
        unnoted: why the launcher gave runs up, by token and name, where the disk took no note of it.
        watch: asks Slurm; None is one of its own.

    Raises:
        SLURMError: there is no sweep in that folder.

    Attributes:
        output_dir: the folder of the sweep.
        name: of the sweep.
        mode: how it was last submitted; None if it never was.
        runs: the runs, in the order of the sweep.
        orphans: runs that an earlier form of the sweep asked for. They are in no count and no table, but their folders
            are still there, and who is at work goes on.
        cluster_error: why Slurm could not be asked about the runs; empty if it could, or had nothing to say of them.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        *,
        unnoted: Mapping[tuple[str, str], str] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.output_dir = check_path("output_dir", output_dir, "the folder of a sweep")
        self._unnoted = dict(unnoted or {})
        self._watch = watch or Watch()
        self.name = ""
        self.mode: ExecutionMode | None = None
        self.runs: tuple[RunResult, ...] = ()
        self.orphans: tuple[RunResult, ...] = ()
        self.cluster_error = ""
        self._observation: Observation | None = None
        self._read(patient=False)

    @classmethod
    def load(cls, output_dir: str | os.PathLike[str]) -> Self:
        """The results in a folder, whoever started the sweep.

        Raises:
            SLURMError: there is no sweep in that folder.
        """
        return cls(output_dir)

    def refresh(self) -> Self:
        """Read the folder again, and ask Slurm, once, about the jobs of runs that have not finished.

        Where max_concurrent_jobs leaves some jobs waiting although others have ended, those waiting get their place.
        """
        self._read(patient=False)
        self._rebalance()
        return self

    def _read(self, *, patient: bool) -> None:
        directory = SweepDirectory(self.output_dir)
        sweep = directory.sweep()
        if sweep is None:
            raise SLURMError(f"{self.output_dir}: there is no sweep here (no {directory.sweep_file.name})")
        known = (*self.runs, *self.orphans) if patient else ()
        settled = {run.name: run for run in known if run.status is JobStatus.COMPLETED}
        names = {entry["name"] for entry in sweep.runs} - set(settled)
        witness = Witness.look(directory, self._watch, patient=patient, names=names)
        witness.unnoted |= self._unnoted
        self.name = sweep.name
        self.mode = max(witness.latest.values(), key=lambda item: item.token).mode if witness.latest else None
        self._observation = witness.observation
        self.cluster_error = witness.observation.queue_error if witness.observation else ""
        with collection_paused():
            runs = {entry["name"]: settled.get(entry["name"]) or read_run(witness, entry) for entry in sweep.runs}
        self.runs = tuple(runs[entry["name"]] for entry in sweep.runs if not entry.get("orphaned"))
        self.orphans = tuple(runs[entry["name"]] for entry in sweep.runs if entry.get("orphaned"))

    def _rebalance(self) -> None:
        if self._observation is None:
            return
        try:
            rebalance(SweepDirectory(self.output_dir), self._watch.controller, self._observation)
        except (SLURMError, OSError) as error:  # nothing is wrong but that jobs wait longer
            logger.warning("%s: idle places could not be given to waiting jobs: %s", self.output_dir, error)

    def wait(
        self,
        timeout_s: float | None = None,
        *,
        poll_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Self:
        """Wait until no run is at work or waits its turn, and while the cluster cannot be asked.

        The folder is read every `poll_s` seconds, or less often if that takes long; once a run has ended, others may be
        about to, and the next look comes sooner. Slurm is asked at intervals that grow with the number of jobs and
        while nothing happens.

        Args:
            timeout_s: how long at most; None is no limit.
            poll_s: seconds between two looks into the folder while nothing ends.
            clock: a monotonic clock, in seconds.
            sleep: waits for some seconds.

        Raises:
            TimeoutError: some run is still active, or cannot be told of.
            SLURMError: a time is no number of seconds.
        """
        poll_s = check_seconds("poll_s", poll_s)
        timeout_s = None if timeout_s is None else check_seconds("timeout_s", timeout_s)
        start = clock()
        complaint, stuck, spent_s = "", dict[str, str](), 0.0
        pause_s = poll_s
        while still := [run.name for run in self.runs if run.may_change]:
            if timeout_s is not None and clock() - start >= timeout_s:
                raise TimeoutError(_still_active(still, timeout_s))
            if self.cluster_error != complaint:
                complaint = self.cluster_error
                logger.warning("%s", f"Slurm cannot be asked ({complaint}); waiting" if complaint else "Slurm answers")
            if (found := self._in_vain()) != stuck:
                stuck = found
                for line in by_reason(stuck):
                    logger.warning("waiting in vain, see mtf explain: %s", line)
            sleep(max(pause_s, spent_s / READING_SHARE))
            began = time.thread_time()  # a machine that is busy with the runs is no reason to look less often
            before = self._observation
            self._read(patient=True)
            if self._observation is not before:
                self._rebalance()
            pause_s = poll_s if sum(run.may_change for run in self.runs) == len(still) else min(poll_s, BRISK_S)
            spent_s = time.thread_time() - began
        return self

    def _in_vain(self) -> dict[str, str]:
        """Runs whose jobs are not going to start unless somebody does something about it, by name, and why."""
        tasks = self._observation.tasks if self._observation else {}
        waiting = ((run, tasks.get((run.job_id or "").partition("/")[0])) for run in self.runs if run.may_change)
        return {
            run.name: waiting_words(task.reason)
            for run, task in waiting
            if task is not None and run.status is JobStatus.PENDING and waits_in_vain(task.reason)
        }

    def cancel(self, names: Iterable[str] | None = None) -> dict[str, bool]:
        """Have runs save and end, and not be started again.

        Args:
            names: of the runs, also of those that are orphaned; None is all that are not.

        Returns:
            Whether the run was active, by name.

        Raises:
            KeyError: there is no run of a name.
            SLURMError: the names are no list, or the cluster refuses.
            ClusterUnreachableError: the cluster cannot be reached; runs on this machine were told all the same.
        """
        chosen = [run.name for run in self.runs] if names is None else [self[name].name for name in check_names(names)]
        done = cancel_runs(SweepDirectory(self.output_dir), chosen, self._watch)
        self.refresh()
        return done

    def __iter__(self) -> Iterator[RunResult]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, name: str) -> RunResult:
        for run in (*self.runs, *self.orphans):
            if run.name == name:
                return run
        guess = nearest(name, [run.name for run in self.runs])
        raise KeyError(f"{name!r} is no run of {self.output_dir}" + (f"; did you mean {guess!r}?" if guess else ""))

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status.value}" for status, count in self.counts.items())
        return f"<GridSearchResult {self.name!r}: {counted(len(self), 'run')} ({counts}) in {str(self.output_dir)!r}>"

    @property
    def orphaned(self) -> tuple[str, ...]:
        """The names of runs that an earlier form of the sweep asked for."""
        return tuple(run.name for run in self.orphans)

    @property
    def counts(self) -> dict[JobStatus, int]:
        """How many runs are in which state; states without runs are left out."""
        return dict(sorted(Counter(run.status for run in self.runs).items()))

    @property
    def is_complete(self) -> bool:
        """Whether every run has finished."""
        return all(run.status is JobStatus.COMPLETED for run in self.runs)

    def failures(self) -> dict[str, str]:
        """Why runs failed, were ended by Slurm, lost or could not be started, by name.

        The exception's last line in the log, else what the receipt says, else what the launcher said.
        """
        refused = (run.status is JobStatus.NOT_SUBMITTED and run.reason for run in self.runs)
        return {run.name: run.reason for run, no in zip(self.runs, refused, strict=True) if no or run.status in _BAD}

    def leaderboard(
        self, metric: str, mode: Literal["min", "max"] = "min", *, top: int | None = None, unfinished: bool = False
    ) -> list[RunResult]:
        """The runs from best to worst by the last value of a metric; runs without a number for it are left out.

        Args:
            metric: such as `val_loss`.
            mode: whether the smallest or the largest is the best.
            top: how many at most; None is all.
            unfinished: whether runs that have not finished take part, with the last value recorded.

        Raises:
            SLURMError: the mode is unknown, or no run that takes part has the metric.
        """
        if mode not in ("min", "max"):
            raise SLURMError(f"mode={mode!r}: expected 'min' or 'max'")
        taking_part = [run for run in self.runs if unfinished or run.status is JobStatus.COMPLETED]
        ranked = [(value, run) for run in taking_part if (value := _number(run, metric)) is not None]
        if not ranked:
            raise SLURMError(self._why_no_metric(metric, taking_part))
        ranked.sort(key=lambda item: item[0] if mode == "min" else -item[0])
        return [run for _, run in ranked[:top]]

    def best(self, metric: str, mode: Literal["min", "max"] = "min") -> RunResult:
        """The finished run with the best last value of a metric.

        Raises:
            SLURMError: the mode is unknown, or no finished run has the metric.
        """
        return self.leaderboard(metric, mode, top=1)[0]

    def _why_no_metric(self, metric: str, runs: list[RunResult]) -> str:
        if not runs:
            return f"{self.output_dir}: no run has finished yet"
        known = sorted({name for run in runs for name in run.metrics})
        guess = nearest(metric, known)
        hint = f"did you mean {guess!r}?" if guess and guess != metric else f"there are: {', '.join(known) or 'none'}"
        return f"no run has a number for the metric {metric!r}; {hint}"

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a table with one line a run and return its path; no text in it is taken for a formula."""
        return export.write_csv(Path(path), export.rows(self.runs))

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write everything that is known of the runs and return the file's path."""
        return export.write_json(Path(path), self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Everything that is known of the runs, as plain data."""
        return {
            "name": self.name,
            "output_dir": str(self.output_dir),
            "mode": self.mode.value if self.mode else None,
            "cluster_error": self.cluster_error,
            "counts": {status.value: count for status, count in self.counts.items()},
            "runs": [export.run_to_dict(run) for run in self.runs],
            "orphaned": list(self.orphaned),
        }

    def to_dataframe(self) -> Any:
        """The table as a pandas DataFrame.

        Raises:
            SLURMError: pandas is not installed.
        """
        return export.to_dataframe(export.rows(self.runs))


def _still_active(names: Sequence[str], timeout_s: float) -> str:
    if len(names) == 1:
        return f"{names[0]} is still active after {timeout_s} s"
    return f"{len(names)} runs are still active after {timeout_s} s, such as {names[0]}"


def _number(run: RunResult, metric: str) -> float | None:
    value = run.metrics.get(metric)
    return value if value is not None and not math.isnan(value) else None
