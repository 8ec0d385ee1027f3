"""The files of a checkpoint: written through to the disk while they are hashed, and read without trust."""

from __future__ import annotations

import ctypes
import errno
import functools
import io
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import xxhash

from mtf_trainer.checkpoint.deadline import Deadline
from mtf_trainer.checkpoint.faults import damaged, os_failure, read_failure

__all__ = ["FileEntry", "MemberReader", "MemberWriter", "digest", "is_member_name", "read_member", "write_member"]

CHUNK: Final = 4 << 20
"""Bytes that are written and hashed at once: they are still in the processor's cache for the second."""

WINDOW: Final = 32 << 20
"""Bytes that the disk is told to write at once; no more than three times as many are ever waiting to be written."""

_MEMBER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}")


@dataclass(frozen=True)
class FileEntry:
    """What the manifest says of a file.

    Attributes:
        size: its length in bytes.
        xxh3: the XXH3-128 of all its bytes, as 32 hexadecimal digits.
        tensors: the XXH3-128 of each tensor's bytes by name, for a safetensors file.
    """

    size: int
    xxh3: str
    tensors: dict[str, str] | None = None


def digest(data: bytes | memoryview) -> str:
    """The XXH3-128 of some bytes, as 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(data)


def is_member_name(name: str) -> bool:
    """Whether a file inside a checkpoint may have this name: one component, not hidden, no `..`."""
    return _MEMBER_NAME.fullmatch(name) is not None and ".." not in name


class MemberWriter:
    """A new file that is hashed as it is written and synced when it is finished.

    The disk is set to work as soon as there is something to do, so that little is left to sync in the end. Calls that
    move bytes do not hold the interpreter's lock.
    """

    def __init__(self, path: Path, deadline: Deadline) -> None:
        self.size = 0
        self._path = path
        self._deadline = deadline
        self._digest = xxhash.xxh3_128()
        self._descriptor: int | None = None
        self._flushed = 0

    def __enter__(self) -> Self:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o666)
        except OSError as error:
            raise os_failure("create", self._path, error) from error
        return self

    def write(self, data: bytes | memoryview) -> str:
        """Append bytes; returns their own hash."""
        own, view = xxhash.xxh3_128(), memoryview(data)
        for start in range(0, len(view), CHUNK):
            self._deadline.check(f"writing {self._path.name}")
            began = time.perf_counter()
            chunk = view[start : start + CHUNK]
            self._put(chunk)
            self._digest.update(chunk)
            own.update(chunk)
            self._deadline.wrote(len(chunk), time.perf_counter() - began)
        return own.hexdigest()

    def _put(self, chunk: memoryview) -> None:
        assert self._descriptor is not None
        try:
            while chunk:
                count = os.write(self._descriptor, chunk)
                self.size += count
                chunk = chunk[count:]
            if self.size - self._flushed >= WINDOW:
                _start_flushing(self._descriptor, self._flushed, self.size - self._flushed)
                if self._flushed >= WINDOW:
                    _finish_flushing(self._descriptor, self._flushed - WINDOW, WINDOW)
                self._flushed = self.size
        except OSError as error:
            raise os_failure("write", self._path, error) from error

    def finish(self) -> FileEntry:
        """Make the content durable."""
        assert self._descriptor is not None
        self._deadline.check(f"syncing {self._path.name}")
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise os_failure("write", self._path, error) from error
        return FileEntry(self.size, self._digest.hexdigest())

    def __exit__(self, *exception: object) -> None:
        if self._descriptor is None:
            return
        try:
            os.close(self._descriptor)
        except OSError as error:
            if exception[0] is None:
                raise os_failure("write", self._path, error) from error


def write_member(path: Path, data: bytes, deadline: Deadline) -> FileEntry:
    """Create a file with this content, durable on return."""
    with MemberWriter(path, deadline) as writer:
        writer.write(data)
        return writer.finish()


class MemberReader:
    """A file of a checkpoint, opened only if it is a regular one of the expected size, and hashed as it is read.

    Args:
        path: the file.
        size: the length that it must have; None accepts any up to `limit`.
        limit: the greatest length that is accepted.
    """

    def __init__(self, path: Path, *, size: int | None, limit: int | None = None) -> None:
        self.path = path
        self._expected = size
        self._limit = limit
        self._digest = xxhash.xxh3_128()
        self._file: io.FileIO | None = None
        self.size = 0

    def __enter__(self) -> Self:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            # Not blocking: opening a pipe that someone put here must not wait for its writer.
            self._file = io.FileIO(os.open(self.path, flags), "rb")
            status = os.fstat(self._file.fileno())
        except OSError as error:
            raise read_failure(self.path, error) from error
        try:
            self._check(status)
        except BaseException:
            self._file.close()
            raise
        self.size = status.st_size
        return self

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise damaged(self.path, "not a regular file")
        if self._expected is not None and status.st_size != self._expected:
            raise damaged(self.path, f"has {status.st_size} bytes where {self._expected} were written")
        if self._limit is not None and status.st_size > self._limit:
            raise damaged(self.path, f"has {status.st_size} bytes, more than the {self._limit} that it may have")

    def read_into(self, view: memoryview) -> None:
        """Fill `view` with the next bytes."""
        assert self._file is not None
        for start in range(0, len(view), CHUNK):
            chunk = view[start : start + CHUNK]
            filled = 0
            while filled < len(chunk):
                filled += self._read_some(chunk[filled:])
            self._digest.update(chunk)

    def _read_some(self, view: memoryview) -> int:
        assert self._file is not None
        try:
            count = self._file.readinto(view)
        except OSError as error:
            raise read_failure(self.path, error) from error
        if not count:
            raise damaged(self.path, "ends before its size; is something writing to it?")
        return count

    def read(self, count: int) -> bytes:
        """The next `count` bytes; the caller has compared `count` with `size`."""
        data = bytearray(count)
        self.read_into(memoryview(data))
        return bytes(data)

    def hexdigest(self) -> str:
        """The XXH3-128 of what was read so far."""
        return self._digest.hexdigest()

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()


def read_member(path: Path, entry: FileEntry) -> bytes:
    """The whole content of a small file, verified."""
    with MemberReader(path, size=entry.size) as reader:
        data = reader.read(reader.size)
        if reader.hexdigest() != entry.xxh3:
            raise damaged(
                path, f"its bytes are not those that were written (xxh3 {reader.hexdigest()}, not {entry.xxh3})"
            )
        return data


_SYNC_WAIT_BEFORE, _SYNC_WRITE, _SYNC_WAIT_AFTER = 1, 2, 4


@functools.cache
def _sync_file_range() -> Callable[..., int] | None:
    """The call of Linux that flushes a part of a file, or None elsewhere.

    Source: sync_file_range(2). It makes nothing durable by itself: that remains the business of fsync.
    """
    function = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


def _start_flushing(descriptor: int, offset: int, count: int) -> None:
    _flush_range(descriptor, offset, count, _SYNC_WRITE)


def _finish_flushing(descriptor: int, offset: int, count: int) -> None:
    _flush_range(descriptor, offset, count, _SYNC_WAIT_BEFORE | _SYNC_WRITE | _SYNC_WAIT_AFTER)


def _flush_range(descriptor: int, offset: int, count: int, flags: int) -> None:
    function = _sync_file_range()
    if function is None or function(descriptor, offset, count, flags) == 0:
        return
    number = ctypes.get_errno()
    if number in (errno.EIO, errno.ENOSPC, errno.EDQUOT):  # others say that this file system does not know the call
        raise OSError(number, os.strerror(number))
