"""Carry out a plan in the folder of a sweep: hold the folder, note the intent, act."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mtf_config import ExecutionMode
from mtf_slurm.errors import SLURMError
from mtf_slurm.local import LocalRunner
from mtf_slurm.lock import hold
from mtf_slurm.submissions import Submission, Submissions
from mtf_slurm.views import Display
from mtf_utils.rundir import SweepDirectory

__all__ = ["Executed", "check_request", "execute", "explain_write_errors", "held"]


@dataclass(frozen=True)
class Executed:
    """What became of a submission.

    Attributes:
        submission: with its token.
        refused: why a run could not be started at all, by its name.
        unnoted: why runs were given up, by token and name, where the disk took no note of it.
    """

    submission: Submission
    refused: dict[str, str] = field(default_factory=dict)
    unnoted: dict[tuple[str, str], str] = field(default_factory=dict)


def check_request(mode: ExecutionMode, max_concurrent_jobs: int | None) -> None:
    """Refuse what cannot be done before anything is written.

    Raises:
        SLURMError: the mode is none, or not available; the limit is not positive.
    """
    if not isinstance(mode, ExecutionMode):
        names = ", ".join(f"ExecutionMode.{item.name}" for item in ExecutionMode)
        raise SLURMError(f"execution_mode={mode!r}: expected one of {names}")
    if max_concurrent_jobs is not None and max_concurrent_jobs < 1:
        raise SLURMError(f"max_concurrent_jobs={max_concurrent_jobs}: expected a number from 1, or None")
    if mode is ExecutionMode.SLURM:
        raise SLURMError(
            "submission to a cluster is not available in this version; use ExecutionMode.LOCAL, or "
            "ExecutionMode.DRY_RUN to write everything and start nothing"
        )


@contextlib.contextmanager
def held(directory: SweepDirectory) -> Iterator[None]:
    """Be the one launcher of the folder while the block runs; the folder is made if needed.

    Raises:
        SLURMError: the folder cannot be made or locked.
    """
    with contextlib.ExitStack() as stack:
        with explain_write_errors(directory):
            directory.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(directory))
        yield


@contextlib.contextmanager
def explain_write_errors(directory: SweepDirectory) -> Iterator[None]:
    """Say where and why when the folder cannot be written."""
    try:
        yield
    except SLURMError:
        raise
    except OSError as error:
        raise SLURMError(
            f"{directory.path} cannot be written: {error.strerror or error}; nothing was started; make room or choose "
            "another output folder, and repeat the call"
        ) from error


def execute(
    directory: SweepDirectory,
    names: Sequence[str],
    mode: ExecutionMode,
    max_concurrent_jobs: int | None,
    *,
    single: bool = False,
    display: Display | None = None,
    remark: str = "",
) -> Executed:
    """Carry out planned runs; the caller holds the folder.

    Args:
        directory: the folder of the sweep.
        names: the runs, which have folders.
        mode: how they are executed.
        max_concurrent_jobs: how many run at a time.
        single: whether it is one experiment, submitted by itself.
        display: shows the progress of local runs; None chooses by the terminal.
        remark: a line for the user, shown with the progress.

    Raises:
        SLURMError: the intent cannot be written.
        LaunchInterrupted: the launcher was told to stop; the runs have saved and ended.
    """
    with explain_write_errors(directory):
        submission = Submissions(directory).add(mode, names, single=single)
    if mode is ExecutionMode.DRY_RUN:
        return Executed(submission)
    display = display or _default_display()
    runner = LocalRunner(directory, submission, max_concurrent=max_concurrent_jobs, display=display)
    if remark:
        display.say(remark)
    runner.run()
    return Executed(submission, runner.refused, runner.unnoted)


def _default_display() -> Display:
    from mtf_slurm.progress import choose_display  # draws with rich, which takes long to load

    return choose_display()
