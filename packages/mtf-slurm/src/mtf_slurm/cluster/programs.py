"""The one function that runs a program of Slurm."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from mtf_slurm.errors import SlurmNotFoundError

__all__ = ["PROGRAM_TIMEOUT_S", "Ran", "RunProgram", "clean_environment", "run_program"]

PROGRAM_TIMEOUT_S: Final = 120.0
"""How long a program may take; Slurm's own limit (MessageTimeout) is shorter nearly everywhere."""

# Variables of a job that the launcher itself runs in would reach the jobs it submits (SLURM_RESTART_COUNT,
# SLURM_ARRAY_TASK_ID), and variables that steer a program would change what it answers.
_FOREIGN: Final = ("SLURM_", "SBATCH_", "SQUEUE_", "SINFO_", "SACCT_", "SCANCEL_", "SCONTROL_", "SRUN_", "MTF_")
_KEPT: Final = (
    "SLURM_CLUSTERS",
    "SLURM_CONF",
    "SLURM_CONF_SERVER",
    "SLURM_JWT",
    "SBATCH_ACCOUNT",
    "SBATCH_CLUSTERS",
    "SBATCH_PARTITION",
    "SBATCH_QOS",
    "SBATCH_RESERVATION",
)

# So that answers can be read; numbers of array tasks are never abbreviated. sbatch would hand it on to the jobs, and
# says the same in every locale. Source: squeue(1), scontrol(1)
_STEADY: Final = {"LC_ALL": "C", "SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "standard"}


@dataclass(frozen=True)
class Ran:
    """How a program ended.

    Attributes:
        status: its exit status; negative when a signal ended it.
        out: what it wrote to standard output.
        err: what it wrote to standard error.
        timed_out: whether it was killed for the time it took.
    """

    status: int
    out: str = ""
    err: str = ""
    timed_out: bool = False


class RunProgram(Protocol):
    """Runs a program to its end; tests put another function in this place."""

    def __call__(
        self, words: Sequence[str], *, timeout_s: float = PROGRAM_TIMEOUT_S, keep_open: Sequence[int] = ()
    ) -> Ran:
        """Run it; its exit status is the caller's to look at."""
        ...  # pragma: no cover


def run_program(words: Sequence[str], *, timeout_s: float = PROGRAM_TIMEOUT_S, keep_open: Sequence[int] = ()) -> Ran:
    """Run a program of Slurm to its end, without a shell; in the C locale, unless jobs would inherit that.

    Args:
        words: the program and its arguments.
        timeout_s: after this long it is killed.
        keep_open: file descriptors that it inherits, and with them the locks that they hold.

    Raises:
        SlurmNotFoundError: the program is not installed, or cannot be run.
    """
    try:
        done = subprocess.run(
            list(words),
            env=clean_environment(os.environ) | ({} if words[0] == "sbatch" else _STEADY),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            pass_fds=tuple(keep_open),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return Ran(-1, _text(error.stdout), _text(error.stderr), timed_out=True)
    except OSError as error:
        raise SlurmNotFoundError(
            f"{words[0]} cannot be run: {error.strerror}; Slurm's programs are needed on this machine (on a login node "
            "of the cluster they are in the PATH), or use ExecutionMode.LOCAL"
        ) from error
    return Ran(done.returncode, done.stdout, done.stderr)


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of Slurm's programs, and so of the jobs: without what belongs to another job or program."""
    return {key: value for key, value in environ.items() if key in _KEPT or not key.startswith(_FOREIGN)}


def _text(captured: bytes | str | None) -> str:
    return captured.decode("utf-8", "replace") if isinstance(captured, bytes) else captured or ""
