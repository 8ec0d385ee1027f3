"""The files of a checkpoint, written through to the disk while they are hashed.

While a thread writes one piece of a file, the next is copied and hashed. The disk is set to work at once, so that
little is left to sync in the end: past the page cache where the file system lies on a disk of this machine, which
costs a tenth of the processor's time and does not displace what training reads; else through the page cache, which is
flushed on the way.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import mmap
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import xxhash

from mtf_trainer.checkpoint.deadline import Deadline
from mtf_trainer.checkpoint.faults import os_failure
from mtf_trainer.checkpoint.files import FileEntry

__all__ = ["MemberWriter", "write_member"]

PIECE: Final = 4 << 20
"""Bytes that are written at once: enough for a disk to be busy, few enough for a save to end soon when it is cancelled
on a slow one, and a multiple of any disk's unit."""

_FLUSHED: Final = 8 << 20
"""Bytes after which the disk is told to write what lies in the page cache."""

_WAITING: Final = 128 << 20
"""Bytes in the page cache that may wait to be written: more would be in the way of everybody else's writes."""

_Buffer = np.ndarray[Any, np.dtype[np.uint8]]


class MemberWriter:
    """A new file that is hashed as it is written and synced when it is finished.

    Calls that move bytes do not hold the interpreter's lock.

    Args:
        path: the file; must not exist.
        deadline: asked before every piece, told of it afterwards.

    Raises:
        CheckpointError: it cannot be created; the methods raise it if it cannot be written.
    """

    def __init__(self, path: Path, deadline: Deadline) -> None:
        self._buffer = _new_buffer()
        self._output = _Output(path, deadline)
        self._digest = xxhash.xxh3_128()
        self._filled = 0
        self._size = 0
        self._drain: _Drain | None = None

    def __enter__(self) -> Self:
        return self

    def write(self, data: bytes | memoryview) -> str:
        """Append bytes; returns their own hash."""
        own, rest = xxhash.xxh3_128(), np.frombuffer(data, dtype=np.uint8) if len(data) else _NOTHING
        while rest.size:
            place = self._buffer[self._filled : self._filled + rest.size]
            part, rest = rest[: place.size], rest[place.size :]
            np.copyto(place, part)
            own.update(place.data)
            self._filled += place.size
            if self._filled == PIECE:
                self._pass_on()
        return own.hexdigest()

    def _pass_on(self) -> None:
        self._digest.update(self._buffer.data)
        self._size += self._filled
        if self._drain is None:
            self._output.bypass_cache()
            self._drain = _Drain(self._output)
        self._buffer = self._drain.exchange(self._buffer)
        self._filled = 0

    def finish(self) -> FileEntry:
        """Make the content durable."""
        if self._drain is not None:
            self._drain.finish()
        tail = self._buffer[: self._filled].data
        self._digest.update(tail)
        self._size += self._filled
        self._output.use_cache()  # what is left need not be as long as the disk wants it
        self._output.put(tail)
        self._output.sync()
        return FileEntry(self._size, self._digest.hexdigest())

    def __exit__(self, *exception: object) -> None:
        if self._drain is not None:
            self._drain.abandon()  # nothing may use the descriptor once it is closed
        self._output.close(report=exception[0] is None)


def write_member(path: Path, data: bytes, deadline: Deadline) -> FileEntry:
    """Create a file with this content, durable on return."""
    with MemberWriter(path, deadline) as writer:
        writer.write(data)
        return writer.finish()


_NOTHING = np.empty(0, dtype=np.uint8)


def _new_buffer() -> _Buffer:
    """Memory that begins with a page, as direct writes want it."""
    return np.frombuffer(mmap.mmap(-1, PIECE), dtype=np.uint8)


