"""The files of a checkpoint: their names, their hashes, and reading them without trust."""

from __future__ import annotations

import io
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import xxhash

from mtf_trainer.checkpoint.faults import damaged, read_failure

__all__ = ["FileEntry", "MemberReader", "digest", "is_member_name", "read_member"]

CHUNK: Final = 4 << 20
"""Bytes that are read and hashed at once: they are still in the processor's cache for the second."""

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
