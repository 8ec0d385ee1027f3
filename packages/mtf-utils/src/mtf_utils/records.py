"""The JSON files of a run directory as classes: one schema each, versioned, written atomically."""

from __future__ import annotations

import enum
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from mtf_utils import atomic
from mtf_utils.fastpath import build
from mtf_utils.settings import Settings, about

__all__ = [
    "Ask",
    "FinishReceipt",
    "GoalFile",
    "Outcome",
    "Record",
    "RunDirectoryError",
    "RunResultFile",
    "StartReceipt",
    "SweepFile",
    "now",
]


_PIECE: Final = 1 << 16
_READING: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0)


class RunDirectoryError(ValueError):
    """A file of a run directory is not what it should be; the message names it."""


def now() -> str:
    """The current time in UTC as ISO 8601, to the second: `2026-01-31T23:59:59Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(kw_only=True)
class Record(Settings):
    """A versioned JSON file: reads and writes itself, and refuses a version that it does not know."""

    survives_crashes: ClassVar[bool] = True
    """Whether its writer waits for the disk. If not, a crash of the machine may leave it empty, which is like none."""

    version: int = field(default=1, metadata=about("Version of this file's schema.", minimum=1, maximum=1))

    @classmethod
    def read(cls, path: Path | str) -> Self | None:
        """The file's content, or None when there is no such file.

        Keys that a later minor release may have added are ignored.

        Raises:
            RunDirectoryError: the file is not JSON, or not of this schema and version.
            OSError: the file is there and cannot be read.
        """
        try:
            content = _content(path)
        except FileNotFoundError:
            return None
        if not (cls.survives_crashes or content.strip(b"\0")):
            return None
        try:
            data = json.loads(content.decode("utf-8"))
            if isinstance(data, dict):
                cls._check_version(data.get("version"))
                if not data.keys() <= cls.__dataclass_fields__.keys():
                    data = {key: value for key, value in data.items() if key in cls.__dataclass_fields__}
            return build(cls, data) or cls.from_dict(data)
        except (ValueError, RecursionError) as error:
            raise RunDirectoryError(f"{path}: not a valid {cls.__name__}: {error}") from error

    @classmethod
    def _check_version(cls, found: Any) -> None:
        if isinstance(found, int) and found > cls.version:
            raise ValueError(f"it is of version {found}, and this release knows up to {cls.version}; update mtf-utils")

    def write(self, path: Path) -> None:
        """Replace the file atomically and durably."""
        atomic.write_json(path, self.to_dict())


def _content(path: Path | str) -> bytes:
    """All of a small file; twice as quick as the path's own way, and a sweep has tens of thousands of them."""
    descriptor = os.open(path, _READING)
    try:
        content = b""
        while part := os.read(descriptor, _PIECE):
            content += part
        return content
    finally:
        os.close(descriptor)


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

    survives_crashes: ClassVar[bool] = False

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

    Written by the trainer's rank 0 when it was preempted, which an exit status cannot always tell; otherwise by
    `job.sh` from the command's exit status, which also replaces that of a preemption where no other attempt follows.
    """

    attempt: int = field(metadata=about("Number of the attempt, from 1.", minimum=1))
    outcome: Outcome = field(metadata=about("How it ended."))
    exit_status: int | None = field(
        default=None,
        metadata=about("Exit status of the command; 128 + n when signal n ended it; null if unknown."),
    )
    reason: str | None = field(default=None, metadata=about("One line for a person."))
    limit: str | None = field(
        default=None,
        metadata=about("The budget that is used up, where that alone keeps the run from going on; see `Ask`."),
    )
    finished_at: str = field(metadata=about("Time of the end, UTC."))


@dataclass(kw_only=True)
class Ask(Record):
    """`asked/<n>.json`: somebody asked for the run again, so that from attempt n on its budgets are new ones.

    Written by the launcher before the run is started again. What was asked for before the run's first attempt needs
    no such file.
    """

    attempt: int = field(metadata=about("The first attempt that counts.", minimum=1))
    by: str = field(metadata=about("Who asked: user@host."))
    how: str = field(metadata=about("By which call, and why that counts as asking."))
    asked_at: str = field(metadata=about("When, UTC."))
    code_before: str | None = field(
        default=None, metadata=about("The snapshot whose checkpoints are continued with other code; else null.")
    )
    code_after: str | None = field(default=None, metadata=about("The snapshot that continues them."))


@dataclass(kw_only=True)
class GoalFile(Record):
    """`goal.json`: how far a training is to go. Written by the trainer's rank 0 whenever training begins or goes on."""

    epochs: int = field(metadata=about("Epochs in all.", minimum=1))
    total_steps: int | None = field(
        default=None, metadata=about("Optimizer steps in all; null if nobody knows, as with streamed data.", minimum=1)
    )


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
