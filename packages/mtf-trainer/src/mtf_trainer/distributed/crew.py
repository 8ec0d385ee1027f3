"""How the ranks save together: the first one names the folder, each writes into it, the first one publishes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from mtf_trainer.checkpoint.deadline import Deadline, SaveCancelledError
from mtf_trainer.checkpoint.files import FileEntry
from mtf_trainer.checkpoint.folder import Part
from mtf_trainer.distributed.channel import Channel
from mtf_trainer.distributed.roll_call import TOGETHER
from mtf_trainer.errors import CheckpointError

__all__ = ["RankCrew"]


class RankCrew:
    """The ranks of a team, in the threads that write their checkpoints. See `checkpoint.publishing.Crew`.

    Args:
        rank: this one.
        size: how many there are.
        connect: makes a connection for the thread that asks.
        patience_s: how long to wait for another rank where a save has no deadline.
    """

    def __init__(self, rank: int, size: int, connect: Callable[[], Channel], *, patience_s: float) -> None:
        self._rank = rank
        self._size = size
        self._connect = connect
        self._patience_s = patience_s

    @cached_property
    def _channel(self) -> Channel:
        return self._connect()

    def open(self, save: int, folder: str, what: str) -> None:
        """Say where to write what."""
        self._channel.tell(f"{save}/folder", [folder, what])

    def collect(self, save: int, deadline: Deadline) -> list[Part]:
        """Wait for the parts of all others."""
        names = [f"{save}/part/{rank}" for rank in range(self._size) if rank != self._rank]
        told = self._channel.await_all(names, self._patience(deadline, "waiting for the parts of the other ranks"))
        for part in told:
            _raise_told(part)
        return [Part(tuple(part["sections"]), _entries(part["files"])) for part in told]

    def close(self, save: int, outcome: Path | BaseException) -> None:
        """Say what became of it."""
        self._channel.tell(f"{save}/outcome", self._told(outcome))
        past = save - 2  # everybody has read it: a save begins when the one before it is over
        names = ["folder", "outcome", *(f"part/{rank}" for rank in range(self._size) if rank != self._rank)]
        self._channel.forget(f"{past}/{name}" for name in names)

    def folder(self, save: int, what: str, deadline: Deadline) -> str:
        """Wait for where to write."""
        check, outcome = self._patience(deadline, "waiting for rank 0 to begin"), f"{save}/outcome"

        def check_both() -> None:
            if self._channel.has(outcome):
                _raise_told(self._channel.read(outcome))
            check()

        ((name, begun),) = self._channel.await_all([f"{save}/folder"], check_both)
        if begun != what:
            raise CheckpointError(f"rank 0 saves {begun}, and rank {self._rank} {what}: {TOGETHER}")
        return str(name)

    def deliver(self, save: int, part: Part | BaseException) -> None:
        """Say what was written, or why nothing was."""
        self._channel.tell(f"{save}/part/{self._rank}", self._told(part))

    def outcome(self, save: int, deadline: Deadline) -> Path:
        """Wait until the checkpoint is published."""
        (told,) = self._channel.await_all(
            [f"{save}/outcome"], self._patience(deadline, "waiting for rank 0 to publish it")
        )
        _raise_told(told)
        return Path(told["path"])

    def _told(self, outcome: Path | Part | BaseException) -> dict[str, Any]:
        if isinstance(outcome, Path):
            return {"path": str(outcome)}
        if isinstance(outcome, Part):
            return {"sections": outcome.sections, "files": {name: vars(entry) for name, entry in outcome.files.items()}}
        return {"error": f"rank {self._rank}: {outcome}", "cancelled": isinstance(outcome, SaveCancelledError)}

    def _patience(self, deadline: Deadline, doing: str) -> Callable[[], None]:
        end = time.monotonic() + self._patience_s

        def check() -> None:
            deadline.check(doing)
            if time.monotonic() > end:
                raise CheckpointError(f"nothing came in {self._patience_s:g} s of {doing}: {TOGETHER}")

        return check


def _raise_told(told: dict[str, Any]) -> None:
    if "error" in told:
        raise (SaveCancelledError if told["cancelled"] else CheckpointError)(told["error"])


def _entries(files: dict[str, dict[str, Any]]) -> dict[str, FileEntry]:
    return {name: FileEntry(entry["size"], entry["xxh3"], entry["tensors"]) for name, entry in files.items()}
