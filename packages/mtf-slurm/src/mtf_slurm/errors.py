"""The launcher's errors: one base, and the fitting builtin beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from mtf_slurm.wording import listed

__all__ = [
    "INTERRUPTED",
    "ClusterUnreachableError",
    "GitOperationError",
    "JobSubmissionError",
    "LaunchInterrupted",
    "SLURMError",
    "SlurmNotFoundError",
    "SweepLockedError",
    "by_reason",
]


INTERRUPTED: Final = 130
"""The exit status of a launcher that was told to stop: 128 + SIGINT, as a shell reports it."""


class SLURMError(RuntimeError):
    """Base of everything that the launcher raises on its own account."""


class JobSubmissionError(SLURMError):
    """An experiment cannot be submitted as asked.

    Attributes:
        reasons: why, by the name of the experiment, where it can be said of single ones.
    """

    def __init__(self, message: str, *, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})


class ClusterUnreachableError(SLURMError, ConnectionError):
    """The cluster could not be asked: the controller does not answer."""


class SlurmNotFoundError(ClusterUnreachableError):
    """Slurm is not on this machine, or no cluster is configured, so that waiting does not help."""


class SweepLockedError(SLURMError, BlockingIOError):
    """Another launcher is at work in the same folder.

    Attributes:
        path: the lock file.
        holder: which process that is, as far as it is known.
    """

    def __init__(self, message: str, *, path: Path, holder: str = "an unknown process") -> None:
        super().__init__(message)
        self.path = path
        self.holder = holder


class GitOperationError(SLURMError):
    """A git operation was refused or failed; the repository is as it was unless the message says otherwise."""


class LaunchInterrupted(KeyboardInterrupt, SystemExit):
    """The launcher was told to stop (Ctrl-C, SIGTERM, SIGHUP), and every run has ended.

    It has said so on standard error already; a script that does not catch this ends with status 130, without a trace.

    Attributes:
        unfinished: the names of the runs that a repeated call continues.
        output_dir: the folder of the sweep.
        signal_name: what told it.
        code: the exit status of a script that does not catch it.
    """

    def __init__(self, message: str, *, unfinished: Sequence[str], output_dir: Path, signal_name: str) -> None:
        super().__init__(message)
        self.code = INTERRUPTED
        self.unfinished = tuple(unfinished)
        self.output_dir = output_dir
        self.signal_name = signal_name


def by_reason(reasons: Mapping[str, str]) -> list[str]:
    """Each reason once, with the runs that it holds for."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [f"{listed(sharing)}: {reason}" for reason, sharing in names.items()]
