"""The private references that keep snapshots from the garbage collection: which there are, and letting go of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mtf_slurm.code.locking import exclusive
from mtf_slurm.code.repository import Repository

__all__ = ["PRIVATE", "Kept", "kept_snapshots", "lock_of", "prune_snapshots"]

PRIVATE: Final = "refs/mtf/snapshots/"
"""Where the references lie; the rest of the name is the hash of the tree."""

_NO_HOOKS: Final = ("-c", "core.hooksPath=/dev/null")  # none of the user's is meant for these


@dataclass(frozen=True)
class Kept:
    """A snapshot that a private reference keeps.

    Attributes:
        tree: the hash of its content.
        taken_at: when that content was last submitted, in seconds since 1970.
    """

    tree: str
    taken_at: int


def kept_snapshots(repository: Repository) -> list[Kept]:
    """The snapshots that a repository keeps.

    Raises:
        GitOperationError: git refuses.
    """
    lines = repository.run("for-each-ref", "--format=%(creatordate:unix) %(refname)", PRIVATE).splitlines()
    parts = [line.partition(" ") for line in lines]
    return [Kept(name.removeprefix(PRIVATE), int(date or 0)) for date, _, name in parts]


def prune_snapshots(repository: Repository, keep: Callable[[Kept], bool]) -> list[Kept]:
    """Let go of snapshots; git removes what only they hold when it collects garbage.

    Copies that were checked out stay as they are. No snapshot is taken meanwhile.

    Args:
        repository: the repository.
        keep: tells whether a snapshot stays.

    Returns:
        Those that are gone.

    Raises:
        GitOperationError: git refuses, and all stay.
    """
    with exclusive(lock_of(repository)):
        gone = [kept for kept in kept_snapshots(repository) if not keep(kept)]
        if gone:
            commands = "".join(f"delete {PRIVATE}{kept.tree}\n" for kept in gone)
            repository.run(*_NO_HOOKS, "update-ref", "--stdin", stdin=commands.encode())
    return gone


def lock_of(repository: Repository) -> Path:
    """What is held by whoever takes or prunes snapshots, in any working tree of the repository."""
    return repository.common_dir / "mtf-snapshot"
