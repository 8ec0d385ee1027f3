"""What of a working tree goes into a snapshot beside what git tracks, and what would be too much."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from mtf_slurm.code.repository import Repository
from mtf_slurm.errors import GitOperationError
from mtf_slurm.wording import listed
from mtf_utils.rundir import RunDirectoryError, SweepDirectory

__all__ = ["Limits", "NewFile", "choose", "list_new_files", "measure_tree", "named", "readable_size"]

# what was found when git looked last is no answer, and a user's program is not to give one
_UNAIDED: Final = ("-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false")
_OF_A_SWEEP: Final = (".lock", "code", "runs", "submissions", "sweep.json")

_NAMED: Final = 5
"""How many files a message names."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a snapshot takes of what git does not track.

    Attributes:
        file_bytes: of one file.
        total_bytes: of all of them; the largest are left out until the rest fits.
        count: how many files; more are taken for a data set that nobody ignored.
    """

    file_bytes: int = 50 * 2**20
    total_bytes: int = 500 * 2**20
    count: int = 50_000


@dataclass(frozen=True)
class NewFile:
    """A file that git neither tracks nor ignores; its path is relative to the working tree."""

    path: str
    size: int


def list_new_files(repository: Repository, env: dict[str, str], sweeps: Iterable[Path]) -> list[NewFile]:
    """The new files of a working tree, without those of sweeps: these are what code makes, and change all the time.

    Args:
        repository: the repository.
        env: names the index to compare with.
        sweeps: folders of sweeps that may not have a `sweep.json` yet; the others are recognised.
    """
    names = repository.names(*_UNAIDED, "ls-files", "-z", "--others", "--exclude-standard", env=env)
    folders = {_inside(folder, repository.root) for folder in sweeps} - {None}
    folders |= {PurePosixPath(name).parent for name in names if _is_sweep(repository.root, PurePosixPath(name))}
    # not the whole folder: somebody may keep the sweep in that of the code
    passed_over = {folder / name for folder in folders if folder is not None for name in _OF_A_SWEEP}
    found = []
    for name in names:
        path = PurePosixPath(name)
        if path in passed_over or not passed_over.isdisjoint(path.parents):
            continue
        with contextlib.suppress(FileNotFoundError):  # it was there when git looked
            size = os.lstat(repository.root / name).st_size
            found.append(NewFile(name, 0 if name.endswith("/") else size))
    return found


def measure_tree(
    repository: Repository, *, sweeps: Collection[Path] = (), limits: Limits | None = None
) -> tuple[int, int]:
    """How many files a snapshot would have now, and their bytes; of submodules, what they track is counted.

    Nothing is written, and no file is read.

    Args:
        repository: the repository.
        sweeps: see `list_new_files`.
        limits: how much is taken of what git does not track.

    Raises:
        GitOperationError: git refuses, or there are too many new files.
    """
    sizes = []
    for name in repository.names("ls-files", "-z", "--cached", "--recurse-submodules"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # deleted
            about = os.lstat(repository.root / name)
            if not stat.S_ISDIR(about.st_mode):  # a submodule that is not checked out
                sizes.append(about.st_size)
    new, _ = choose(list_new_files(repository, {}, sweeps), limits or Limits())
    sizes += [file.size for file in new]
    return len(sizes), sum(sizes)


def _inside(folder: Path, root: Path) -> PurePosixPath | None:
    with contextlib.suppress(ValueError):
        return PurePosixPath(folder.resolve().relative_to(root.resolve()))
    return None


def _is_sweep(root: Path, path: PurePosixPath) -> bool:
    if path.name != "sweep.json":
        return False
    directory = SweepDirectory(root / path.parent)
    with contextlib.suppress(RunDirectoryError, OSError):
        return directory.sweep() is not None and directory.runs_dir.is_dir()
    return False


def choose(files: Sequence[NewFile], limits: Limits) -> tuple[list[NewFile], list[str]]:
    """What is taken, and a warning for each kind of what is not.

    Raises:
        GitOperationError: there are too many files.
    """
    nested = [file for file in files if file.path.endswith("/")]
    single = [file for file in files if not file.path.endswith("/")]
    if len(single) > limits.count:
        fullest = Counter(PurePosixPath(file.path).parts[0] for file in single).most_common(1)[0]
        raise GitOperationError(
            f"{len(single)} files are neither tracked nor ignored by git, {fullest[1]} of them in {fullest[0]!r}; a "
            f"snapshot takes at most {limits.count}: put what is no code into .gitignore (slurm.link lets jobs see it)"
        )
    large = _too_large(single, limits)
    warnings = []
    if large:
        warnings.append(
            f"left out of the snapshot, for their size: {_listed(large)}; put them into .gitignore, and into "
            "slurm.link if jobs need them, or commit them"
        )
    if nested:
        names = named(file.path for file in nested)
        warnings.append(f"left out of the snapshot, being repositories of their own: {names}; make them submodules")
    out = set(large)
    return [file for file in single if file not in out], warnings


def _too_large(files: Sequence[NewFile], limits: Limits) -> list[NewFile]:
    total = sum(file.size for file in files)
    large = []
    for file in sorted(files, key=lambda file: file.size, reverse=True):
        if file.size <= limits.file_bytes and total <= limits.total_bytes:
            break
        large.append(file)
        total -= file.size
    return large


def _listed(files: Sequence[NewFile]) -> str:
    shown = ", ".join(f"{file.path!r} ({readable_size(file.size)})" for file in files[:_NAMED])
    if len(files) <= _NAMED:
        return shown
    rest = files[_NAMED:]
    return f"{shown} and {len(rest)} more ({readable_size(sum(file.size for file in rest))})"


def named(paths: Iterable[str]) -> str:
    """Files as a message names them."""
    return listed([repr(path) for path in paths], _NAMED)


def readable_size(count: float) -> str:
    """A number of bytes for people: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
