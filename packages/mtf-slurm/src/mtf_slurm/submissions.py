"""Submissions: what was asked to run when, under which token, what became of it, and what has been withdrawn since."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from mtf_config import ExecutionMode
from mtf_slurm.errors import SLURMError
from mtf_utils.atomic import write_text
from mtf_utils.rundir import Record, SweepDirectory, now
from mtf_utils.settings import Settings, about

__all__ = ["Ended", "JobFile", "JobPlan", "Submission", "Submissions", "find_job", "split_job_id"]

_UNPUBLISHED: Final = ".new-"
_SLURM_JOB_ID: Final = re.compile(r"[0-9]+(_[0-9]+)?(/[0-9]+)?")  # of a job, a task of an array, a run in one of them


@dataclass(kw_only=True)
class JobPlan(Settings):
    """One job that a submission to Slurm consists of, as it was planned before anything was sent."""

    start: int = field(metadata=about("Where its runs begin in the submission's list.", minimum=0))
    count: int = field(metadata=about("How many runs it has.", minimum=1))
    job_name: str = field(metadata=about("Its name in Slurm; no other job has it."))
    is_array: bool = field(default=True, metadata=about("Whether it is a job array; else it is one task."))
    runs_per_task: int = field(
        default=1,
        metadata=about("Task i has so many runs, from start + i * runs_per_task on; the last may have fewer."),
    )
    runs_at_once: int = field(default=1, metadata=about("How many runs of a task are at work at a time."))
    options: list[str] = field(default_factory=list, metadata=about("What its runs ask for, as options of sbatch."))
    template: str = field(default="", metadata=about("The template of its script; empty: the built-in one."))
    lanes: list[int] = field(
        default_factory=list,
        metadata=about("The lanes of the folder that it holds, one for each task at work; none: there is no limit."),
    )
    after: list[str] = field(
        default_factory=list,
        metadata=about("Jobs that have to be over first: ids, or @<k> for job k of this submission."),
    )

    @property
    def throttle(self) -> int | None:
        """How many of its tasks may run at a time; None is no limit."""
        return len(self.lanes) if self.lanes and self.is_array else None

    @property
    def tasks(self) -> int:
        """How many tasks it has."""
        return -(-self.count // self.runs_per_task)

    @property
    def is_shared(self) -> bool:
        """Whether a task may have several runs."""
        return self.runs_per_task > 1

    @property
    def slice(self) -> slice:
        """Which runs of the submission are its own."""
        return slice(self.start, self.start + self.count)


@dataclass(kw_only=True)
class Ended(Settings):
    """How the last attempt of a run had ended when it was submitted again: Slurm forgets that."""

    run: str = field(metadata=about("The name of the run."))
    attempt: int = field(metadata=about("The number of the attempt.", minimum=1))
    cause: str = field(metadata=about("What ended it: timeout, out_of_memory, node_failure or another of the budgets."))


@dataclass(kw_only=True)
class Submission(Record):
    """`submissions/<token>/intent.json`: which runs were asked for. Written by the launcher before it acts."""

    token: str = field(metadata=about("Names the submission; later ones sort behind earlier ones."))
    mode: ExecutionMode = field(metadata=about("How the runs are executed."))
    runs: list[str] = field(metadata=about("The names of the runs, in order."))
    single: bool = field(default=False, metadata=about("Whether one experiment was submitted by itself."))
    jobs: list[JobPlan] = field(default_factory=list, metadata=about("The jobs that Slurm gets."))
    max_concurrent_jobs: int | None = field(
        default=None,
        metadata=about("How many tasks of the folder may be at work in Slurm; null is no limit.", minimum=1),
    )
    created_at: str = field(metadata=about("Time of the submission, UTC."))
    ended: list[Ended] = field(
        default_factory=list, metadata=about("How the last attempts of those runs had ended that had one.")
    )
    memory: dict[str, str] = field(
        default_factory=dict, metadata=about("By run, what it asks for where its slurm.mem did not suffice.")
    )

    def job_id(self, name: str) -> str:
        """The job id of a run that Slurm does not number: `local-<token>`, or `local-<token>_<index>` in a batch."""
        kind = "dry" if self.mode is ExecutionMode.DRY_RUN else self.mode.value
        return f"{kind}-{self.token}" if self.single else f"{kind}-{self.token}_{self._places[name]}"

    @cached_property
    def _places(self) -> dict[str, int]:
        """Where each run stands in the list, which does not change."""
        return {name: place for place, name in enumerate(self.runs)}

    def runs_of(self, number: int) -> list[str]:
        """The names of the runs of one of its jobs, in the order of the tasks."""
        return self.runs[self.jobs[number].slice]

    def run_id(self, number: int, name: str, job_id: str) -> str:
        """The id of a run in one of its jobs.

        It is that of its task: `123_4`, or `123` if the job is no array. Where tasks have several runs, the place of
        the run follows: `123_4/0`.
        """
        job = self.jobs[number]
        index, place = divmod(self._places[name] - job.start, job.runs_per_task)
        task = f"{job_id}_{index}" if job.is_array else job_id
        return f"{task}/{place}" if job.is_shared else task

    def runs_of_task(self, number: int, index: int) -> list[str]:
        """The names of the runs of a task of one of its jobs, in order."""
        job = self.jobs[number]
        start = job.start + index * job.runs_per_task
        return self.runs[start : min(start + job.runs_per_task, job.slice.stop)]


@dataclass(kw_only=True)
class JobFile(Record):
    """`submissions/<token>/<k>.job.json`: the id that Slurm gave to job k. Written by the launcher."""

    job_id: str = field(metadata=about("Of the whole job, such as 123."))
    submitted_at: str = field(metadata=about("When it was known to be in the queue, UTC."))
    how: Literal["answered", "found"] = field(
        metadata=about("Whether sbatch said so, or it was found in the queue after sbatch had not.")
    )
    lanes: list[int] = field(
        default_factory=list, metadata=about("Lanes that it was given later, beside those of the plan.")
    )


class Submissions:
    """The submissions of one folder, oldest first.

    Args:
        directory: the folder of a sweep.
    """

    def __init__(self, directory: SweepDirectory) -> None:
        self.path = directory.path / "submissions"

    def add(
        self, mode: ExecutionMode, runs: Sequence[str], *, single: bool = False, ended: Sequence[Ended] = ()
    ) -> Submission:
        """Record a new submission that Slurm has no part in."""
        submission = Submission(
            token=self.new_token(), mode=mode, runs=list(runs), single=single, created_at=now(), ended=list(ended)
        )
        self.publish(submission, {})
        return submission

    def new_token(self) -> str:
        """A token that no submission has."""
        while True:
            token = f"{int(time.time() * 1000):011x}{secrets.token_hex(2)}"
            if not (self.path / token).exists():
                return token

    def publish(self, submission: Submission, files: Mapping[str, str]) -> None:
        """Record a new submission together with files of its own; it is there whole or not at all.

        Args:
            submission: with its token.
            files: their text by name.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        new = self.path / f"{_UNPUBLISHED}{submission.token}"
        new.mkdir()
        try:
            self.write_files(new, files)
            submission.write(new / "intent.json")
            new.rename(self.path / submission.token)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def replace(self, submission: Submission, files: Mapping[str, str]) -> None:
        """Record that jobs which were not taken are planned otherwise, together with their new files."""
        self.write_files(self.path / submission.token, files)
        submission.write(self.path / submission.token / "intent.json")

    @staticmethod
    def write_files(folder: Path, files: Mapping[str, str]) -> None:
        """Write the files that go with an intent."""
        for name, text in files.items():
            write_text(folder / name, text)

    def tokens(self) -> list[str]:
        """Those of every submission, in order."""
        try:
            return sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def all(self) -> list[Submission]:
        """Every recorded submission."""
        found = (Submission.read(self.path / token / "intent.json") for token in self.tokens())
        return [submission for submission in found if submission is not None]

    def find(self, token: str) -> Submission | None:
        """The submission of that token, or None."""
        return Submission.read(self.path / token / "intent.json")

    def script(self, submission: Submission, number: int) -> Path:
        """Where the text lies that sbatch gets for one of the jobs."""
        return self.path / submission.token / f"{number}.sh"

    def output(self, submission: Submission, number: int) -> Path:
        """Where the output of that script goes, from all tasks; the runs have logs of their own."""
        return self.path / submission.token / f"{number}.out"

    def sent_file(self, submission: Submission, number: int) -> Path:
        """The note that sbatch is about to be called; locked for as long as that call may be in flight."""
        return self.path / submission.token / f"{number}.sent"

    def was_sent(self, submission: Submission, number: int) -> bool:
        """Whether sbatch was called for one of the jobs, or was about to be."""
        return self.sent_file(submission, number).exists() or self._job_file(submission, number).exists()

    def job(self, submission: Submission, number: int) -> JobFile | None:
        """What is known of one of the jobs; None while it is not known to be in the queue."""
        return JobFile.read(self._job_file(submission, number))

    def note_job(self, submission: Submission, number: int, job: JobFile) -> None:
        """Note the id of one of the jobs."""
        job.write(self._job_file(submission, number))

    def owners(self, job_id: str) -> Iterator[tuple[Submission, str]]:
        """The runs that an id, `123`, `123_4` or `123_4/0`, stands for in submissions of this folder.

        Raises:
            SLURMError: it is that of a task with several runs, of which it does not say which one.
        """
        task, slash, place = job_id.partition("/")
        base, _, index = task.partition("_")
        for submission in self.all():
            for number, plan in enumerate(submission.jobs):
                job = self.job(submission, number)
                if job is None or job.job_id != base or plan.is_array is not bool(index):
                    continue
                runs = submission.runs_of_task(number, int(index or 0))
                if runs and plan.is_shared and not slash:
                    raise SLURMError(f"job {task} has {len(runs)} runs; name one of them, {task}/0 to /{len(runs) - 1}")
                if plan.is_shared is bool(slash) and int(place or 0) < len(runs):
                    yield submission, runs[int(place or 0)]

    def forget_job(self, submission: Submission, number: int) -> None:
        """Take back that one of the jobs is in the queue: the cluster has lost it."""
        self._job_file(submission, number).unlink(missing_ok=True)

    def refused(self, submission: Submission, number: int) -> str:
        """Why Slurm does not take one of the jobs; empty if it did, or was not asked yet."""
        with contextlib.suppress(FileNotFoundError):
            return self._refused_file(submission, number).read_text("utf-8").strip()
        return ""

    def refuse(self, submission: Submission, number: int, reason: str) -> None:
        """Note that Slurm does not take one of the jobs."""
        write_text(self._refused_file(submission, number), reason + "\n")

    def first_attempts(self, submission: Submission, number: int) -> dict[str, int]:
        """By the name of the run, the number of the attempt that the first start of its task claims."""
        text = (self.path / submission.token / f"{number}.tasks").read_text("utf-8")
        found: dict[str, int] = {}
        for line in text.splitlines():
            attempt, _, name = line.partition(" ")
            found[name] = int(attempt)
        return found

    def cancel(self, submission: Submission, name: str) -> None:
        """Note that the run is not to be started again under this submission."""
        self._write_mark(submission, "cancelled", name, "cancelled by hand")

    def is_cancelled(self, submission: Submission, name: str) -> bool:
        """Whether the run was cancelled under this submission."""
        try:
            os.stat(self._mark(submission, "cancelled", name))  # noqa: PTH116 - of thousands
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def give_up(self, submission: Submission, name: str, reason: str) -> None:
        """Note that the launcher will not start the run again under this submission."""
        self._write_mark(submission, "given-up", name, reason)

    def given_up(self, submission: Submission, name: str) -> str:
        """Why the launcher does not start the run again; empty if it may."""
        try:
            with open(self._mark(submission, "given-up", name), encoding="utf-8") as file:  # noqa: PTH123 - of thousands
                return file.read().strip()
        except FileNotFoundError:
            return ""

    def _job_file(self, submission: Submission, number: int) -> Path:
        return self.path / submission.token / f"{number}.job.json"

    def _refused_file(self, submission: Submission, number: int) -> Path:
        return self.path / submission.token / f"{number}.refused"

    def _mark(self, submission: Submission, kind: str, name: str) -> str:
        return f"{self.path}/{submission.token}/{kind}/{name}"

    def _write_mark(self, submission: Submission, kind: str, name: str, text: str) -> None:
        file = Path(self._mark(submission, kind, name))
        file.parent.mkdir(exist_ok=True)
        write_text(file, text + "\n")