class _Drain(threading.Thread):
    """Writes one piece while the next is filled.

    It does not keep the process alive: a write may hang as long as the storage does.
    """

    def __init__(self, output: _Output) -> None:
        super().__init__(name="checkpoint-disk", daemon=True)
        self._output = output
        self._full: queue.SimpleQueue[_Buffer | None] = queue.SimpleQueue()
        self._empty: queue.SimpleQueue[_Buffer] = queue.SimpleQueue()
        self._empty.put(_new_buffer())
        self._stopped = False
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Write until there is no more."""
        while (piece := self._full.get()) is not None:
            try:
                if not self._stopped:
                    self._output.put(piece.data)
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that fills the pieces
                self._error, self._stopped = error, True
            self._empty.put(piece)

    def exchange(self, full: _Buffer) -> _Buffer:
        """Take a full piece for an empty one."""
        self._full.put(full)
        empty = self._empty.get()
        if self._error is not None:
            raise self._error
        return empty

    def finish(self) -> None:
        """Write what was passed on."""
        self._full.put(None)
        self.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Begin no other write, and wait for the one that was begun."""
        self._stopped = True
        self._full.put(None)
        self.join()


class _Output:
    """A new file whose bytes are on their way to the disk as soon as they are put into it.

    Used by one thread at a time.
    """

    def __init__(self, path: Path, deadline: Deadline) -> None:
        self._path = path
        self._deadline = deadline
        self._size = 0
        self._flushed = 0
        self._direct = False
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise os_failure("create", path, error) from error

    def bypass_cache(self) -> None:
        """Write directly from now on, where that is known to be of use: every piece has to be whole.

        A file system without a block device of its own has a device number with major 0. Those of networks write
        faster from their cache, which has many requests under way; others only imitate direct writes.
        """
        direct = getattr(os, "O_DIRECT", 0)
        if direct and os.major(os.fstat(self._descriptor).st_dev):
            self._set_direct(True)

    def use_cache(self) -> None:
        """Write pieces of any size from now on."""
        if self._direct:
            self._set_direct(False)

    def _set_direct(self, wanted: bool) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | (os.O_DIRECT if wanted else 0))
        except OSError:
            if not wanted:
                raise
            return  # not every file system has it
        self._direct = wanted

    def put(self, piece: memoryview) -> None:
        """Append a piece."""
        if not piece:
            return
        self._deadline.check(f"writing {self._path.name}")
        try:
            self._write(piece)
            if not self._direct:
                self._flush()
        except OSError as error:
            raise os_failure("write", self._path, error) from error
        self._deadline.wrote(len(piece))

    def _write(self, piece: memoryview) -> None:
        while piece:
            try:
                count = os.write(self._descriptor, piece)
            except OSError as error:
                if not self._direct or error.errno != errno.EINVAL:
                    raise
                self.use_cache()  # the disk wants larger units, or the last write ended inside of one
                continue
            self._size += count
            piece = piece[count:]

    def _flush(self) -> None:
        if self._size - self._flushed < _FLUSHED:
            return
        _flush_range(self._descriptor, self._flushed, self._size - self._flushed, _SYNC_WRITE)
        self._flushed = self._size
        if self._flushed > _WAITING:
            _flush_range(self._descriptor, 0, self._flushed - _WAITING, _SYNC_WAIT_BEFORE)

    def sync(self) -> None:
        """Make the content durable."""
        self._deadline.check(f"syncing {self._path.name}")
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise os_failure("write", self._path, error) from error

    def close(self, *, report: bool) -> None:
        """Close the file; `report` says whether an error is raised."""
        try:
            os.close(self._descriptor)
        except OSError as error:
            if report:
                raise os_failure("write", self._path, error) from error


_SYNC_WAIT_BEFORE, _SYNC_WRITE = 1, 2


@functools.cache
def _sync_file_range() -> Callable[..., int] | None:
    """The call of Linux that flushes a part of a file, or None elsewhere.

    Source: sync_file_range(2). It makes nothing durable by itself: that remains the business of fsync.
    """
    function = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


def _flush_range(descriptor: int, offset: int, count: int, flags: int) -> None:
    function = _sync_file_range()
    if function is None or function(descriptor, offset, count, flags) == 0:
        return
    number = ctypes.get_errno()
    if number in (errno.EIO, errno.ENOSPC, errno.EDQUOT):  # others say that this file system does not know the call
        raise OSError(number, os.strerror(number))
