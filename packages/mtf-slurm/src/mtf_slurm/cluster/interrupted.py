"""Ctrl-C while runs are being submitted: what has reached Slurm, what has not, and how it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from mtf_config import ExecutionMode
from mtf_slurm.cluster.journal import JobJournal
from mtf_slurm.errors import LaunchInterrupted
from mtf_slurm.submissions import Submission, Submissions
from mtf_slurm.wording import counted
from mtf_utils.rundir import SweepDirectory

__all__ = ["explaining_interrupts"]


@contextlib.contextmanager
def explaining_interrupts(directory: SweepDirectory, say: Callable[[str], None]) -> Iterator[list[str]]:
    """Say what was submitted when Ctrl-C ends the block, which submits runs.

    Args:
        directory: the folder of the sweep.
        say: tells the user.

    Yields:
        A list for the names of the runs that are asked for, once they are known.

    Raises:
        LaunchInterrupted: there was a Ctrl-C.
    """
    before = set(Submissions(directory).tokens())
    names: list[str] = []
    try:
        yield names
    except KeyboardInterrupt as error:
        if isinstance(error, LaunchInterrupted):
            raise
        made = [item for item in Submissions(directory).all() if item.token not in before]
        parts = [item for submission in made for item in _standing(directory, submission)]
        unfinished = [name for name, word in parts if word != _TAKEN] if made else names
        text = (
            f"interrupted; {_summary([word for _, word in parts])}. Nothing is lost: the same call or command, "
            "repeated, goes on where this one stopped"
        )
        if directory.sweep_file.exists():
            text += f"; `mtf status {directory.path}` tells how the runs stand"
        say(text)
        raise LaunchInterrupted(text, unfinished=unfinished, output_dir=directory.path, signal_name="SIGINT") from error


_TAKEN = "submitted"
_UNCLEAR = "sent without an answer"
_REFUSED = "refused by Slurm"
_LEFT = "not submitted"


def _standing(directory: SweepDirectory, submission: Submission) -> Iterator[tuple[str, str]]:
    """How each run of a submission stands."""
    if submission.mode is not ExecutionMode.SLURM:
        return
    for number in range(len(submission.jobs)):
        journal = JobJournal(directory, submission, number)
        if journal.job() is not None:
            word = _TAKEN
        elif journal.is_settled:
            word = _REFUSED
        else:
            word = _UNCLEAR if journal.may_be_queued else _LEFT
        yield from ((name, word) for name in submission.runs_of(number))


def _summary(words: Sequence[str]) -> str:
    if not words:
        return "nothing new was submitted"
    kinds = [(kind, words.count(kind)) for kind in (_TAKEN, _UNCLEAR, _REFUSED, _LEFT)]
    told = ", ".join(f"{count} {kind}" for kind, count in kinds if count)
    return f"of {counted(len(words), 'run')}: {told}"
