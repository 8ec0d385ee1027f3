"""Snapshots: the working tree as it is, kept as a commit that no branch knows.

One is made through an index of its own, so that HEAD, the index, the working tree and the stash of the user stay as
they are. A private reference keeps it from the garbage collection, whatever becomes of the branches.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from mtf_slurm.code.contents import Limits, NewFile, choose, list_new_files, named
from mtf_slurm.code.locking import exclusive
from mtf_slurm.code.references import PRIVATE, lock_of
from mtf_slurm.code.repository import Repository
from mtf_slurm.errors import GitOperationError

__all__ = ["SYMLINK", "Snapshot", "has_file", "has_folder", "submodules_of", "take_snapshot", "with_submodules"]

# what a user may have set, and what a temporary index or a private reference must not depend on; no hook of the user's
# is meant for these
_PLAIN: Final = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.splitIndex=false",
    "-c",
    "core.untrackedCache=false",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.safecrlf=false",
    "-c",
    "core.sparseCheckout=false",
    "-c",
    "core.logAllRefUpdates=false",
    "-c",
    "add.ignoreErrors=false",
    "-c",
    "submodule.recurse=false",
]
_SOMEONE: Final = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "Model Training Framework"), ("EMAIL", "mtf@localhost"))
}
_GITLINK: Final = "160000"
SYMLINK: Final = "120000"
"""The mode of a symbolic link."""

_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_MAX_POINTER_BYTES: Final = 1024


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A working tree as it was.

    Attributes:
        repository: where it is kept.
        tree: the hash of its content; equal content has an equal hash.
        commit: the commit that holds it, on the private reference `refs/mtf/snapshots/<tree>`.
        files: how many files it has, those of submodules aside.
        size: their bytes.
        warnings: what a user should know about it, one line each.
        submodules: the repositories of its submodules, each with the hash of the content that it has of them.
    """

    repository: Repository
    tree: str
    commit: str
    files: int
    size: int
    warnings: tuple[str, ...] = ()
    submodules: tuple[tuple[Repository, str], ...] = ()


def take_snapshot(repository: Repository, *, sweeps: Collection[Path] = (), limits: Limits | None = None) -> Snapshot:
    """Keep the working tree as it is: uncommitted and new files, submodules as they are; ignored files not.

    Args:
        repository: the repository.
        sweeps: folders of sweeps, whose files are passed over; those that have a `sweep.json` are recognised.
        limits: how much is taken of what git does not track.

    Raises:
        GitOperationError: git refuses, or there are too many new files.
    """
    limits = limits or Limits()
    with exclusive(lock_of(repository)), _scratch_index(repository) as index:
        inner: list[tuple[Repository, str]] = []
        warnings = _fill(repository, index, sweeps, limits, inner)
        tree = repository.run(*_PLAIN, "write-tree", env=index)
        parent = repository.commit_of("HEAD")
        commit = _keep(repository, tree, parent=parent, date=f"@{int(time.time())} +0000")
        sizes = [int(size) for size in _sizes(repository, tree)]
    return Snapshot(
        repository=repository,
        tree=tree,
        commit=commit,
        files=len(sizes),
        size=sum(sizes),
        warnings=tuple(warnings),
        submodules=tuple(inner),
    )


def submodules_of(repository: Repository, paths: Collection[str]) -> Iterator[tuple[str, Repository]]:
    """Those of the submodules at these places that are checked out."""
    for path in paths:
        place = repository.root / path
        if os.path.lexists(place / ".git"):
            inner = Repository.find(place)
            if inner.root.resolve() == place.resolve():
                yield path, inner


@contextlib.contextmanager
def _scratch_index(repository: Repository) -> Iterator[dict[str, str]]:
    """A copy of the user's index: what has not changed since git looked at it need not be read again."""
    with tempfile.TemporaryDirectory(prefix="mtf-index-") as folder:
        copy = Path(folder, "index")
        with contextlib.suppress(FileNotFoundError):  # nothing was ever added
            # with its time: git takes a file that is as young as the index for changed, and so it has to stay
            shutil.copy2(repository.git_dir / "index", copy)
        yield {"GIT_INDEX_FILE": str(copy)}


def _fill(
    repository: Repository,
    index: dict[str, str],
    sweeps: Collection[Path],
    limits: Limits,
    inner: list[tuple[Repository, str]],
) -> list[str]:
    """Add everything to the index, and the snapshots of submodules to `inner`; returns warnings."""
    _look_at_everything(repository, index)
    repository.run(*_PLAIN, "add", "--update", env=index)
    new, warnings = choose(list_new_files(repository, index, sweeps), limits)
    paths = b"".join(os.fsencode(file.path) + b"\0" for file in new)
    repository.run(*_PLAIN, "update-index", "-z", "--add", "--remove", "--replace", "--stdin", stdin=paths, env=index)
    warnings += _refused(repository, index, new)
    warnings += _missing_contents(repository, index) + _links_out(repository, index)
    return warnings + _fill_submodules(repository, index, limits, inner)


def _refused(repository: Repository, index: dict[str, str], new: Sequence[NewFile]) -> list[str]:
    """A warning about new files that git passes over: by such names it would find a repository of its own elsewhere."""
    taken = set(repository.names(*_PLAIN, "ls-files", "-z", env=index)) if new else set()
    missing = [file.path for file in new if file.path not in taken]
    refused = [path for path in missing if os.path.lexists(repository.root / path)]
    if not refused:
        return []
    return [f"left out of the snapshot, because git takes no files of such names: {named(refused)}; rename them"]


