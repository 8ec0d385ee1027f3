"""The cluster as the launcher sees it: ask for the state of jobs, submit, cancel; silence is never an answer."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from mtf_slurm.cluster.answers import (
    ACCOUNTING_FIELDS,
    PARTITION_FORMAT,
    PEAK_FIELDS,
    QUEUE_FIELDS,
    ClusterConfig,
    Partition,
    TaskState,
    base_id,
    complaint,
    parse_accounting,
    parse_config,
    parse_partitions,
    parse_peaks,
    parse_queue,
)
from mtf_slurm.cluster.programs import PROGRAM_TIMEOUT_S, Ran, RunProgram, run_program
from mtf_slurm.cluster.refusals import Answer, is_silence, read_answer
from mtf_slurm.cluster.silence import Silence
from mtf_slurm.errors import ClusterUnreachableError, SLURMError, SlurmNotFoundError
from mtf_slurm.status import JobStatus

__all__ = ["Controller", "Observation"]

# sacct looks back no further than today unless it is told to; for ids it does by itself
_SINCE: Final = "now-30days"
_IDS_AT_ONCE: Final = 500
_FINISHED_ALREADY: Final = re.compile(r"already (finished|completing)|No error", re.IGNORECASE)
_GONE: Final = re.compile(rf"{_FINISHED_ALREADY.pattern}|Invalid job id", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the cluster said of jobs at one moment.

    Attributes:
        tasks: the state of jobs and of tasks of arrays, by id.
        outdated: by id, what sacct calls active although the controller answered and does not know it: the job ended
            a moment ago and sacct lags, or the controller lost it in a crash.
        queue_error: why squeue did not answer; empty if it did.
        accounting_error: why sacct did not answer; empty if it did, or was not needed.
        min_job_age_s: how long squeue remembers a job that is over; None if that is not known.
        seen_at: when, in seconds since 1970.
    """

    tasks: Mapping[str, TaskState] = field(default_factory=dict)
    outdated: Mapping[str, TaskState] = field(default_factory=dict)
    queue_error: str = ""
    accounting_error: str = ""
    min_job_age_s: int | None = None
    seen_at: float = 0.0

    def find(self, job_id: str, job_name: str) -> TaskState | None:
        """What is known of a job; an id that now belongs to a job of another name tells nothing about it."""
        task = self.tasks.get(job_id)
        return task if task is not None and task.job_name == job_name else None

    def ids_named(self, job_name: str) -> set[str]:
        """The ids of the whole jobs of that name that are known."""
        return self._ids_by_name.get(job_name, set())

    @cached_property
    def _ids_by_name(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for task in self.tasks.values():
            found.setdefault(task.job_name, set()).add(base_id(task.job_id))
        return found


class Controller:
    """Asks the cluster, and tells it what to do.

    Args:
        run: runs a program of Slurm.
        wall_clock: seconds since 1970.
        say: tells the user that Slurm does not answer; None is a warning in the log.
    """

    def __init__(
        self,
        run: RunProgram = run_program,
        *,
        wall_clock: Callable[[], float] = time.time,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._run = run
        self._wall_clock = wall_clock
        self._silence = Silence(say)
        self._silence_of_accounts = Silence(say)
        self._config: ClusterConfig | None = None
        self._peaks: dict[tuple[str, str], str] = {}

    @contextlib.contextmanager
    def waiting(self, timeout_s: float) -> Iterator[None]:
        """While the block runs, what is not answered is asked again until so many seconds from now."""
        with self._silence.until(timeout_s), self._silence_of_accounts.until(timeout_s):
            yield

    def settings(self) -> ClusterConfig:
        """The controller's configuration, asked for once.

        Raises:
            ClusterUnreachableError: it does not answer.
        """
        if self._config is None:
            self._config = parse_config(self._ask(["scontrol", "show", "config"]))
        return self._config

    def partitions(self) -> list[Partition]:
        """The partitions that this user sees.

        Raises:
            ClusterUnreachableError: the controller does not answer.
        """
        return parse_partitions(self._ask(["sinfo", "--summarize", "--noheader", f"--format={PARTITION_FORMAT}"]))

    def observe(self, job_ids: Collection[str], *, names: Collection[str] = ()) -> Observation:
        """Look at jobs: one squeue, and one sacct for what it does not know (or two, if names are missing as well).

        One more asks for the memory of jobs that were killed, until it is known.

        Args:
            job_ids: of whole jobs or tasks.
            names: of jobs whose ids are not known.

        Returns:
            Every job of this user that squeue tells of, and what sacct tells of the others that are asked for. If the
            cluster cannot be asked, that is said, and nothing is raised.
        """
        seen_at = self._wall_clock()
        if not job_ids and not names:
            return Observation(seen_at=seen_at)
        queued, queue_error = self._queue()
        known = {base_id(job_id) for job_id in queued} | set(queued)
        missing = {base_id(job_id) for job_id in job_ids if job_id not in known}
        unseen = set(names) - {task.job_name for task in queued.values()}
        recorded, accounting_error = self._accounts(missing, unseen)
        outdated = {job_id: task for job_id, task in recorded.items() if task.state.is_active and not queue_error}
        tasks = {job_id: task for job_id, task in recorded.items() if job_id not in outdated} | queued
        min_job_age_s = self._min_job_age_s()  # first, for it tells whether there are accounts
        return Observation(
            tasks=self._with_peaks(tasks, {base_id(job_id) for job_id in job_ids}),
            outdated={job_id: task for job_id, task in outdated.items() if job_id not in queued},
            queue_error=queue_error,
            accounting_error=accounting_error,
            min_job_age_s=min_job_age_s,
            seen_at=seen_at,
        )

    def queue(self) -> Observation:
        """Look at every job of this user that is active, or was a short time ago; the accounting is not asked."""
        seen_at = self._wall_clock()
        queued, queue_error = self._queue()
        return Observation(tasks=queued, queue_error=queue_error, min_job_age_s=self._min_job_age_s(), seen_at=seen_at)

    def submit(self, script: Path, options: Sequence[str], *, keep_open: Sequence[int] = ()) -> Answer:
        """Have sbatch queue a script, once; what came of that may be unclear.

        Args:
            script: its path.
            options: of sbatch.
            keep_open: file descriptors that sbatch inherits, and with them the locks that they hold.

        Raises:
            ClusterUnreachableError: there is no sbatch here.
        """
        return read_answer(self._call(["sbatch", "--parsable", *options, str(script)], keep_open=keep_open))

    def cancel(self, job_ids: Iterable[str], *, job_name: str | None = None) -> None:
        """End jobs or tasks of arrays; those that are over or unknown are no error.

        Args:
            job_ids: of whole jobs or tasks.
            job_name: of whole jobs only if that is their name: an id may have passed to another job. Of tasks this has
                to be known.

        Raises:
            ClusterUnreachableError: the controller does not answer.
            SLURMError: it refuses.
        """
        words = _compact(job_ids)
        filters = [] if job_name is None else [f"--name={job_name}"]
        # with a filter, scancel ends every waiting task of an array of which it is given one
        self._cancel([word for word in words if "_" in word])
        self._cancel([word for word in words if "_" not in word], *filters)

    def signal_script(self, job_ids: Iterable[str], name: str) -> None:
        """Send a signal to the scripts of jobs or tasks of arrays; those that are over or unknown are no error.

        Args:
            job_ids: of whole jobs or tasks.
            name: of the signal, without SIG.

        Raises:
            ClusterUnreachableError: the controller does not answer.
            SLURMError: it refuses.
        """
        self._cancel(_compact(job_ids), "--batch", f"--signal={name}")

    def _cancel(self, listed: Sequence[str], *options: str) -> None:
        for start in range(0, len(listed), _IDS_AT_ONCE):
            ran = self._call(["scancel", *options, *listed[start : start + _IDS_AT_ONCE]])
            if ran.timed_out or is_silence(ran.err):
                raise ClusterUnreachableError(f"scancel: {complaint(ran)}; try again when the cluster answers")
            if ran.status != 0 and not _FINISHED_ALREADY.search(ran.err):
                raise SLURMError(f"scancel: {complaint(ran)}")

    def release(self, job_ids: Iterable[str]) -> None:
        """Let jobs or tasks of arrays start that Slurm holds; those that are over or unknown are no error.

        Args:
            job_ids: of whole jobs or tasks.

        Raises:
            ClusterUnreachableError: the controller does not answer.
            SLURMError: it refuses.
        """
        listed = list(dict.fromkeys(job_ids))
        for start in range(0, len(listed), _IDS_AT_ONCE):
            ran = self._call(["scontrol", "release", ",".join(listed[start : start + _IDS_AT_ONCE])])
            if ran.timed_out or is_silence(ran.err):
                raise ClusterUnreachableError(f"scontrol: {complaint(ran)}; try again when the cluster answers")
            if ran.status != 0 and not _GONE.search(ran.err):
                raise SLURMError(f"scontrol: {complaint(ran)}")

    def set_throttle(self, job_id: str, limit: int | None) -> bool:
        """Set how many tasks of an array may run at a time.

        Args:
            job_id: of the array.
            limit: None is no limit.

        Returns:
            Whether the controller knows the array.

        Raises:
            ClusterUnreachableError: the controller does not answer.
            SLURMError: it refuses.
        """
        ran = self._call(["scontrol", "update", f"JobId={job_id}", f"ArrayTaskThrottle={limit or 0}"])
        # it says so of single tasks that are over, having set it for the others
        if ran.status == 0 or _FINISHED_ALREADY.search(ran.err):
            return True
        if "Invalid job id" in ran.err:
            return False
        if ran.timed_out or is_silence(ran.err):
            raise ClusterUnreachableError(f"scontrol: {complaint(ran)}; try again when the cluster answers")
        raise SLURMError(f"scontrol: {complaint(ran)}")

    def _queue(self) -> tuple[dict[str, TaskState], str]:
        ran = self._look(["squeue", "--me", "--noheader", "--array", "--states=all", f"--Format={QUEUE_FIELDS}"])
        if ran.status != 0:
            return {}, complaint(ran)
        return {task.job_id: task for task in parse_queue(ran.out)}, ""

    def _accounts(self, job_ids: set[str], names: set[str]) -> tuple[dict[str, TaskState], str]:
        queries = [["--jobs=" + ",".join(sorted(job_ids))]] if job_ids else []
        queries += [[f"--starttime={_SINCE}", "--name=" + ",".join(sorted(names))]] if names else []
        found: dict[str, TaskState] = {}
        error = ""
        for query in queries:
            words = ["sacct", "-X", "--parsable2", "--noheader", f"--format={ACCOUNTING_FIELDS}", *query]
            ran = self._look(words)
            if ran.status == 0:
                found |= {task.job_id: task for task in parse_accounting(ran.out)}
            else:
                error = complaint(ran)
        return found, error

    def _with_peaks(self, tasks: dict[str, TaskState], asked: set[str]) -> dict[str, TaskState]:
        """The tasks, with the memory that those used which may have had too little of it."""
        suspects = {
            job_id: task
            for job_id, task in tasks.items()
            if base_id(job_id) in asked and (task.state is JobStatus.OUT_OF_MEMORY or task.signal == signal.SIGKILL)
        }
        self._ask_peaks([job_id for job_id, task in suspects.items() if (job_id, task.job_name) not in self._peaks])
        return tasks | {
            job_id: replace(task, peak_memory=self._peaks.get((job_id, task.job_name), ""))
            for job_id, task in suspects.items()
        }

    def _ask_peaks(self, job_ids: Sequence[str]) -> None:
        if not job_ids or self._config is None or not self._config.keeps_accounts:
            return
        for start in range(0, len(job_ids), _IDS_AT_ONCE):
            words = ["sacct", "--parsable2", "--noheader", f"--format={PEAK_FIELDS}"]
            ran = self._look([*words, "--jobs=" + ",".join(job_ids[start : start + _IDS_AT_ONCE])])
            if ran.status == 0:
                self._peaks |= {(job_id, name): peak for job_id, name, peak in parse_peaks(ran.out)}

    def _min_job_age_s(self) -> int | None:
        try:
            return self.settings().min_job_age_s
        except ClusterUnreachableError:
            return None

    def _call(self, words: Sequence[str], *, keep_open: Sequence[int] = ()) -> Ran:
        """Run a program of Slurm; the user is told if it takes long."""
        program = words[0]
        silence = self._silence_of_accounts if program == "sacct" else self._silence
        with silence.asking(program, PROGRAM_TIMEOUT_S):
            ran = self._run(words, keep_open=keep_open)
        if ran.timed_out or is_silence(ran.err):
            silence.unanswered(program)
        else:
            silence.answered()
        return ran

    def _look(self, words: Sequence[str]) -> Ran:
        try:
            return self._call(words)
        except ClusterUnreachableError as error:
            return Ran(-1, err=str(error))

    def _ask(self, words: Sequence[str]) -> str:
        ran = self._call(words)
        if "fatal:" in ran.err:
            raise SlurmNotFoundError(
                "no cluster is configured on this machine: log in to a node of one, or set SLURM_CONF; `mtf run` does "
                f"the sweep here, `mtf cluster up` starts a Slurm to try ({words[0]}: {complaint(ran)})"
            )
        if ran.status != 0:
            raise ClusterUnreachableError(f"{words[0]}: {complaint(ran)}")
        return ran.out


def _compact(job_ids: Iterable[str]) -> list[str]:
    """One word for all tasks of an array: it is one request to the controller."""
    tasks: dict[str, list[str]] = {}
    for job_id in dict.fromkeys(job_ids):
        base, _, index = job_id.partition("_")
        tasks.setdefault(base, []).append(index)
    return [base if "" in indices else f"{base}_[{','.join(indices)}]" for base, indices in tasks.items()]
