"""`metrics.jsonl`: append records cheaply, flush when asked, cut the file back to where a checkpoint was taken."""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mtf_trainer.errors import TrainerError
from mtf_utils.atomic import fsync_directory

__all__ = ["Journal"]

logger = logging.getLogger(__name__)

FLUSH_AFTER_S: Final = 1.0
CHUNK_BYTES: Final = 1 << 20

Field = float | int | str | None
"""What a record has under a name."""

_ENCODE = json.JSONEncoder(allow_nan=False).encode


class Journal:
    """The metrics of a run, one JSON object a line.

    Records wait in memory until `flush`, or until one is written a second or more after the last flush, so that a
    file that someone follows is never far behind.

    Args:
        path: the file; its folder is made if needed.
        clock: the wall clock, in seconds since 1970.

    Attributes:
        records: how many records there are, flushed or not.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self.records = 0
        self._descriptor: int | None = None
        self._lines: list[str] = []
        self._offset = 0
        self._flushed_at = 0.0

    def open(self, offset: int | None) -> None:
        """Begin to write.

        Args:
            offset: None for a new file; else what `flush` returned when the checkpoint was taken: everything behind
                that byte is cut off, durably, because it will be written again.

        Raises:
            TrainerError: the file is not the one that the checkpoint speaks of.
            OSError: the file cannot be opened.
        """
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o666)
        try:
            start = 0 if offset is None else self._usable(descriptor, offset)
            os.ftruncate(descriptor, start)
            os.fsync(descriptor)
            fsync_directory(self.path.parent)
            records = self._count(descriptor, start)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self._offset, self.records = descriptor, start, records
        self._flushed_at = self._clock()

    def _usable(self, descriptor: int, offset: int) -> int:
        """Where to go on: at `offset`, or earlier if records before it are gone, which a checkpoint can do without."""
        size = os.fstat(descriptor).st_size
        if size < offset:
            logger.warning(
                "%s: has %d bytes where the checkpoint counts on %d: the last %d are missing; training goes on, but "
                "these records are lost unless the whole file is put back first",
                self.path,
                size,
                offset,
                offset - size,
            )
            return self._last_end(descriptor, size)
        if offset < 0 or (offset > 0 and os.pread(descriptor, 1, offset - 1) != b"\n"):
            raise TrainerError(
                f"{self.path}: no record ends at byte {offset}, where the checkpoint says that one does: this is not "
                "the file that was written with it; put that file back, or move this one away"
            )
        return offset

    @staticmethod
    def _last_end(descriptor: int, size: int) -> int:
        """Where the last complete record ends."""
        while size > 0 and os.pread(descriptor, 1, size - 1) != b"\n":
            size -= 1
        return size

    @staticmethod
    def _count(descriptor: int, end: int) -> int:
        starts = range(0, end, CHUNK_BYTES)
        return sum(os.pread(descriptor, min(CHUNK_BYTES, end - start), start).count(b"\n") for start in starts)

    def write(self, record: Mapping[str, Field]) -> dict[str, Field]:
        """Add one record, followed by `time`, the wall clock.

        Args:
            record: plain numbers and strings by name; NaN and infinities become null, which is what JSON has.

        Returns:
            The record as it will be read back.

        Raises:
            TrainerError: the journal is not open, or the record is not made of numbers and strings.
        """
        if self._descriptor is None:
            raise TrainerError(f"{self.path}: the journal is not open")
        if "time" in record:
            raise TrainerError(f"{self.path}: 'time' cannot name a metric, the journal adds a field of that name")
        now = self._clock()
        line: dict[str, Field] = {}
        parts: list[str] = []
        for key, value in record.items():
            line[key] = plain = value if type(value) is float and math.isfinite(value) else _plain(key, value)
            parts.append(_encode_name(key) + (repr(plain) if type(plain) is float else _ENCODE(plain)))
        line["time"] = now
        parts.append(f'"time": {now!r}}}\n')
        self._lines.append("{" + ", ".join(parts))
        self.records += 1
        if not 0.0 <= now - self._flushed_at < FLUSH_AFTER_S:
            self.flush()
        return line

    def flush(self) -> int:
        """Hand what waits to the operating system; `sync` makes it durable.

        After an error, such as a full disk, nothing is lost: the next flush writes the same bytes to the same place.

        Returns:
            The size of the file in bytes: the offset for `open` that brings back this moment.

        Raises:
            TrainerError: the journal is not open.
            OSError: the file cannot be written.
        """
        if self._descriptor is None:
            raise TrainerError(f"{self.path}: the journal is not open")
        data = memoryview("".join(self._lines).encode("ascii"))
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], self._offset + written)
        self._offset += len(data)
        self._lines.clear()
        self._flushed_at = self._clock()
        return self._offset

    def sync(self) -> None:
        """Make durable what was flushed; in any thread, also once the journal is closed.

        Raises:
            OSError: it cannot be made durable.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Flush and close; closing twice does no harm."""
        if self._descriptor is None:
            return
        try:
            self.flush()
        finally:
            os.close(self._descriptor)
            self._descriptor = None
            self._lines.clear()


@functools.lru_cache(maxsize=1024)
def _encode_name(name: str) -> str:
    return _ENCODE(name) + ": "


def _plain(name: str, value: Field) -> Field:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int | str):
        return value
    raise TrainerError(f"the metric {name!r} is a {type(value).__name__}: expected a number, a string or None")
