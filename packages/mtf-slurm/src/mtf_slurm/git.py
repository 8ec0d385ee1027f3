"""Git, for people who keep experiments on branches, and for the record of which code ran."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf_slurm.errors import GitOperationError

if TYPE_CHECKING:
    from git import Repo

__all__ = ["GitManager", "describe_code"]


class GitManager:
    """Branches and commits of one repository.

    Args:
        repo_path: the repository, or a folder inside its working tree.

    Raises:
        GitOperationError: there is no git, or no repository with a working tree at that place.
    """

    def __init__(self, repo_path: str | os.PathLike[str]) -> None:
        self._repo = _open(Path(repo_path))
        self.root = Path(str(self._repo.working_tree_dir))

    @contextlib.contextmanager
    def branch_context(self, branch_name: str, create_if_not_exists: bool = True) -> Iterator[None]:
        """Work on a branch, and return to where the repository was, whatever happens inside.

        Uncommitted changes come along, as with `git checkout`, and back again.

        Args:
            branch_name: the branch.
            create_if_not_exists: make it from HEAD if there is none.

        Raises:
            GitOperationError: the branch does not exist or cannot be made, uncommitted changes are in the way of the
                switch (the repository is as it was), or in the way of the return (the message says where it is left).
        """
        place = self._place()
        created = self._ensure_branch(branch_name, create=create_if_not_exists)
        try:
            self._git("checkout", "--quiet", branch_name, "--")
        except GitOperationError:
            if created:
                self._git("branch", "--delete", "--force", branch_name)
            raise
        try:
            yield
        except BaseException as error:
            try:
                self._return(place, branch_name)
            except GitOperationError as stuck:
                error.add_note(str(stuck))
            raise
        self._return(place, branch_name)

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
        if self._has_branch(branch_name):
            return False
        base = base_branch or "HEAD"
        try:
            commit = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
        except GitOperationError as error:
            what = "the repository has no commit yet" if base == "HEAD" else f"there is no branch or commit {base!r}"
            raise GitOperationError(f"cannot make branch {branch_name!r}: {what}") from error
        self._git("branch", "--no-track", branch_name, commit)
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
        if not message.strip():
            raise GitOperationError("commit_changes: the message is empty")
        if files is not None and add_all:
            raise GitOperationError("commit_changes: give either files or add_all, not both")
        only: list[str] = []
        if add_all:
            self._git("add", "--all", "--", ".")
        elif files is not None:
            only = [os.fspath(file) for file in files]
            if only:
                self._git("add", "--all", "--", *only)
        if files is None or only:
            changed = self._git("diff", "--cached", "--name-only", "--", *only)
            if changed:
                self._git("commit", "--quiet", f"--message={message}", *(["--only", "--", *only] if only else []))
        return self._git("rev-parse", "--verify", "HEAD")

    def describe(self) -> dict[str, Any]:
        """What is checked out: commit, branch (None when detached), and whether anything is not committed."""
        commit = self._repo.head.commit.hexsha if self._repo.head.is_valid() else None
        return {
            "commit": commit,
            "branch": None if self._repo.head.is_detached else self._repo.head.ref.name,
            "dirty": bool(self._git("status", "--porcelain")),
        }

    def _place(self) -> list[str]:
        """The arguments of `git checkout` that lead back to the present place."""
        if not self._repo.head.is_valid():
            raise GitOperationError(f"{self.root}: the repository has no commit yet, so there is nothing to return to")
        if self._repo.head.is_detached:
            return ["--detach", self._repo.head.commit.hexsha]
        return [self._repo.head.ref.name]

    def _return(self, place: list[str], branch_name: str) -> None:
        try:
            self._git("checkout", "--quiet", *place, "--")
        except GitOperationError as error:
            raise GitOperationError(
                f"{self.root} is left on branch {branch_name!r}, because the return to {place[-1]!r} failed: {error}"
            ) from error

    def _ensure_branch(self, name: str, *, create: bool) -> bool:
        self._check_name(name)
        if self._has_branch(name):
            return False
        if not create:
            raise GitOperationError(f"{self.root}: there is no branch {name!r}")
        return self.create_branch(name)

    def _has_branch(self, name: str) -> bool:
        return any(head.name == name for head in self._repo.heads)

    def _check_name(self, name: str) -> None:
        try:
            self._git("check-ref-format", f"refs/heads/{name}")
        except GitOperationError as error:
            raise GitOperationError(f"{name!r} is not valid as the name of a branch") from error
        if name.startswith("-"):
            raise GitOperationError(f"{name!r} is not valid as the name of a branch: it begins with a dash")

    def _git(self, *words: str) -> str:
        """Run git; every command of this class goes through here."""
        from git.exc import GitCommandError

        try:
            with self._repo.git.custom_environment(GIT_LITERAL_PATHSPECS="1", GIT_EDITOR="true"):
                return str(self._repo.git.execute(["git", *words])).strip()
        except GitCommandError as error:
            said = str(error.stderr or error.stdout or error).replace("stderr:", "").strip(" \n'")
            raise GitOperationError(f"git {words[0]}: {said}") from error


def _open(path: Path) -> Repo:
    # imported here: it fails where there is no git, and costs more time than everything else of this package
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import git
    from git.exc import GitCommandNotFound, InvalidGitRepositoryError, NoSuchPathError

    try:
        repo = git.Repo(path, search_parent_directories=True)
        repo.git.version()
    except (InvalidGitRepositoryError, NoSuchPathError) as error:
        raise GitOperationError(f"{path}: there is no git repository") from error
    except GitCommandNotFound as error:
        raise GitOperationError("git is not installed, or not on the PATH") from error
    if repo.working_tree_dir is None:
        raise GitOperationError(f"{path}: the repository is bare; work needs a working tree")
    return repo


def describe_code(project_root: Path, manager: GitManager | None = None) -> dict[str, Any]:
    """Where the code of a sweep comes from, for `sweep.json`.

    Args:
        project_root: the folder that the runs work in.
        manager: the repository, if it is known.
    """
    record: dict[str, Any] = {"isolated": False, "project_root": str(project_root)}
    try:
        return record | (manager or GitManager(project_root)).describe()
    except GitOperationError as error:
        return record | {"commit": None, "branch": None, "dirty": None, "reason": str(error)}
