"""The lines of `slurm.setup`: whether bash can read them, asked before anything is written or submitted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from mtf_config import ExperimentConfig
from mtf_slurm.processes import run_program

__all__ = ["check_setups", "setup_problem"]

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
    # only read, not run, so that an option which a line sets is not set for the next ones: allow what it would allow
    words = ("env", "-u", "BASH_ENV", "LC_ALL=C", "bash", "-n", "-O", "extglob", "-c", "\n".join(lines) + "\n\n:")
    done = run_program(*words)
    if done is None:
        return ""  # there is no bash here to run them either
    unclosed = _UNCLOSED.search(done.stderr)
    if done.returncode == 0 and unclosed is None:
        return ""
    complaint = unclosed or _COMPLAINT.search(done.stderr)
    if complaint is None:
        return f"slurm.setup: bash cannot read it: {done.stderr.strip()}"
    index, line = _place(lines, int(complaint[1]))
    what = f"here-document {complaint[2]}" if unclosed else complaint[2]
    return f"slurm.setup[{index}]: bash cannot read {line!r}: {what}"


def _place(lines: Sequence[str], number: int) -> tuple[int, str]:
    """The item that the line of that number, from 1, is in, and the line; what misses the end is the last one's."""
    every = [(index, line) for index, item in enumerate(lines) for line in item.split("\n")]
    return every[min(number, len(every)) - 1]