def split_job_id(job_id: str) -> tuple[str, int]:
    """The token and the index in the submission that a job id stands for.

    Raises:
        SLURMError: it is not a job id of this launcher.
    """
    kind, _, rest = job_id.partition("-")
    token, _, index = rest.partition("_")
    if kind not in ("local", "dry") or not token.isalnum() or not (index.isdecimal() or "_" not in rest):
        raise SLURMError(
            f"{job_id!r} is no job id that this launcher gave: expected 123 or 123_4 from Slurm, or local-<token> or "
            "dry-<token>, followed by _<index> for a batch"
        )
    return token, int(index or 0)


def find_job(folders: Iterable[Path], job_id: str) -> tuple[SweepDirectory, Submission, str] | None:
    """The run that a job id stands for; Slurm gives an id again after a crash, and then the newest has it.

    Args:
        folders: of sweeps, to look into.
        job_id: of Slurm, or of this launcher.

    Raises:
        SLURMError: it is no job id.
    """
    is_slurm = _SLURM_JOB_ID.fullmatch(job_id) is not None
    token, index = ("", 0) if is_slurm else split_job_id(job_id)
    found: list[tuple[SweepDirectory, Submission, str]] = []
    for folder in folders:
        directory = SweepDirectory(folder)
        if is_slurm:
            found += ((directory, *owner) for owner in Submissions(directory).owners(job_id))
        elif (submission := Submissions(directory).find(token)) is not None and index < len(submission.runs):
            found.append((directory, submission, submission.runs[index]))
    return max(found, key=lambda item: item[1].token, default=None)
