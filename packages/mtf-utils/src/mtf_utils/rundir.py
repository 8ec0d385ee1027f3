"""The run directory: the paths of its files, and the records in them.

The folders of a sweep and of its runs are the only database there is. Every file is written atomically by its one
writer and carries a version; everything else that is ever said about a run is derived from these files (and from
what the scheduler knows). `CONTRACT` lists them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from mtf_utils.contract import CONTRACT, FileContract
from mtf_utils.records import (
    Ask,
    FinishReceipt,
    GoalFile,
    Outcome,
    Record,
    RunDirectoryError,
    RunResultFile,
    StartReceipt,
    SweepFile,
    now,
)

__all__ = [
    "CONTRACT",
    "ENV_ATTEMPT",
    "ENV_CONFIG",
    "ENV_EXPERIMENT",
    "ENV_PROJECT_ROOT",
    "ENV_RUN_DIR",
    "ENV_TOKEN",
    "WALL_CLOCK_FIELDS",
    "Ask",
    "Attempt",
    "FileContract",
    "FinishReceipt",
    "GoalFile",
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

WALL_CLOCK_FIELDS: Final = frozenset({"time", "samples_per_s", "steps_per_s"})
"""Fields of a metrics record that differ between two otherwise identical runs."""

_FINISHED: Final = "finished.json"
_RESULT: Final = "result.json"

MAX_NAME_BYTES: Final = 128
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")


def is_safe_name(name: str) -> bool:
    """Whether a name may serve as a file, branch and job name as it stands."""
    if not _SAFE_NAME.fullmatch(name) or len(name.encode()) > MAX_NAME_BYTES:
        return False
    return ".." not in name and not name.endswith((".", ".lock"))


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
        return self.path / _FINISHED

    def started(self) -> StartReceipt | None:
        """The start receipt, or None while it is not written."""
        return StartReceipt.read(self.started_file)

    def finished(self) -> FinishReceipt | None:
        """The finish receipt, or None when the attempt left none (yet)."""
        return FinishReceipt.read(self.finished_file)

    @property
    def before_file(self) -> Path:
        """What there was of the run when the attempt started."""
        return self.path / "before.txt"

    @property
    def time_limit_file(self) -> Path:
        """There if the attempt was told to stop because its time was up."""
        return self.path / "time-limit"

    @property
    def memory_file(self) -> Path:
        """There if the attempt ended for want of memory; says how much was in use at most, if that is known."""
        return self.path / "out-of-memory"


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
    def code_file(self) -> Path:
        """Which code the run belongs to."""
        return self.path / "code.json"

    @property
    def code_diff(self) -> Path:
        """How that code differs from its commit; not there if it does not."""
        return self.path / "code.diff"

    @property
    def attempts_dir(self) -> Path:
        """Parent of the attempts' folders."""
        return self.path / "attempts"

    @property
    def asked_dir(self) -> Path:
        """Parent of the notes on who asked for it again."""
        return self.path / "asked"

    def ask_file(self, attempt: int) -> Path:
        """The note that attempts before that one do not count any more."""
        return self.asked_dir / f"{attempt}.json"

    def asks(self) -> list[Ask]:
        """Who asked for it again when, in order."""
        found = (Ask.read(self.ask_file(number)) for number in self._asked())
        return [ask for ask in found if ask is not None]

    def counts_from(self) -> int:
        """The first attempt that counts against the budgets: those before the last asking do not."""
        return max(self._asked(), default=1)

    def _asked(self) -> list[int]:
        return _numbers(self.asked_dir, ".json")

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
    def goal_file(self) -> Path:
        """How far training is to go."""
        return self.path / "goal.json"

    @property
    def result_file(self) -> Path:
        """What training came to."""
        return self.path / _RESULT

    def log_file(self, attempt: int) -> Path:
        """The output of an attempt."""
        return self.path / f"logs/attempt-{attempt}.log"

    def attempt(self, number: int) -> Attempt:
        """The attempt of that number, whether it exists or not."""
        return Attempt(self.attempts_dir / str(number), number)

    def attempts(self) -> list[Attempt]:
        """The claimed attempts in order."""
        folder = self.attempts_dir
        return [Attempt(folder / str(number), number) for number in _numbers(folder)]

    def finish_receipts(self) -> Iterator[tuple[int, FinishReceipt | None]]:
        """The numbers and finish receipts of the claimed attempts, newest first."""
        folder = f"{self.path}/attempts"
        for number in reversed(_numbers(folder)):
            yield number, FinishReceipt.read(f"{folder}/{number}/{_FINISHED}")

    def result(self) -> RunResultFile | None:
        """What training came to, or None while it is not complete."""
        return RunResultFile.read(f"{self.path}/{_RESULT}")


@dataclass(frozen=True)
class SweepDirectory:
    """The folder of one sweep."""

    path: Path

    @property
    def sweep_file(self) -> Path:
        """What was asked."""
        return self.path / "sweep.json"

    @property
    def report_file(self) -> Path:
        """The sweep to look at, where somebody asked for a report."""
        return self.path / "report.html"

    @property
    def lock_file(self) -> Path:
        """Held by the one launcher at work in this folder."""
        return self.path / ".lock"

    @cached_property
    def runs_dir(self) -> Path:
        """Parent of the runs' folders."""
        return self.path / "runs"

    def run(self, name: str) -> RunDirectory:
        """The folder of the run of that name, whether it exists or not.

        Raises:
            RunDirectoryError: the name is not safe as a file name.
        """
        if name not in self._runs:
            if not is_safe_name(name):
                raise RunDirectoryError(
                    f"{name!r} cannot name a run: use at most {MAX_NAME_BYTES} letters, digits and any of '._=+-', "
                    "beginning with a letter or digit"
                )
            self._runs[name] = RunDirectory(self.runs_dir / name)
        return self._runs[name]

    @cached_property
    def _runs(self) -> dict[str, RunDirectory]:
        """Those that were asked for: who looks at thousands of runs asks for each more than once."""
        return {}

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
    text = environ.get(ENV_ATTEMPT)
    if not text:
        return run, None
    number = _attempt_number(text)
    if number is None:
        raise RunDirectoryError(f"{ENV_ATTEMPT}={text!r}: expected the number of an attempt, from 1")
    return run, run.attempt(number)


def _attempt_number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _numbers(folder: Path | str, suffix: str = "") -> list[int]:
    """The numbers that entries of a folder are called by, in order; none if it is not there."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a path for every entry costs more than the listing
    except FileNotFoundError:
        return []
    numbers = (_attempt_number(name.removesuffix(suffix)) for name in names if name.endswith(suffix))
    return sorted(number for number in numbers if number is not None)


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a metrics journal; a line still being written at the end is left out.

    Raises:
        RunDirectoryError: a complete line is not a JSON object.
        OSError: the file cannot be read; FileNotFoundError when there is none.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise RunDirectoryError(f"{path}:{number}: not a JSON record: {error}") from error
            if not isinstance(record, dict):
                raise RunDirectoryError(f"{path}:{number}: expected a JSON object, found {line[:40]!r}")
            yield record