def _look_at_everything(repository: Repository, index: dict[str, str]) -> None:
    """Drop the marks by which a user tells git not to look at a file; one that is not there stays as git has it."""
    entries = repository.names(*_PLAIN, "ls-files", "-z", "-v", env=index)
    unchanged = [entry[2:] for entry in entries if entry[0].islower()]
    skipped = [entry[2:] for entry in entries if entry[0] in "Ss" and os.path.lexists(repository.root / entry[2:])]
    for option, names in (("--no-assume-unchanged", unchanged), ("--no-skip-worktree", skipped)):
        if names:
            paths = b"".join(os.fsencode(name) + b"\0" for name in names)
            repository.run(*_PLAIN, "update-index", "-z", option, "--stdin", stdin=paths, env=index)


def _missing_contents(repository: Repository, index: dict[str, str]) -> list[str]:
    """A warning about files that stand for others, which Git LFS has not fetched."""
    magic = index | {"GIT_LITERAL_PATHSPECS": "0"}
    names = repository.names(*_PLAIN, "ls-files", "-z", "--", ":(attr:filter=lfs)", env=magic)
    pointers = [name for name in names if _is_pointer(repository.root / name)]
    if not pointers:
        return []
    what = "file is a pointer" if len(pointers) == 1 else "files are pointers"
    return [f"{len(pointers)} {what} of Git LFS without the content ({named(pointers)}); `git lfs pull` fetches it"]


def _links_out(repository: Repository, index: dict[str, str]) -> list[str]:
    """A warning about symbolic links that the copy will have, and that lead to what is not in it."""
    entries = repository.names(*_PLAIN, "ls-files", "-z", "--stage", env=index)
    links = [entry.partition("\t")[2] for entry in entries if entry.startswith(SYMLINK)]
    out = [link for link in links if _leads_out(repository.root, link)]
    if not out:
        return []
    what = "a symbolic link leads" if len(out) == 1 else "symbolic links lead"
    return [f"{what} out of the snapshot ({named(out)}): jobs see what is there when they run, not what is there now"]


def _leads_out(root: Path, link: str) -> bool:
    try:
        target = (root / link).readlink()
    except OSError:  # deleted, or replaced by a file
        return False
    depth = len(PurePosixPath(link).parts) - 1
    for part in target.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return target.is_absolute()


def _is_pointer(path: Path) -> bool:
    try:
        return path.stat().st_size < _MAX_POINTER_BYTES and path.read_bytes().startswith(_LFS_POINTER)
    except OSError:  # deleted, or a link to nowhere
        return False


def _fill_submodules(
    repository: Repository, index: dict[str, str], limits: Limits, inner: list[tuple[Repository, str]]
) -> list[str]:
    """Let the index refer to snapshots of the submodules, uncommitted and new files included."""
    warnings, lines = [], b""
    for path, module in submodules_of(repository, _links(repository, index)):
        with exclusive(lock_of(module)), _scratch_index(module) as its_index:
            warnings += [f"submodule {path!r}: {line}" for line in _fill(module, its_index, (), limits, inner)]
            tree = module.run(*_PLAIN, "write-tree", env=its_index)
            commit = _keep_submodule(module, tree)
        inner.append((module, tree))
        lines += f"{_GITLINK} {commit} 0\t".encode() + os.fsencode(path) + b"\0"
    if lines:
        repository.run(*_PLAIN, "update-index", "-z", "--index-info", stdin=lines, env=index)
    return warnings


def with_submodules(repository: Repository) -> Iterator[Repository]:
    """A repository and those of its submodules that are checked out, all the way down."""
    yield repository
    for _, module in submodules_of(repository, _links(repository, {})):
        yield from with_submodules(module)


def _links(repository: Repository, index: dict[str, str]) -> list[str]:
    entries = repository.names(*_PLAIN, "ls-files", "-z", "--stage", env=index)
    return [entry.partition("\t")[2] for entry in entries if entry.startswith(_GITLINK)]


def _keep(repository: Repository, tree: str, *, parent: str | None, date: str) -> str:
    dated = _SOMEONE | {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    parents = ("-p", parent) if parent else ()
    message = b"The working tree as it was when a sweep was submitted\n"
    commit = repository.run("commit-tree", tree, *parents, "-F", "-", stdin=message, env=dated)
    repository.run(*_PLAIN, "update-ref", f"{PRIVATE}{tree}", commit)
    return commit


def _keep_submodule(inner: Repository, tree: str) -> str:
    """The commit for a submodule's content: the one that is checked out, if that is all there is to it."""
    head = inner.commit_of("HEAD")
    if head is not None and inner.run("rev-parse", f"{head}^{{tree}}") == tree:
        inner.run(*_PLAIN, "update-ref", f"{PRIVATE}{tree}", head)
        return head
    # equal content is to be an equal commit, or the hash of the whole would change with every snapshot
    return _keep(inner, tree, parent=None, date="@0 +0000")


def _sizes(repository: Repository, tree: str) -> Iterator[str]:
    for entry in repository.names("ls-tree", "-r", "-l", "-z", tree):
        size = entry.partition("\t")[0].split()[-1]
        if size != "-":  # a submodule
            yield size


def has_folder(snapshot: Snapshot, place: PurePosixPath) -> bool:
    """Whether the snapshot has that folder; its own root is one."""
    return place == PurePosixPath() or _kind(snapshot, place) == "tree"


def has_file(snapshot: Snapshot, place: PurePosixPath) -> bool:
    """Whether the snapshot has that file."""
    return _kind(snapshot, place) == "blob"


def _kind(snapshot: Snapshot, place: PurePosixPath) -> str:
    try:
        return snapshot.repository.run("cat-file", "-t", f"{snapshot.tree}:{place}")
    except GitOperationError:
        return ""
