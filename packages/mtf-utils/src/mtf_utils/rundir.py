"""The run directory: what lies where, who writes it, who reads it, and in which version.

The folders of a sweep and of its runs are the only database there is. Every file is written atomically by its one
writer and carries a version; everything else that is ever said about a run is derived from these files (and from
what the scheduler knows). `CONTRACT` lists them.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from mtf_utils import atomic
from mtf_utils.settings import Settings, SettingsError, about

__all__ = [
    "CONTRACT",
    "ENV_ATTEMPT",
    "ENV_CONFIG",
    "ENV_EXPERIMENT",
    "ENV_PROJECT_ROOT",
    "ENV_RUN_DIR",
    "ENV_TOKEN",
    "WALL_CLOCK_FIELDS",
    "Attempt",
    "FileContract",
    "FinishReceipt",
    "Outcome",
    "Record",
    "RunDirectory",
    "RunDirectoryError",
    "RunResultFile",
    "StartReceipt",
    "SweepDirectory",
    "SweepFile",
    "current_run",
    "is_safe_name",
    "now",
    "read_metrics",
]

ENV_RUN_DIR: Final = "MTF_RUN_DIR"
ENV_CONFIG: Final = "MTF_CONFIG"
ENV_EXPERIMENT: Final = "MTF_EXPERIMENT"
ENV_ATTEMPT: Final = "MTF_ATTEMPT"
ENV_TOKEN: Final = "MTF_TOKEN"  # noqa: S105 - a submission's identity, not a secret
ENV_PROJECT_ROOT: Final = "MTF_PROJECT_ROOT"

WALL_CLOCK_FIELDS: Final = frozenset({"time", "samples_per_s"})
"""Fields of a metrics record that differ between two otherwise identical runs."""

MAX_NAME_BYTES: Final = 128
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")


class RunDirectoryError(ValueError):
    """A file of a run directory is not what it should be; the message names it."""


def is_safe_name(name: str) -> bool:
    """Whether a name may serve as a file, branch and job name as it stands."""
    if not _SAFE_NAME.fullmatch(name) or len(name.encode()) > MAX_NAME_BYTES:
        return False
    return ".." not in name and not name.endswith((".", ".lock"))


def now() -> str:
    """The current time in UTC as ISO 8601, to the second: `2026-01-31T23:59:59Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(kw_only=True)
class Record(Settings):
    """A versioned JSON file: reads and writes itself, and refuses a version that it does not know."""

    version: int = field(default=1, metadata=about("Version of this file's schema.", minimum=1, maximum=1))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The file's content, or None when there is no such file.

        Keys that a later minor release may have added are ignored.

        Raises:
            RunDirectoryError: the file is not JSON, or not of this schema and version.
            OSError: the file is there and cannot be read.
        """
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            return None
        try:
            data = json.loads(text)
            if isinstance(data, Mapping):
                known = {item.name for item in dataclasses.fields(cls)}
                data = {key: value for key, value in data.items() if key in known}
            return cls.from_dict(data)
        except (SettingsError, ValueError) as error:
            raise RunDirectoryError(f"{path}: not a valid {cls.__name__}: {error}") from error

    def write(self, path: Path) -> None:
        """Replace the file atomically and durably."""
        atomic.write_json(path, self.to_dict())


class Outcome(enum.StrEnum):
    """How an attempt ended."""

    FINISHED = "finished"
    PREEMPTED = "preempted"
    FAILED = "failed"
    WANTS_REQUEUE = "wants-requeue"
    DO_NOT_REQUEUE = "do-not-requeue"


@dataclass(kw_only=True)
class StartReceipt(Record):
    """`attempts/<n>/started.json`: who runs this attempt. Written by `job.sh`."""

    attempt: int = field(metadata=about("Number of the attempt, from 1.", minimum=1))
    token: str = field(metadata=about("The submission that this attempt belongs to."))
    restart: int = field(default=0, metadata=about("The scheduler's restart count.", minimum=0))
    host: str = field(metadata=about("Where it runs."))
    pid: int = field(metadata=about("Process id of `job.sh` on that host.", minimum=1))
    job_id: str | None = field(default=None, metadata=about("The scheduler's job id; null for a local run."))
    started_at: str = field(metadata=about("Time of the start, UTC."))


@dataclass(kw_only=True)
class FinishReceipt(Record):
    """`attempts/<n>/finished.json`: how this attempt ended.

    Written by the trainer's rank 0 when it was preempted or must not run again, which an exit status cannot always
    tell; otherwise by `job.sh` from the command's exit status.
    """

    attempt: int = field(metadata=about("Number of the attempt, from 1.", minimum=1))
    outcome: Outcome = field(metadata=about("How it ended."))
    exit_status: int | None = field(
        default=None,
        metadata=about("Exit status of the command; 128 + n when signal n ended it; null if unknown."),
    )
    reason: str | None = field(default=None, metadata=about("One line for a person."))
    finished_at: str = field(metadata=about("Time of the end, UTC."))


@dataclass(kw_only=True)
class RunResultFile(Record):
    """`result.json`: what a finished training came to. Written by the trainer's rank 0 when training completes."""

    epoch: int = field(metadata=about("Epochs completed.", minimum=0))
    global_step: int = field(metadata=about("Optimizer steps taken.", minimum=0))
    metrics: dict[str, float | None] = field(metadata=about("The last epoch's metrics; null stands for NaN."))
    best: dict[str, Any] | None = field(
        default=None,
        metadata=about("metric, value, epoch and global_step of the best validation; null without one."),
    )
    checkpoint: str = field(metadata=about("The final checkpoint, relative to the run directory if inside it."))
    seed: int = field(metadata=about("The seed that was used."))
    finished_at: str = field(metadata=about("Time of the end, UTC."))


@dataclass(kw_only=True)
class SweepFile(Record):
    """`sweep.json`: what was asked. Written by the launcher, replaced when the sweep is changed."""

    name: str = field(metadata=about("The sweep's name."))
    base: dict[str, Any] = field(metadata=about("The base configuration as written."))
    grids: list[dict[str, Any]] = field(metadata=about("The parameter grids."))
    naming: str = field(metadata=about("The naming strategy."))
    command: list[str] = field(metadata=about("The command of a run, before its placeholders are filled in."))
    runs: list[dict[str, Any]] = field(
        metadata=about("name, identity, grid and parameters of every run of the sweep, in order.")
    )
    code: dict[str, Any] = field(metadata=about("Where the code comes from; `isolated` says whether from a snapshot."))
    versions: dict[str, str] = field(metadata=about("Versions of Python and of the packages that planned the sweep."))
    created_at: str = field(metadata=about("Time of the first plan, UTC."))


@dataclass(frozen=True)
class FileContract:
    """One file or folder of a run directory.

    Attributes:
        path: relative to the sweep's folder; `<name>`, `<n>` and `<token>` stand for what varies.
        writer: who writes it.
        readers: who reads it.
        version: version of its schema; None where the format has one of its own or needs none.
        schema: the record class of a JSON file; None for other formats.
        content: what it holds.
    """

    path: str
    writer: str
    readers: str
    content: str
    version: int | None = None
    schema: type[Record] | None = None


CONTRACT: Final = (
    FileContract("sweep.json", "launcher", "launcher, results", "what was asked", 1, SweepFile),
    FileContract(".lock", "launcher", "launcher", "held (flock) by the one launcher at work in this folder"),
    FileContract("submissions/<token>/", "launcher", "launcher", "one submission: intent, array script, job ids"),
    FileContract("code/<tree-hash>/", "launcher", "job.sh", "the code that runs, one copy per snapshot"),
    FileContract("runs/<name>/config.yaml", "launcher", "people", "the resolved experiment"),
    FileContract("runs/<name>/config.json", "launcher", "trainer, results", "the same, for the standard library"),
    FileContract("runs/<name>/job.sh", "launcher", "bash", "runs one attempt; the same file in every mode"),
    FileContract("runs/<name>/attempts/<n>/", "job.sh", "all", "the claim: an atomic mkdir; n counts from 1"),
    FileContract("runs/<name>/attempts/<n>/started.json", "job.sh", "launcher", "who runs it", 1, StartReceipt),
    FileContract(
        "runs/<name>/attempts/<n>/finished.json",
        "trainer (preempted, do not requeue), else job.sh",
        "job.sh, launcher, results",
        "how it ended",
        1,
        FinishReceipt,
    ),
    FileContract("runs/<name>/logs/attempt-<n>.log", "job.sh", "people", "output of the attempt"),
    FileContract("runs/<name>/checkpoints/", "trainer", "trainer", "checkpoint folders; own manifest version"),
    FileContract("runs/<name>/metrics.jsonl", "trainer", "results, people", "one record a line", 1),
    FileContract("runs/<name>/result.json", "trainer", "results", "what training came to", 1, RunResultFile),
)
"""Every file of a sweep's folder: path, writer, readers, content, schema."""


@dataclass(frozen=True)
class Attempt:
    """One attempt of a run: the folder `attempts/<n>`."""

    path: Path
    number: int

    @property
    def started_file(self) -> Path:
        """Where the start receipt lies."""
        return self.path / "started.json"

    @property
    def finished_file(self) -> Path:
        """Where the finish receipt lies."""
        return self.path / "finished.json"

    def started(self) -> StartReceipt | None:
        """The start receipt, or None while it is not written."""
        return StartReceipt.read(self.started_file)

    def finished(self) -> FinishReceipt | None:
        """The finish receipt, or None when the attempt left none (yet)."""
        return FinishReceipt.read(self.finished_file)


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.path.name

    @property
    def config_yaml(self) -> Path:
        """The resolved experiment, for people."""
        return self.path / "config.yaml"

    @property
    def config_json(self) -> Path:
        """The resolved experiment, for programs."""
        return self.path / "config.json"

    @property
    def job_script(self) -> Path:
        """The script that runs one attempt."""
        return self.path / "job.sh"

    @property
    def attempts_dir(self) -> Path:
        """Parent of the attempts' folders."""
        return self.path / "attempts"

    @property
    def logs_dir(self) -> Path:
        """Parent of the logs."""
        return self.path / "logs"

    @property
    def checkpoints_dir(self) -> Path:
        """Where the trainer saves by default."""
        return self.path / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        """The journal of metrics."""
        return self.path / "metrics.jsonl"

    @property
    def result_file(self) -> Path:
        """What training came to."""
        return self.path / "result.json"

    def log_file(self, attempt: int) -> Path:
        """The output of an attempt."""
        return self.logs_dir / f"attempt-{attempt}.log"

    def attempt(self, number: int) -> Attempt:
        """The attempt of that number, whether it exists or not."""
        return Attempt(self.attempts_dir / str(number), number)

    def attempts(self) -> list[Attempt]:
        """The claimed attempts in order."""
        try:
            names = [entry.name for entry in self.attempts_dir.iterdir()]
        except FileNotFoundError:
            return []
        return [self.attempt(number) for number in sorted(int(name) for name in names if name.isdecimal())]

    def result(self) -> RunResultFile | None:
        """What training came to, or None while it is not complete."""
        return RunResultFile.read(self.result_file)


@dataclass(frozen=True)
class SweepDirectory:
    """The folder of one sweep."""

    path: Path

    @property
    def sweep_file(self) -> Path:
        """What was asked."""
        return self.path / "sweep.json"

    @property
    def lock_file(self) -> Path:
        """Held by the one launcher at work in this folder."""
        return self.path / ".lock"

    @property
    def runs_dir(self) -> Path:
        """Parent of the runs' folders."""
        return self.path / "runs"

    def run(self, name: str) -> RunDirectory:
        """The folder of the run of that name, whether it exists or not.

        Raises:
            RunDirectoryError: the name is not safe as a file name.
        """
        if not is_safe_name(name):
            raise RunDirectoryError(
                f"{name!r} cannot name a run: use at most {MAX_NAME_BYTES} letters, digits and any of '._=+-', "
                "beginning with a letter or digit"
            )
        return RunDirectory(self.runs_dir / name)

    def runs(self) -> list[RunDirectory]:
        """Every run that has a folder, by name."""
        try:
            names = [entry.name for entry in self.runs_dir.iterdir()]
        except FileNotFoundError:
            return []
        return [RunDirectory(self.runs_dir / name) for name in sorted(names) if is_safe_name(name)]

    def sweep(self) -> SweepFile | None:
        """What was asked, or None when nothing was planned here yet."""
        return SweepFile.read(self.sweep_file)


def current_run(environ: Mapping[str, str] | None = None) -> tuple[RunDirectory, Attempt | None] | None:
    """The run that this process is a part of, from the environment that `job.sh` sets; None outside a run.

    Raises:
        RunDirectoryError: the variables do not make sense.
    """
    environ = os.environ if environ is None else environ
    folder = environ.get(ENV_RUN_DIR)
    if not folder:
        return None
    run = RunDirectory(Path(folder))
    number = environ.get(ENV_ATTEMPT)
    if not number:
        return run, None
    if not number.isdecimal() or int(number) < 1:
        raise RunDirectoryError(f"{ENV_ATTEMPT}={number!r}: expected the number of an attempt, from 1")
    return run, run.attempt(int(number))


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a metrics journal; a line still being written at the end is left out.

    Raises:
        RunDirectoryError: a complete line is not a JSON object.
        OSError: the file cannot be read; FileNotFoundError when there is none.
    """
    with path.open("r", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as error:
                raise RunDirectoryError(f"{path}:{number}: not a JSON record: {error}") from error
            if not isinstance(record, dict):
                raise RunDirectoryError(f"{path}:{number}: expected a JSON object, found {line[:40]!r}")
            yield record
