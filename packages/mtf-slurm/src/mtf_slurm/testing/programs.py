"""The programs that a cluster is made of: where they are, which Debian packages bring them, and how one is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from mtf_slurm.testing.errors import ClusterError, ClusterUnavailableError

__all__ = [
    "ACCOUNTING_PACKAGES",
    "PACKAGES",
    "find_program",
    "is_available",
    "missing_packages",
    "program",
    "run_command",
    "search_path",
]

PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "slurm-wlm": ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo", "scontrol", "scancel", "sdiag"),
    "munge": ("munged",),
}
"""What every cluster needs: the programs by the Debian package that brings them."""

# The server's core package has no service of its own: nothing is set up or started on the machine.
ACCOUNTING_PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "slurmdbd": ("slurmdbd",),
    "mariadb-server-core": ("mariadbd",),
}
"""What accounting needs beyond that."""

# Daemons live where an unprivileged user's PATH does not lead.
_SYSTEM_FOLDERS: Final = ("/usr/sbin", "/sbin", "/usr/local/sbin")


def search_path(path: str | None = None) -> str:
    """The given PATH (by default this process's), completed by the folders of the daemons."""
    folders = (os.environ.get("PATH", os.defpath) if path is None else path).split(os.pathsep)
    return os.pathsep.join([*folders, *(folder for folder in _SYSTEM_FOLDERS if folder not in folders)])


def find_program(name: str) -> str | None:
    """The absolute path of a program, or None."""
    return shutil.which(name, path=search_path())


def program(name: str) -> str:
    """The absolute path of a program.

    Raises:
        ClusterUnavailableError: it is not installed.
    """
    path = find_program(name)
    if path is None:
        packages = [p for p, names in (PACKAGES | ACCOUNTING_PACKAGES).items() if name in names]
        remedy = f"; install {_listed(packages)}" if packages else ""
        raise ClusterUnavailableError(f"the program {name} was not found{remedy}")
    return path


def missing_packages(*, accounting: bool = False) -> dict[str, list[str]]:
    """The Debian packages that have to be installed, each with its programs that were not found."""
    needed = PACKAGES | (ACCOUNTING_PACKAGES if accounting else {})
    missing = {package: [n for n in names if find_program(n) is None] for package, names in needed.items()}
    return {package: names for package, names in missing.items() if names}


def is_available(*, accounting: bool = False) -> str | None:
    """Why no cluster can run here, in one line; None when one can.

    Args:
        accounting: whether slurmdbd and a database are wanted.
    """
    if not sys.platform.startswith("linux"):
        return f"a local Slurm cluster needs Linux, this is {sys.platform}"
    missing = missing_packages(accounting=accounting)
    if not missing:
        return None
    names = [name for names in missing.values() for name in names]
    return f"Slurm cannot run here: {', '.join(names)} not found; install {_listed(missing)}"


def _listed(packages: Iterable[str]) -> str:
    return f"the Debian packages: {' '.join(packages)}"


def run_command(
    words: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text_in: str = "",
    timeout_s: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end with its output captured; the exit status is the caller's to look at.

    Args:
        words: the program, found as `find_program` does, and its arguments.
        environ: the whole environment; None is this process's.
        cwd: the working directory; None is this process's.
        text_in: what the program reads from its standard input.
        timeout_s: after this long the program is killed.

    Raises:
        ClusterError: the program is not there, or was killed for the time it took.
    """
    command = [program(words[0]), *words[1:]]
    try:
        return subprocess.run(
            command, env=environ, cwd=cwd, input=text_in, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        said = error.stderr.decode("utf-8", "replace").strip() if isinstance(error.stderr, bytes) else ""
        raise ClusterError(f"{' '.join(words)}: no end after {timeout_s:g} s{': ' + said if said else ''}") from error
