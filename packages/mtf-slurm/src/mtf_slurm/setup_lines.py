"""Whether bash can read what it is to run, the lines of `slurm.setup` above all; asked before anything is submitted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from mtf_config import ExperimentConfig
from mtf_slurm.processes import run_program

__all__ = ["bash_complaint", "check_setups", "setup_problem"]

_COMPLAINT: Final = re.compile(r"line (\d+): (.+)")
_UNCLOSED: Final = re.compile(r"line \d+: warning: here-document at line (\d+) (.+)")  # for bash that is no error


def check_setups(configs: Mapping[str, ExperimentConfig]) -> dict[str, str]:
    """Why bash cannot read what experiments have run before the command, by their names; the others are left out."""
    found = {name: setup_problem(config.slurm.setup) for name, config in configs.items() if config.slurm}
    return {name: problem for name, problem in found.items() if problem}


def setup_problem(lines: Sequence[str]) -> str:
    """Why bash cannot read the lines: which of them, and in bash's words; empty if it can.

    A line may continue the one before, and may be several lines itself.
    """
    return _problem(tuple(lines)) if lines else ""


@cache
def _problem(lines: tuple[str, ...]) -> str:
    found = bash_complaint("\n".join(lines) + "\n\n:")
    if found is None:
        return ""
    number, what = found
    if number is None:
        return f"slurm.setup: bash cannot read it: {what}"
    index, line = _place(lines, number)
    return f"slurm.setup[{index}]: bash cannot read {line!r}: {what}"


def bash_complaint(text: str) -> tuple[int | None, str] | None:
    """Why bash cannot read a script: the number of a line, where it names one, and its words; None if it can.

    The script is only read, not run, so that an option which a line sets is not set for the next ones: what it would
    allow is allowed.
    """
    done = run_program("env", "-u", "BASH_ENV", "LC_ALL=C", "bash", "-n", "-O", "extglob", "-c", text)
    if done is None:
        return None  # there is no bash here to run it either
    unclosed = _UNCLOSED.search(done.stderr)
    if done.returncode == 0 and unclosed is None:
        return None
    complaint = unclosed or _COMPLAINT.search(done.stderr)
    if complaint is None:
        return None, done.stderr.strip()
    return int(complaint[1]), f"here-document {complaint[2]}" if unclosed else complaint[2]


def _place(lines: Sequence[str], number: int) -> tuple[int, str]:
    """The item that the line of that number, from 1, is in, and the line; what misses the end is the last one's."""
    every = [(index, line) for index, item in enumerate(lines) for line in item.split("\n")]
    return every[min(number, len(every)) - 1]
