"""One launcher at a time in a folder: a lock that the kernel gives back when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mtf_slurm.errors import SLURMError, SweepLockedError
from mtf_slurm.processes import host_name
from mtf_utils.rundir import SweepDirectory

__all__ = ["hold", "is_held", "is_locked"]

TRIES: Final = 10
WAIT_S: Final = 0.02


@contextlib.contextmanager
def hold(directory: SweepDirectory) -> Iterator[None]:
    """Be the launcher of the folder, which must exist, while the block runs.

    Raises:
        SweepLockedError: another launcher is at work there.

    Source: flock(2); Linux carries it over NFS since 2.6.12.
    """
    # Python's descriptors are closed on exec: no job inherits the lock
    descriptor = os.open(directory.lock_file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor, directory)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {host_name()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: SweepDirectory) -> None:
    for _ in range(TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:  # perhaps someone only looks whether it is locked
            time.sleep(WAIT_S)
        except OSError as error:
            reason = f"this file system has no locks ({error.strerror}); choose another output folder"
            raise SLURMError(f"{directory.path}: {reason}") from error
    holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "an unknown process"
    raise SweepLockedError(
        f"{directory.path}: another launcher is at work here ({holder}); wait until it is done, or choose another "
        "output folder",
        path=directory.lock_file,
        holder=holder,
    )


def is_locked(directory: SweepDirectory) -> bool:
    """Whether a launcher is at work in the folder."""
    return is_held(directory.lock_file)


def is_held(file: Path) -> bool:
    """Whether a process has locked the file (flock) for itself; False if there is no file."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
