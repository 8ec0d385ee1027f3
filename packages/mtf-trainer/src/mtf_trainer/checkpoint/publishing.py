"""Who makes a checkpoint of a snapshot: the one that publishes it, or one of the others, which add a part."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from mtf_trainer.checkpoint import directory as folders
from mtf_trainer.checkpoint.bandwidth import Bandwidth
from mtf_trainer.checkpoint.deadline import Deadline
from mtf_trainer.checkpoint.faults import os_failure
from mtf_trainer.checkpoint.files import FileEntry
from mtf_trainer.checkpoint.folder import EncodedSnapshot, Part, write_checkpoint, write_sections
from mtf_trainer.checkpoint.lock import DirectoryLock
from mtf_trainer.checkpoint.manifest import Kind, folder_name
from mtf_trainer.checkpoint.shelf import Shelf
from mtf_trainer.checkpoint.task import SaveTask
from mtf_trainer.errors import CheckpointError
from mtf_utils.atomic import fsync_directory

__all__ = ["Contributor", "Crew", "Publisher", "Writer"]

ARRIVAL_S: Final = 10.0
"""How long a network file system may take to show what another node has written."""

_log = logging.getLogger(__name__)


class Crew(Protocol):
    """Several processes that write one checkpoint; all make the same saves in the same order.

    Every method takes the number of the save, and is called in the thread that writes.
    """

    def open(self, save: int, folder: str, what: str) -> None:
        """The publisher's: say where to write, and what it saves."""

    def collect(self, save: int, deadline: Deadline) -> list[Part]:
        """The publisher's: wait for the parts of all others.

        Raises:
            CheckpointError: a part cannot be written, or does not come in time.
        """

    def close(self, save: int, outcome: Path | BaseException) -> None:
        """The publisher's: say what became of it."""

    def folder(self, save: int, what: str, deadline: Deadline) -> str:
        """A contributor's: wait for where to write.

        Raises:
            CheckpointError: the publisher saves something else.
        """

    def deliver(self, save: int, part: Part | BaseException) -> None:
        """A contributor's: say what was written, or why nothing was."""

    def outcome(self, save: int, deadline: Deadline) -> Path:
        """A contributor's: wait until the checkpoint is published.

        Raises:
            CheckpointError: it is not going to be.
        """


class Writer(Protocol):
    """Makes one checkpoint durable, in the thread of its task."""

    bandwidth: Bandwidth

    def write(self, save: int, task: SaveTask, encoded: EncodedSnapshot, kind: Kind, *, pinned: bool) -> Path:
        """Write the snapshot; returns the checkpoint that it became, or became a part of."""

    @property
    def is_open(self) -> bool:
        """Whether it may write."""

    def last(self) -> Path | None:
        """The newest published checkpoint, not verified."""

    def close(self) -> None:
        """Let go of the directory."""


