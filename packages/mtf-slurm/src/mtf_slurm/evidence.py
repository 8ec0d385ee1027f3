"""Gather the evidence on a run from its folder, its processes and its submissions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mtf_config import ExecutionMode
from mtf_slurm.lock import is_locked
from mtf_slurm.processes import is_alive
from mtf_slurm.status import AttemptEvidence, Evidence, JobStatus, Verdict, judge
from mtf_slurm.submissions import Submission, Submissions
from mtf_utils.rundir import Attempt, RunDirectory, RunDirectoryError, SweepDirectory

__all__ = ["CLAIM_SETTLES_S", "Witness", "read_attempts"]

CLAIM_SETTLES_S: Final = 10.0
"""How long after its claim an attempt without a start receipt may still be about to write one."""


def read_attempts(run: RunDirectory) -> tuple[AttemptEvidence, ...]:
    """The receipts of every claimed attempt."""
    return tuple(
        AttemptEvidence(number=attempt.number, started=attempt.started(), finished=attempt.finished())
        for attempt in run.attempts()
    )


@dataclass
class Witness:
    """Tells what is known of the runs of a folder, as of the moment when it was made.

    Attributes:
        directory: the folder of the sweep.
        launcher_at_work: whether a launcher holds the folder.
        latest: the last submission of each run.
        local_token: the newest local submission, which is what a launcher at work carries out.
        unnoted: why runs were given up, by token and name, where the disk took no note of it.
        wall_clock: seconds since 1970.
    """

    directory: SweepDirectory
    launcher_at_work: bool
    latest: dict[str, Submission]
    local_token: str = ""
    unnoted: dict[tuple[str, str], str] = field(default_factory=dict)
    wall_clock: Callable[[], float] = time.time

    @classmethod
    def look(cls, directory: SweepDirectory) -> Witness:
        """Look at the folder now."""
        latest: dict[str, Submission] = {}
        local_token = ""
        for submission in Submissions(directory).all():
            latest |= dict.fromkeys(submission.runs, submission)
            if submission.mode is ExecutionMode.LOCAL:
                local_token = submission.token
        return cls(directory, is_locked(directory), latest, local_token)

    def evidence(self, name: str) -> Evidence:
        """What is known of one run.

        Raises:
            RunDirectoryError: a receipt cannot be read.
        """
        run = self.directory.run(name)
        attempts = read_attempts(run)
        submission = self.latest.get(name)
        marks = Submissions(self.directory)
        queued = self.launcher_at_work and submission is not None and submission.token == self.local_token
        return Evidence(
            attempts=attempts,
            alive=self.liveness(run, attempts),
            queued=queued,
            cancelled=submission is not None and marks.is_cancelled(submission, name),
            given_up=self._given_up(submission, name) if submission is not None else "",
        )

    def _given_up(self, submission: Submission, name: str) -> str:
        noted = Submissions(self.directory).given_up(submission, name)
        return noted or self.unnoted.get((submission.token, name), "")

    def verdict(self, name: str) -> tuple[Evidence, Verdict]:
        """What is known of one run, and what may be said of it; unknown if a receipt cannot be read."""
        try:
            evidence = self.evidence(name)
        except RunDirectoryError as error:
            return Evidence(), Verdict(JobStatus.UNKNOWN, str(error))
        return evidence, judge(evidence)

    def liveness(self, run: RunDirectory, attempts: tuple[AttemptEvidence, ...]) -> bool | None:
        """Whether the process of the last attempt lives; None if that cannot be seen."""
        if not attempts or attempts[-1].finished is not None:
            return False
        last = attempts[-1]
        if last.started is not None:
            return is_alive(run, last.started)
        return None if self._age_s(run.attempt(last.number)) < CLAIM_SETTLES_S else False

    def _age_s(self, attempt: Attempt) -> float:
        with contextlib.suppress(FileNotFoundError):
            return self.wall_clock() - attempt.path.stat().st_mtime
        return CLAIM_SETTLES_S
