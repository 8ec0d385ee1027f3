"""What the daemon of a node writes into the output of a job that it ends for its memory.

Where memory is kept within its limits by looking at it from time to time (`OverMemoryKill`), and not by the kernel,
Slurm's programs only say of such a job that it was killed.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from mtf_slurm.cluster.answers import TaskState, readable_memory
from mtf_slurm.status import JobStatus

__all__ = ["TAIL_BYTES", "for_want_of_memory", "may_have_been", "read_overuse"]

TAIL_BYTES: Final = 2**20
"""How much of the end of an output is looked at."""

_KILLED: Final = re.compile(rb"error: (StepId=(\d+)\.\w+ exceeded memory limit \((\d+) > \d+\))")


def may_have_been(task: TaskState, killed: bool) -> bool:
    """Whether memory may be what ended a job, though Slurm does not say so.

    Args:
        task: what Slurm says of it.
        killed: whether its command was, by SIGKILL.
    """
    return task.state is JobStatus.FAILED and (killed or task.signal == signal.SIGKILL)


def read_overuse(output: Path) -> dict[str, tuple[str, int]]:
    """Of which jobs the end of an output says that they were ended for their memory.

    Args:
        output: the file.

    Returns:
        By the job's number: the words, and the most bytes that were seen in use.
    """
    try:
        with output.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            text = file.read()
    except OSError:  # what cannot be read says nothing
        return {}
    found: dict[str, tuple[str, int]] = {}
    for words, number, size in _KILLED.findall(text):
        known = found.get(number.decode(), ("", -1))
        found[number.decode()] = max(known, (words.decode(), int(size)), key=lambda entry: entry[1])
    return found


def for_want_of_memory(task: TaskState, said: Iterable[dict[str, tuple[str, int]]]) -> TaskState:
    """What is to be believed of a job, given what was found in its outputs."""
    for found in said:
        if task.number in found:
            words, size = found[task.number]
            return replace(
                task,
                state=JobStatus.OUT_OF_MEMORY,
                reason=words,
                source="slurmstepd",
                peak_memory=readable_memory(size),
            )
    return task
