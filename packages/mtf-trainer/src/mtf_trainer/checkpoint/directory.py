"""The folders of a checkpoint directory: their names, and the moves between them that a crash cannot spoil.

A folder is written under a hidden name and renamed when it is complete; it is renamed to a hidden name again before
it is deleted. So whatever has a checkpoint's name was complete once, and what is hidden can be removed at any time.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Final

from mtf_trainer.checkpoint.faults import os_failure
from mtf_trainer.checkpoint.files import digest
from mtf_trainer.checkpoint.manifest import parse_folder_name
from mtf_utils.atomic import fsync_directory

__all__ = [
    "DAMAGED",
    "LATEST",
    "create_directory",
    "discard",
    "new_temporary",
    "next_sequence",
    "publish",
    "published",
    "remove_leftovers",
    "set_aside",
]

DAMAGED: Final = ".damaged"
"""What is appended to the name of a checkpoint that was found damaged."""

LATEST: Final = "latest"
"""A text file with the name of the newest checkpoint's folder, for people and scripts."""

_LATEST_REMAINS = re.compile(r"\.latest\..+\.tmp")  # what an atomic write leaves when it is cut off
_SEQUENCE = re.compile(r"ckpt-([0-9]{6,18})-step-")
_log = logging.getLogger(__name__)


def create_directory(directory: Path) -> None:
    """Create the directory and its parents, so that they survive a crash of the machine.

    Raises:
        CheckpointError: it cannot be created.
    """
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            fsync_directory(path.parent)
        if not directory.is_dir():
            raise NotADirectoryError(None, "not a directory", str(directory))
    except OSError as error:
        raise os_failure("create", directory, error) from error


def published(directory: Path) -> list[Path]:
    """The checkpoints that were published there, oldest first.

    Raises:
        CheckpointError: the directory cannot be read.
    """
    found = [(parse_folder_name(path.name), path) for path in _folders(directory)]
    return [path for _, path in sorted((parsed, path) for parsed, path in found if parsed is not None)]


def next_sequence(directory: Path) -> int:
    """A sequence number that no folder there has or had, whatever became of it."""
    numbers = [int(match[1]) for path in _folders(directory) if (match := _SEQUENCE.search(path.name))]
    return max(numbers, default=0) + 1


def _folders(directory: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise os_failure("list", directory, error) from error


def _mark(run_id: str) -> str:
    """What hidden folders carry to tell whose they are; a run's id may not be fit for a file name."""
    return digest(run_id.encode())[:12]


def new_temporary(final: Path, run_id: str) -> Path:
    """A new empty folder, beside the checkpoint that it is going to be."""
    temporary = final.with_name(f".writing-{_mark(run_id)}-{final.name}-{secrets.token_hex(4)}")
    temporary.mkdir()
    return temporary


def publish(temporary: Path, final: Path) -> None:
    """Give a complete and synced folder its name, durably."""
    temporary.rename(final)
    fsync_directory(final.parent)


def discard(folder: Path, run_id: str) -> None:
    """Delete a published checkpoint; a crash leaves it whole or hidden."""
    hidden = folder.with_name(f".removing-{_mark(run_id)}-{folder.name}")
    folder.rename(hidden)
    fsync_directory(folder.parent)
    shutil.rmtree(hidden)


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint, so that nothing takes it for a good one; returns where it is now."""
    target, number = folder.with_name(folder.name + DAMAGED), 1
    while os.path.lexists(target):
        number += 1
        target = folder.with_name(f"{folder.name}{DAMAGED}-{number}")
    folder.rename(target)
    fsync_directory(folder.parent)
    return target


def remove_leftovers(directory: Path, run_id: str) -> None:
    """Delete what earlier processes of this run left half-done; the caller holds the directory's lock."""
    prefixes = (f".writing-{_mark(run_id)}-", f".removing-{_mark(run_id)}-")
    try:
        for path in _folders(directory):
            if path.name.startswith(prefixes):
                _log.info("removing %s, which an earlier process of this run left unfinished", path)
                shutil.rmtree(path)
        for path in directory.iterdir():
            if _LATEST_REMAINS.fullmatch(path.name):
                path.unlink()
    except OSError as error:
        _log.warning("cannot remove what an earlier process left unfinished: %s; it only takes up space", error)
