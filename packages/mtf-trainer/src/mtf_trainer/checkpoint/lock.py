"""One writer per checkpoint directory: a lock that the kernel drops when its process ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import weakref
from pathlib import Path
from typing import Any

from mtf_trainer.checkpoint.faults import os_failure
from mtf_trainer.errors import CheckpointError
from mtf_utils.rundir import now

__all__ = ["LOCK", "DirectoryLock", "last_holder"]

LOCK = ".lock"
"""Name of the lock file inside the directory."""

_log = logging.getLogger(__name__)
_HELD_ELSEWHERE = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)

_held: set[tuple[int, int]] = set()
"""Lock files held by this process. A POSIX lock does not exclude its own process, and is lost as soon as the process
closes any descriptor of the file: so a second one must not even open it."""


class DirectoryLock:
    """Holds the lock from construction to `release()`, or until the object or the process is gone.

    The lock is a POSIX one (`fcntl`), not `flock`: it works on NFS, and forked loader workers that outlive their
    parent for a moment do not inherit it. Where the file system has no locks, a warning says so and work goes on: it
    is then up to the user that one run at a time writes here.

    Raises:
        CheckpointError: another process, or another store of this one, writes to the directory.
    """

    def __init__(self, directory: Path, run_id: str) -> None:
        self._path = directory / LOCK
        try:
            descriptor, identity = self._open()
        except OSError as error:
            raise os_failure("create", self._path, error) from error
        try:
            self._lock(descriptor)
            _describe_holder(descriptor, run_id)
        except BaseException:
            os.close(descriptor)
            raise
        _held.add(identity)
        self._release = weakref.finalize(self, _release, descriptor, identity, os.getpid())

    @property
    def held(self) -> bool:
        """Whether `release` was not called yet."""
        return self._release.alive

    def release(self) -> None:
        """Let another writer in; a second call does nothing."""
        self._release()

    def _open(self) -> tuple[int, tuple[int, int]]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            pass
        else:
            if (status.st_dev, status.st_ino) in _held:
                raise CheckpointError(
                    f"{self._path.parent} is in use by another checkpoint store of this process (pid {os.getpid()}): "
                    "close it first, or give each run a checkpoint.checkpoint_dir of its own",
                    path=self._path.parent,
                )
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        status = os.fstat(descriptor)
        return descriptor, (status.st_dev, status.st_ino)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD_ELSEWHERE:
                raise CheckpointError(
                    f"{self._path.parent} is in use by {_holder(descriptor)}: wait for it to end or stop it, or give "
                    "each run a checkpoint.checkpoint_dir of its own",
                    path=self._path.parent,
                ) from None
            if error.errno not in _NO_LOCKS:
                raise os_failure("lock", self._path, error) from error
            _log.warning(
                "%s: this file system has no locks (%s); make sure that only one run at a time writes here",
                self._path.parent,
                error.strerror,
            )


def last_holder(directory: Path) -> str | None:
    """The run that holds the lock of a directory or held it last; None if that cannot be told."""
    path = directory / LOCK
    try:
        status = path.stat()
        if (status.st_dev, status.st_ino) in _held:
            return None
        run_id: Any = json.loads(path.read_bytes()[:4096])["run_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run_id if isinstance(run_id, str) else None


def _describe_holder(descriptor: int, run_id: str) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "run_id": run_id, "since": now()}
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(holder) + "\n").encode(), 0)
    except OSError as error:
        # The lock is what counts. Without room for this line, only a refusal's message is poorer.
        _log.warning("cannot note the holder of the checkpoint directory's lock: %s", error)


def _holder(descriptor: int) -> str:
    try:
        holder: Any = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']} (run {holder['run_id']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _release(descriptor: int, identity: tuple[int, int], owner: int) -> None:
    if os.getpid() == owner:  # a forked child has a copy of the object, but neither the lock nor a say in it
        _held.discard(identity)
        os.close(descriptor)
