"""Git for people who keep experiments on branches: switch and come back, branch, commit."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mtf_slurm.code.deferring import deferred, terminable
from mtf_slurm.code.locking import exclusive
from mtf_slurm.code.repository import Repository
from mtf_slurm.errors import GitOperationError
from mtf_utils.paths import given_path

__all__ = ["GitManager"]

_NOT_A_BRANCH: Final = ("HEAD", "@")
_UNDER_WAY: Final = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase or git am",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Place:
    """What is checked out: a branch, or a commit by itself."""

    branch: str | None
    commit: str

    @property
    def words(self) -> tuple[str, ...]:
        return (self.branch,) if self.branch is not None else ("--detach", self.commit)

    @property
    def name(self) -> str:
        return self.branch or self.commit

    def is_shown_by(self, other: _Place) -> bool:
        return self.branch == other.branch and (self.branch is not None or self.commit == other.commit)


class GitManager:
    """Branches and commits of one repository; between two calls no process and no file of it stays open.

    Args:
        repo_path: the repository, or a folder inside its working tree.

    Raises:
        GitOperationError: there is no git, or no repository with a working tree at that place.
    """

    def __init__(self, repo_path: str | os.PathLike[str]) -> None:
        try:
            path = given_path("repo_path", repo_path, "the path of a repository")
        except (TypeError, ValueError) as error:
            raise GitOperationError(str(error)) from error
        self.repository = Repository.find(path)
        self.root = self.repository.root

    @contextlib.contextmanager
    def branch_context(self, branch_name: str, create_if_not_exists: bool = True) -> Iterator[None]:
        """Work on a branch, and return to where the repository was, whatever happens inside.

        Uncommitted changes come along, as with `git checkout`, and back again. Other processes and threads that ask
        for the same working tree wait for their turn; the same thread may ask again inside. SIGINT, SIGTERM and SIGHUP
        end the block like an exception, once the checkout is whole.

        Args:
            branch_name: the branch.
            create_if_not_exists: make it from HEAD if there is none.

        Raises:
            GitOperationError: the branch does not exist or cannot be made, a merge or the like is under way, files are
                in the way of the switch (the repository is as it was) or of the return (the message says where it is
                left), or another process does not give the working tree back.
        """
        with exclusive(self.repository.git_dir / "mtf-checkout"), terminable():
            place, away = self._place(), False
            try:
                with deferred():
                    self._enter(branch_name, place, create=create_if_not_exists)
                    away = True
                yield
                with deferred():
                    away = False
                    self._return(place, branch_name)
            except BaseException as error:
                if away:
                    with deferred():
                        self._return_despite(error, place, branch_name)
                raise

    def create_branch(self, branch_name: str, base_branch: str | None = None) -> bool:
        """Make a branch, without switching to it.

        Args:
            branch_name: the new branch.
            base_branch: a branch, tag or commit that it begins at; None is HEAD.

        Returns:
            Whether it was made; False if there is one of that name already.

        Raises:
            GitOperationError: the name is not valid, or there is no such base.
        """
        self._check_name(branch_name)
        if base_branch is not None:
            _check_text("base_branch", base_branch, "a branch, tag or commit, or None for HEAD")
        if self._has_branch(branch_name):
            return False
        commit = self.repository.commit_of("HEAD" if base_branch is None else base_branch)
        if commit is None:
            what = f"there is no branch or commit {base_branch!r}"
            reason = "the repository has no commit yet" if base_branch is None else what
            raise GitOperationError(f"cannot make branch {branch_name!r}: {reason}")
        self.repository.run("branch", "--no-track", branch_name, commit)
        return True

    def commit_changes(self, message: str, files: Sequence[str] | None = None, add_all: bool = False) -> str:
        """Commit to the current branch.

        Args:
            message: the commit's message.
            files: commit exactly these paths as they are in the working tree, whatever else is staged; relative to
                the root of the working tree.
            add_all: stage everything that is not ignored first. Without `files` and `add_all` the index is committed
                as it is.

        Returns:
            The commit's hash; that of HEAD if there was nothing to commit.

        Raises:
            GitOperationError: the message is empty, both `files` and `add_all` are given, or git refuses.
        """
        _check_text("message", message, "the commit's message")
        if not message.strip():
            raise GitOperationError("commit_changes: the message is empty")
        if files is not None and add_all:
            raise GitOperationError("commit_changes: give either files or add_all, not both")
        git = self.repository.run
        only = [] if files is None else _checked_paths(files)
        if add_all:
            git("add", "--all", "--", ".")
        elif only:
            git("add", "--all", "--", *only)
        if (files is None or only) and git("diff", "--cached", "--name-only", "--ignore-submodules=none", "--", *only):
            pathspec = ("--only", "--", *only) if only else ()
            git("commit", "--quiet", "--file=-", *pathspec, stdin=os.fsencode(message))
        return git("rev-parse", "--verify", "HEAD")

    def _place(self) -> _Place:
        commit = self.repository.commit_of("HEAD")
        if commit is None:
            raise GitOperationError(f"{self.root}: the repository has no commit yet, so there is nothing to return to")
        if not self.repository.accepts("symbolic-ref", "--quiet", "HEAD"):
            return _Place(None, commit)
        return _Place(self.repository.run("symbolic-ref", "HEAD").removeprefix("refs/heads/"), commit)

    def _enter(self, branch_name: str, place: _Place, *, create: bool) -> None:
        for file, what in _UNDER_WAY.items():
            if (self.repository.git_dir / file).exists():
                raise GitOperationError(f"{self.root}: {what} is under way, which a switch would end; finish it first")
        self._check_name(branch_name)
        created = not self._has_branch(branch_name)
        if created and not create:
            raise GitOperationError(f"{self.root}: there is no branch {branch_name!r}")
        if created:
            self.create_branch(branch_name)
        try:
            self._switch(_Place(branch_name, ""))
        except GitOperationError:
            if created:
                self.repository.run("branch", "--delete", "--force", branch_name)
            raise

    def _switch(self, place: _Place) -> None:
        try:
            # an ignored file that is in the way would be lost otherwise, without a word
            words = ("checkout", "--quiet", "--no-overwrite-ignore", "--no-recurse-submodules", *place.words, "--")
            self.repository.output(*words, shielded=True)
        except GitOperationError as error:
            if not place.is_shown_by(self._place()):
                raise
            _log.warning("%s: %s is checked out, but a hook failed: %s", self.root, place.name, error)

    def _return(self, place: _Place, branch_name: str) -> None:
        try:
            self._switch(place)
        except GitOperationError as error:
            raise GitOperationError(
                f"{self.root} is left on branch {branch_name!r}, because the return to {place.name!r} failed: {error}"
            ) from error

    def _return_despite(self, error: BaseException, place: _Place, branch_name: str) -> None:
        try:
            self._return(place, branch_name)
        except GitOperationError as stuck:
            error.add_note(str(stuck))

    def _has_branch(self, name: str) -> bool:
        return self.repository.accepts("show-ref", "--verify", "--quiet", f"refs/heads/{name}")

    def _check_name(self, name: str) -> None:
        _check_text("branch_name", name, "the name of a branch")
        if name.startswith("-"):
            raise GitOperationError(f"{name!r} is not valid as the name of a branch: it begins with a dash")
        if (
            name in _NOT_A_BRANCH
            or "\0" in name
            or not self.repository.accepts("check-ref-format", f"refs/heads/{name}")
        ):
            raise GitOperationError(f"{name!r} is not valid as the name of a branch")


def _check_text(what: str, value: Any, expected: str) -> None:
    """Refuse what is no text, or no text that a program can be given."""
    if not isinstance(value, str):
        raise GitOperationError(f"{what}={value!r}: expected {expected}, as a string")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise GitOperationError(f"{what}={value!r}: it has half a character, which no program can be given") from None


def _checked_paths(files: Any) -> list[str]:
    """The paths of files, as text."""
    listed = None if isinstance(files, str | bytes) or not isinstance(files, Iterable) else list(files)
    if listed is None or not all(isinstance(file, str | os.PathLike) for file in listed):
        raise GitOperationError(f"commit_changes: files={files!r}: expected a list of paths")
    return [os.fsdecode(file) for file in listed]
