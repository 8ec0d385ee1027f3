"""One user of a repository's checkout at a time: a lock beside git's own files, which dies with its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import tenacity

from mtf_slurm.errors import GitOperationError
from mtf_slurm.processes import host_name

__all__ = ["exclusive"]

WAIT_S: Final = 600.0
"""How long the turn of another process or thread is waited for."""

_held: set[tuple[Path, int, int]] = set()
"""Which locks this thread of this process holds: what it does inside needs no turn of its own."""


@contextlib.contextmanager
def exclusive(path: Path, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold the lock while the block runs; a thread that holds it already goes on at once.

    Args:
        path: the file of the lock, made if needed.
        wait_s: how long to wait for another holder.

    Raises:
        GitOperationError: another one holds it all the time, or the file system has no locks.

    Source: flock(2).
    """
    key = (path, os.getpid(), threading.get_ident())
    if key in _held:
        yield
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise GitOperationError(f"{path}: the lock cannot be made: {error.strerror}") from error
    try:
        _wait(descriptor, path, wait_s)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {host_name()}\n".encode(), 0)
        _held.add(key)
        yield
    finally:
        _held.discard(key)
        os.close(descriptor)


def _wait(descriptor: int, path: Path, wait_s: float) -> None:
    turns = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(BlockingIOError),
        stop=tenacity.stop_after_delay(wait_s),
        wait=tenacity.wait_random(0.01, 0.1),
        reraise=True,
    )
    try:
        turns(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "an unknown process"
        raise GitOperationError(
            f"{path.parent}: {holder} has been at work on this checkout for more than {wait_s:g} s; wait until it is "
            "done, or give each user a working tree of its own (git worktree add)"
        ) from error
    except OSError as error:
        raise GitOperationError(f"{path}: this file system has no locks ({error.strerror})") from error
