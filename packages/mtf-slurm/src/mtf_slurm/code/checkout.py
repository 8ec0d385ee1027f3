"""Copies of snapshots that jobs run: there whole or not at all, and checked before they are used again."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Final

from mtf_slurm.code.repository import Repository
from mtf_slurm.code.snapshots import SYMLINK, Snapshot, submodules_of
from mtf_slurm.errors import GitOperationError
from mtf_utils.atomic import fsync_directory

__all__ = ["UNPUBLISHED", "check_out", "differences"]

UNPUBLISHED: Final = ".new-"
"""What the name of a copy begins with until it is whole."""

_SHA1_DIGITS: Final = 40

# whatever the user has set; no hook of the user's is meant for the copies
_AS_RECORDED: Final = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "lfs.url=none:",  # a pointer without its content stays one: nobody asked for a download, which may be of any size
    "-c",
    "core.sparseCheckout=false",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "submodule.recurse=false",
    # no carriage returns where nobody wrote any: bash cannot read them, nor a kernel behind `#!`
    "-c",
    "core.autocrlf=false",
    "-c",
    "core.eol=lf",
]


def check_out(snapshot: Snapshot, parent: Path) -> Path:
    """Write the files of a snapshot into the folder `<parent>/<tree>`; one that is there already is checked.

    Others may do the same at the same time.

    Raises:
        GitOperationError: git cannot write it, or somebody changed the copy that is there.
        OSError: the folder cannot be written.
    """
    target = parent / snapshot.tree
    if not target.is_dir():
        parent.mkdir(parents=True, exist_ok=True)
        new = parent / f"{UNPUBLISHED}{snapshot.tree}-{secrets.token_hex(4)}"
        try:
            _write(snapshot.repository, snapshot.tree, new)
            _publish(new, target)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    if changed := differences(snapshot, target):
        shown = ", ".join(map(repr, changed[:5])) + (", ..." if len(changed) > 5 else "")
        raise GitOperationError(
            f"{target}: these files are no longer what was submitted: {shown}; when no run uses this copy of the code, "
            "delete the folder, and it is made anew"
        )
    return target


def _publish(new: Path, target: Path) -> None:
    try:
        new.rename(target)
    except OSError:
        if not target.is_dir():  # nobody else was faster
            raise
    fsync_directory(target.parent)


def _write(repository: Repository, tree: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mtf-index-") as scratch:
        words = (*_AS_RECORDED, "read-tree", "--reset", "-u", "--no-recurse-submodules", tree)
        repository.run(*words, env=_elsewhere(repository, folder, scratch))
    for path, commit, inner in _submodules(repository, tree):
        _write(inner, f"{commit}^{{tree}}", folder / path)


def differences(snapshot: Snapshot, folder: Path) -> list[str]:
    """The files of a copy that are not as in the snapshot, in content or mode, or not there."""
    return _differences(snapshot.repository, snapshot.tree, folder)


def _differences(repository: Repository, tree: str, folder: Path) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="mtf-index-") as scratch:
        env = _elsewhere(repository, folder, scratch)
        repository.run(*_AS_RECORDED, "read-tree", tree, env=env)
        # refreshing says by its exit status that files differ; which ones is asked next
        repository.accepts(*_AS_RECORDED, "update-index", "-q", "--refresh", env=env)
        entries = repository.names(*_AS_RECORDED, "diff-files", "--ignore-submodules=all", "-z", env=env)
        suspects = zip(entries[::2], entries[1::2], strict=True)
        changed = [path for entry, path in suspects if not _is_as_written(repository, folder, entry, path, env)]
    for path, commit, inner in _submodules(repository, tree):
        inside = _differences(inner, f"{commit}^{{tree}}", folder / path)
        changed += [f"{path}/{name}" for name in inside]
    return changed


def _is_as_written(repository: Repository, folder: Path, entry: str, path: str, env: dict[str, str]) -> bool:
    """Whether a file that git calls changed is what git has written.

    Git compares what it would store now. Of a file that was stored before an attribute spoke of it (of line ends, of
    Git LFS) that is something else than what it has.

    Args:
        repository: that keeps the snapshot.
        folder: the copy.
        entry: what `git diff-files` says of the file.
        path: inside the copy.
        env: see `_elsewhere`.
    """
    mode, mode_now, blob, _, status = entry.removeprefix(":").split()
    if status != "M" or mode != mode_now or mode == SYMLINK:
        return False
    content = (folder / path).read_bytes()
    if _hash_of_blob(content, blob) == blob:  # no process for each file of a repository of which many are such
        return True
    try:
        written = repository.output(*_AS_RECORDED, "cat-file", "--filters", f"--path={path}", blob, env=env)
    except GitOperationError:  # a filter that fails
        return False
    return content == written


def _hash_of_blob(content: bytes, like: str) -> str:
    """The hash under which git keeps a content as it is; of the kind of another one. Source: gitformat-pack(5)."""
    kind = hashlib.sha1 if len(like) == _SHA1_DIGITS else hashlib.sha256
    return kind(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _elsewhere(repository: Repository, folder: Path, scratch: str) -> dict[str, str]:
    return {
        "GIT_DIR": str(repository.git_dir),
        "GIT_WORK_TREE": str(folder),
        "GIT_INDEX_FILE": os.fspath(Path(scratch, "index")),
        "GIT_LFS_SKIP_DOWNLOAD_ERRORS": "1",
    }


def _submodules(repository: Repository, tree: str) -> list[tuple[str, str, Repository]]:
    """The submodules of a tree that are checked out beside it: path, commit, repository."""
    links = {}
    for entry in repository.names("ls-tree", "-r", "-z", tree):
        meta, _, path = entry.partition("\t")
        _, kind, commit = meta.split()
        if kind == "commit":
            links[path] = commit
    return [(path, links[path], inner) for path, inner in submodules_of(repository, links)]
