"""Which folders of sweeps the snapshots of a repository were taken for, and which snapshots nobody needs any more.

In the repository's git folder lies a note of each folder that a snapshot was taken for. A snapshot is orphaned when all
of these are gone. A folder that cannot be seen from this machine is not taken for gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mtf_slurm.code.references import Kept, kept_snapshots, prune_snapshots
from mtf_slurm.code.repository import Repository
from mtf_slurm.code.snapshots import with_submodules
from mtf_slurm.errors import GitOperationError
from mtf_slurm.processes import host_name
from mtf_utils.atomic import write_text

__all__ = ["Orphan", "find_orphans", "forget_user", "has_users", "note_user", "prune_orphans"]

FRESH_S: Final = 24 * 3600.0
"""A snapshot stays for so long after it was last taken: the folder that it was taken for may not be there yet."""


@dataclass(frozen=True)
class Orphan:
    """A snapshot that no folder needs.

    Attributes:
        root: the working tree of the repository that keeps it.
        tree: the hash of its content.
        taken_at: when that content was last submitted, in seconds since 1970.
        folders: of the sweeps that it was taken for, all of them gone; none if no note of them is left.
    """

    root: Path
    tree: str
    taken_at: int
    folders: tuple[Path, ...]


def note_user(repository: Repository, tree: str, folder: Path) -> None:
    """Note that a snapshot was taken for the folder of a sweep.

    Raises:
        GitOperationError: the note cannot be written.
    """
    file = _note(repository, tree, folder)
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps({"folder": str(folder), "host": host_name()}) + "\n")
    except OSError as error:
        raise GitOperationError(f"{file} cannot be written: {error.strerror or error}") from error


def forget_user(repository: Repository, tree: str, folder: Path) -> None:
    """Take back that a snapshot is needed by the folder of a sweep."""
    _note(repository, tree, folder).unlink(missing_ok=True)


def has_users(repository: Repository, tree: str, *, within: Path | None = None) -> bool:
    """Whether there is, or may be, the folder of a sweep that the snapshot was taken for.

    Args:
        repository: the repository.
        tree: the hash of the snapshot's content.
        within: a folder in which nothing is out of sight; None is the repository's working tree.
    """
    place = within or repository.root
    return any(not _is_gone(place, folder, host) for folder, host in _users(repository, tree))


def find_orphans(repository: Repository, *, clock: Callable[[], float] = time.time) -> list[Orphan]:
    """The snapshots that no folder needs; removes nothing.

    Args:
        repository: the repository; its submodules are looked at as well.
        clock: seconds since 1970.

    Raises:
        GitOperationError: git refuses.
    """
    found = []
    for owner in with_submodules(repository):
        is_orphan = _judge(owner, repository.root, clock())
        found += [_orphan(owner, kept) for kept in kept_snapshots(owner) if is_orphan(kept)]
    return found


def prune_orphans(repository: Repository, *, clock: Callable[[], float] = time.time) -> list[Orphan]:
    """Let go of the snapshots that no folder needs; git removes their content when it collects garbage.

    Args:
        repository: the repository; its submodules are looked at as well.
        clock: seconds since 1970.

    Returns:
        Those that are gone.

    Raises:
        GitOperationError: git refuses, and all of that repository stay.
    """
    return [
        orphan
        for owner in with_submodules(repository)
        for orphan in _prune(owner, _judge(owner, repository.root, clock()))
    ]


def _prune(repository: Repository, is_orphan: Callable[[Kept], bool]) -> list[Orphan]:
    gone = prune_snapshots(repository, lambda kept: not is_orphan(kept))
    orphans = [_orphan(repository, kept) for kept in gone]
    for orphan in orphans:
        shutil.rmtree(_notes(repository, orphan.tree), ignore_errors=True)
    return orphans


def _judge(repository: Repository, within: Path, now: float) -> Callable[[Kept], bool]:
    """Tells of a snapshot whether nobody needs it."""
    return lambda kept: now - kept.taken_at > FRESH_S and not has_users(repository, kept.tree, within=within)


def _orphan(repository: Repository, kept: Kept) -> Orphan:
    return Orphan(
        repository.root, kept.tree, kept.taken_at, tuple(sorted(folder for folder, _ in _users(repository, kept.tree)))
    )


def _is_gone(within: Path, folder: Path, host: str) -> bool:
    """Whether the folder was removed; one below what is not there itself may lie on a disk that is not mounted."""
    if folder.is_dir():
        return False
    if folder.is_relative_to(within):
        return True
    return folder.parent.is_dir() and host == host_name()


def _users(repository: Repository, tree: str) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    with contextlib.suppress(FileNotFoundError):
        for file in _notes(repository, tree).glob("*.json"):
            try:
                data = json.loads(file.read_text("utf-8"))
                found.append((Path(data["folder"]), str(data["host"])))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise GitOperationError(f"{file} cannot be read ({error}); delete it if its sweep is gone") from error
    return found


def _notes(repository: Repository, tree: str) -> Path:
    return repository.common_dir / "mtf" / "folders" / tree


def _note(repository: Repository, tree: str, folder: Path) -> Path:
    return _notes(repository, tree) / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.json"
