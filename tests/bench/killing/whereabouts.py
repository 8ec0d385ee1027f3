"""Where a training process stands, in memory that it shares with the one that is going to kill it.

Writing costs a few microseconds and no system call, so that the process runs as it would unobserved; what it wrote
outlives it, however it ends.
"""

from __future__ import annotations

import enum
import json
import mmap
import struct
from pathlib import Path
from typing import Any, Final

__all__ = ["Activity", "Whereabouts"]

_SIZE: Final = 8192
_BEGAN, _NOW = 64, 4096
_ACTIVITY, _LISTENING, _SAVING = 0, 1, 2
_HEAD = struct.Struct("<II")


class Activity(enum.IntEnum):
    """What a training process is doing, as far as it matters to a kill."""

    START_UP = 0
    """Before the first batch: imports, reading the checkpoint, starting workers."""
    TRAINING = 1
    """Between two batches of one accumulation window and the next, or in its first batch."""
    ACCUMULATION = 2
    """Gradients of a part of a window are there."""
    VALIDATION = 3
    FINISHED = 4
    """Training is complete; what is left is to write it down."""


class Whereabouts:
    """The shared memory: a file of fixed size that both processes map.

    Args:
        path: the file.
        create: make it anew, as the observer does; the observed process opens it.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SIZE)

    @property
    def activity(self) -> Activity:
        """What the process was doing when it last said so."""
        return Activity(self._memory[_ACTIVITY])

    @property
    def listening(self) -> bool:
        """Whether its handlers for preemption signals are in place."""
        return self._memory[_LISTENING] == 1

    @listening.setter
    def listening(self, value: bool) -> None:
        self._memory[_LISTENING] = int(value)

    @property
    def saving(self) -> bool:
        """Whether it says that it is writing a checkpoint."""
        return self._memory[_SAVING] == 1

    @saving.setter
    def saving(self, value: bool) -> None:
        self._memory[_SAVING] = int(value)

    def move(self, activity: Activity, place: dict[str, Any]) -> None:
        """Say what the process is doing and where it stands; the first call is kept beside the last one."""
        self._memory[_ACTIVITY] = activity
        payload = json.dumps(place).encode()
        if self._memory[_BEGAN] == 0:
            self._write(_BEGAN, payload)
        self._write(_NOW, payload)

    def began(self) -> dict[str, Any] | None:
        """Where the process began; None if it did not get so far."""
        return self._read(_BEGAN)

    def now(self) -> dict[str, Any] | None:
        """Where the process stands, or stood when it ended."""
        return self._read(_NOW)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()

    def _write(self, offset: int, payload: bytes) -> None:
        # The version is odd while the text is being written: a reader in another process then tries again.
        version, _ = _HEAD.unpack_from(self._memory, offset)
        _HEAD.pack_into(self._memory, offset, version + 1, len(payload))
        start = offset + _HEAD.size
        self._memory[start : start + len(payload)] = payload
        _HEAD.pack_into(self._memory, offset, version + 2, len(payload))

    def _read(self, offset: int) -> dict[str, Any] | None:
        for _ in range(1000):
            version, length = _HEAD.unpack_from(self._memory, offset)
            start = offset + _HEAD.size
            payload = self._memory[start : start + length]
            if version and version % 2 == 0 and _HEAD.unpack_from(self._memory, offset) == (version, length):
                place: dict[str, Any] = json.loads(payload)
                return place
            if version == 0:
                return None
        return None  # it was killed in the middle of a write
