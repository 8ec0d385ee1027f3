"""Submissions: what was asked to run when, under which token, and what has been withdrawn since."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtf_config import ExecutionMode
from mtf_slurm.errors import SLURMError
from mtf_utils.atomic import write_text
from mtf_utils.rundir import Record, SweepDirectory, now
from mtf_utils.settings import about

__all__ = ["Submission", "Submissions", "split_job_id"]


@dataclass(kw_only=True)
class Submission(Record):
    """`submissions/<token>/intent.json`: which runs were asked for. Written by the launcher before it acts."""

    token: str = field(metadata=about("Names the submission; later ones sort behind earlier ones."))
    mode: ExecutionMode = field(metadata=about("How the runs are executed."))
    runs: list[str] = field(metadata=about("The names of the runs, in order."))
    single: bool = field(default=False, metadata=about("Whether one experiment was submitted by itself."))
    created_at: str = field(metadata=about("Time of the submission, UTC."))

    def job_id(self, name: str) -> str:
        """The job id of one of the runs: `local-<token>`, or `local-<token>_<index>` in a batch."""
        kind = "dry" if self.mode is ExecutionMode.DRY_RUN else self.mode.value
        return f"{kind}-{self.token}" if self.single else f"{kind}-{self.token}_{self.runs.index(name)}"


class Submissions:
    """The submissions of one folder, oldest first.

    Args:
        directory: the folder of a sweep.
    """

    def __init__(self, directory: SweepDirectory) -> None:
        self.path = directory.path / "submissions"

    def add(self, mode: ExecutionMode, runs: Sequence[str], *, single: bool = False) -> Submission:
        """Record a new submission."""
        while True:
            token = f"{int(time.time() * 1000):011x}{secrets.token_hex(2)}"
            try:
                self.path.joinpath(token).mkdir(parents=True)
                break
            except FileExistsError:
                continue
        submission = Submission(token=token, mode=mode, runs=list(runs), single=single, created_at=now())
        submission.write(self.path / token / "intent.json")
        return submission

    def all(self) -> list[Submission]:
        """Every recorded submission."""
        try:
            tokens = sorted(entry.name for entry in self.path.iterdir())
        except FileNotFoundError:
            return []
        found = (Submission.read(self.path / token / "intent.json") for token in tokens)
        return [submission for submission in found if submission is not None]

    def find(self, token: str) -> Submission | None:
        """The submission of that token, or None."""
        return Submission.read(self.path / token / "intent.json")

    def cancel(self, submission: Submission, name: str) -> None:
        """Note that the run is not to be started again under this submission."""
        self._mark(submission, "cancelled", name, "cancelled by hand")

    def is_cancelled(self, submission: Submission, name: str) -> bool:
        """Whether the run was cancelled under this submission."""
        return self._file(submission, "cancelled", name).exists()

    def give_up(self, submission: Submission, name: str, reason: str) -> None:
        """Note that the launcher will not start the run again under this submission."""
        self._mark(submission, "given-up", name, reason)

    def given_up(self, submission: Submission, name: str) -> str:
        """Why the launcher does not start the run again; empty if it may."""
        try:
            return self._file(submission, "given-up", name).read_text("utf-8").strip()
        except FileNotFoundError:
            return ""

    def _file(self, submission: Submission, kind: str, name: str) -> Path:
        return self.path / submission.token / kind / name

    def _mark(self, submission: Submission, kind: str, name: str, text: str) -> None:
        file = self._file(submission, kind, name)
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
            f"{job_id!r} is no job id that this launcher gave: expected local-<token> or dry-<token>, followed by "
            "_<index> for a batch"
        )
    return token, int(index or 0)
