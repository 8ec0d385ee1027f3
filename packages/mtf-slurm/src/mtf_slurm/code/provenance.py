"""What is said about the code of a sweep: commit, branch, remote, and what differs from the commit."""

from __future__ import annotations

import os
import re
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from mtf_slurm.code.contents import readable_size
from mtf_slurm.code.repository import Repository
from mtf_slurm.errors import GitOperationError

__all__ = ["MAX_DIFF_BYTES", "describe", "diff_to", "is_dirty", "without_credentials"]

MAX_DIFF_BYTES: Final = 10 * 2**20
"""Of a longer diff only the list of files is kept."""


def describe(repository: Repository) -> dict[str, Any]:
    """Commit, branch (None when detached), and the remote."""
    branch = _text(repository.run("symbolic-ref", "--short", "HEAD")) if _is_on_branch(repository) else None
    return {
        "commit": repository.commit_of("HEAD"),
        "branch": branch,
        "remote": _remote(repository),
    }


def is_dirty(repository: Repository) -> bool:
    """Whether anything is not committed, new files included; in a large working tree that takes a while to say."""
    return bool(repository.output("status", "--porcelain", "--untracked-files=normal"))


def _is_on_branch(repository: Repository) -> bool:
    return repository.accepts("symbolic-ref", "--quiet", "HEAD")


def _remote(repository: Repository) -> str | None:
    names = repository.run("remote").split("\n")
    if names == [""]:
        return None
    name = "origin" if "origin" in names else names[0]
    try:
        return without_credentials(_text(repository.run("config", "--get", f"remote.{name}.url")))
    except GitOperationError:  # a remote without an address
        return None


def _text(said: str) -> str:
    """What git said, with a mark for every byte that is no UTF-8: no JSON can hold it."""
    return os.fsencode(said).decode("utf-8", "replace")


def without_credentials(url: str) -> str | None:
    """The address of a remote without what may be secret in it: user and password, and the query.

    None if nobody can tell where they are in it.
    """
    if "://" not in url:  # a path, or user@host:path, where ssh asks for the password
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    user, at, host = parts.netloc.rpartition("@")
    keep = f"{user.partition(':')[0]}{at}" if re.fullmatch(r"(git\+)?ssh(\+git)?", parts.scheme) else ""
    return urlunsplit((parts.scheme, keep + host, parts.path, "", ""))


def diff_to(repository: Repository, tree: str) -> bytes:
    """What the tree of a snapshot has otherwise than the commit that is checked out; empty if nothing.

    Binary files are only named: the snapshot has them.
    """
    base = repository.commit_of("HEAD") or repository.run("hash-object", "-t", "tree", "--stdin", stdin=b"")
    words = ("diff-tree", "-r", "--no-ext-diff", "--no-textconv", "--no-color")
    diff = repository.output(*words, "-p", "--submodule=diff", base, tree)
    if len(diff) <= MAX_DIFF_BYTES:
        return diff
    title = f"The differences are {readable_size(len(diff))} of text; these files are concerned:\n".encode()
    return title + repository.output(*words, "--stat=200", base, tree)[:MAX_DIFF_BYTES]