class Publisher:
    """Writes checkpoints and gives them their names.

    Args:
        directory: exists.
        shelf: what is published there.
        run_id: the run.
        crew: those who write with it, if any.

    Raises:
        CheckpointError: another process is writing there.
    """

    def __init__(self, directory: Path, shelf: Shelf, run_id: str, crew: Crew | None) -> None:
        self.bandwidth = Bandwidth()
        self._directory = directory
        self._shelf = shelf
        self._run_id = run_id
        self._crew = crew
        self._lock = DirectoryLock(directory, run_id)
        folders.remove_leftovers(directory, run_id)

    @property
    def is_open(self) -> bool:
        """See `Writer`."""
        return self._lock.held

    def last(self) -> Path | None:
        """See `Writer`."""
        return self._shelf.last()

    def close(self) -> None:
        """See `Writer`."""
        self._lock.release()

    def write(self, save: int, task: SaveTask, encoded: EncodedSnapshot, kind: Kind, *, pinned: bool) -> Path:
        """See `Writer`; nothing of it is left if it fails."""
        if self._crew is None:
            return self._publish(task, encoded, kind, pinned, lambda temporary: None, lambda temporary: [])
        crew = self._crew
        outcome: Path | BaseException = CheckpointError("it was not written")
        try:
            outcome = self._publish(
                task,
                encoded,
                kind,
                pinned,
                lambda temporary: crew.open(save, temporary.name, _called(encoded, kind)),
                lambda temporary: _arrived(temporary, crew.collect(save, task.deadline), task.deadline),
            )
            return outcome
        except BaseException as error:
            outcome = error
            raise
        finally:
            crew.close(save, outcome)

    def _publish(
        self,
        task: SaveTask,
        encoded: EncodedSnapshot,
        kind: Kind,
        pinned: bool,
        begun: Callable[[Path], Any],
        others: Callable[[Path], list[Part]],
    ) -> Path:
        sequence = folders.next_sequence(self._directory)
        final = self._directory / folder_name(sequence, encoded.global_step)
        temporary: Path | None = None
        began = time.monotonic()
        try:
            temporary = folder = folders.new_temporary(final, self._run_id)
            begun(temporary)
            manifest = write_checkpoint(
                temporary,
                encoded,
                kind=kind,
                run_id=self._run_id,
                sequence=sequence,
                pinned=pinned,
                deadline=task.deadline,
                others=lambda: others(folder),
            )
            self.bandwidth.learn(task.deadline.written, time.monotonic() - began)
            task.await_confirmation()
            self._shelf.add(temporary, final, manifest)
        except BaseException as error:
            if temporary is not None:
                _remove_remains(temporary)
            if isinstance(error, OSError) and not isinstance(error, CheckpointError):
                raise os_failure("publish", final, error) from error
            raise
        return final


class Contributor:
    """Adds this process's sections to the checkpoints that another one publishes."""

    def __init__(self, directory: Path, shelf: Shelf, crew: Crew) -> None:
        self.bandwidth = Bandwidth()
        self._directory = directory
        self._shelf = shelf
        self._crew = crew
        self._open = True

    @property
    def is_open(self) -> bool:
        """See `Writer`."""
        return self._open

    def last(self) -> Path | None:
        """See `Writer`."""
        return self._shelf.last()

    def close(self) -> None:
        """See `Writer`."""
        self._open = False

    def write(self, save: int, task: SaveTask, encoded: EncodedSnapshot, kind: Kind, *, pinned: bool) -> Path:
        """See `Writer`."""
        began = time.monotonic()
        part: Part | BaseException = CheckpointError("it was not written")
        try:
            folder = self._directory / self._crew.folder(save, _called(encoded, kind), task.deadline)
            folder.mkdir(exist_ok=True)  # it is there, but the client of a network file system may not know yet
            files: dict[str, FileEntry] = write_sections(folder, encoded, task.deadline)
            fsync_directory(folder)
            self.bandwidth.learn(task.deadline.written, time.monotonic() - began)
            task.await_confirmation()
            part = Part(tuple(encoded.trees), files)
        except BaseException as error:
            part = error
            if isinstance(error, OSError) and not isinstance(error, CheckpointError):
                raise os_failure("write to", self._directory, error) from error
            raise
        finally:
            self._crew.deliver(save, part)
        return self._crew.outcome(save, task.deadline)


def _called(encoded: EncodedSnapshot, kind: Kind) -> str:
    """What all processes that write a checkpoint have to say of it alike."""
    return f"the {kind.value} checkpoint of epoch {encoded.epoch + 1}, step {encoded.global_step}"


def _arrived(folder: Path, parts: list[Part], deadline: Deadline) -> list[Part]:
    """The parts, once their files are seen from here.

    Raises:
        CheckpointError: one is not: those who wrote it have another folder of that name.
    """
    end = time.monotonic() + ARRIVAL_S
    for name, entry in ((name, entry) for part in parts for name, entry in part.files.items()):
        while not _has_size(folder / name, entry.size):
            deadline.check("waiting for the files of the other ranks")
            if time.monotonic() > end:
                raise CheckpointError(
                    f"{name} was written by another rank, and is not in {folder}: checkpoint.checkpoint_dir has to be "
                    "on a file system that all nodes share",
                    path=folder,
                )
            time.sleep(0.01)
    return parts


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _remove_remains(temporary: Path) -> None:
    try:
        shutil.rmtree(temporary)
    except FileNotFoundError:
        pass  # it was renamed: what failed came after
    except OSError as error:
        _log.warning("cannot remove %s: %s; the next start will", temporary, error)
