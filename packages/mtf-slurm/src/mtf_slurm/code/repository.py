"""One git repository: every git command of this package is run here, and run again if what was in its way passes."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import tenacity

from mtf_slurm.errors import GitOperationError

__all__ = ["NoRepositoryError", "Repository", "TransientGitError"]

TRIES: Final = 12
_LONGEST_WAIT_S: Final = 1.0

# of a command that found the way barred and has done nothing; LC_ALL=C is set, so git says it in English
_PASSES: Final = re.compile(
    r"unable to create '.*': file exists|could not lock config file .*: file exists|stale (nfs )?file handle"
    r"|resource temporarily unavailable|device or resource busy|connection timed out",
    re.IGNORECASE | re.DOTALL,
)

# they say which repository and index git works on, and are set in hooks; `git rev-parse --local-env-vars` lists them
_LOCAL: Final = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
_ALWAYS: Final = {"GIT_LITERAL_PATHSPECS": "1", "GIT_EDITOR": "true", "GIT_OPTIONAL_LOCKS": "0"}


class TransientGitError(GitOperationError):
    """What was in the way passes by itself as a rule, but did not in the time given to it."""


class NoRepositoryError(GitOperationError):
    """There is no git, or no repository with a working tree."""


class Repository:
    """A repository with a working tree.

    Args:
        root: the top of the working tree.
        git_dir: its git folder; a linked working tree has one of its own.
        sleep: waits that many seconds before a command is tried again.
    """

    def __init__(self, root: Path, git_dir: Path, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.root = root
        self.git_dir = git_dir
        self._sleep = sleep

    @classmethod
    def find(cls, path: Path) -> Repository:
        """The repository that a folder belongs to.

        Raises:
            NoRepositoryError: there is no git, no such folder, or no repository with a working tree around it.
            GitOperationError: git refuses to use the one that is there.
        """
        if not path.is_dir():
            raise NoRepositoryError(f"{path}: there is no git repository, for there is no such folder")
        here = cls(path, path)
        status, _, said = here._execute(("rev-parse", "--git-dir"), None, {}, shielded=False)
        if status and "not a git repository" in said:
            raise NoRepositoryError(f"{path}: there is no git repository")
        if here.run("rev-parse", "--is-inside-work-tree") != "true":
            raise NoRepositoryError(f"{path}: the repository is bare, or this is its git folder; name a working tree")
        root, git_dir = (_path(here.output("rev-parse", word)) for word in ("--show-toplevel", "--absolute-git-dir"))
        return cls(root, git_dir)

    @property
    def common_dir(self) -> Path:
        """The git folder that all working trees of the repository share: the references lie there."""
        try:
            # Source: gitrepository-layout(5)
            shared = (self.git_dir / "commondir").read_bytes().removesuffix(b"\n")
        except FileNotFoundError:
            return self.git_dir
        return Path(os.path.normpath(self.git_dir / os.fsdecode(shared)))

    def run(self, *words: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> str:
        """Run git in the working tree and return what it printed, without blanks and newlines around it.

        Args:
            words: of the command; what a user typed is not to be among the options.
            stdin: what it reads.
            env: variables beside those of this process.

        Raises:
            GitOperationError: git refused, in git's words.
        """
        return os.fsdecode(self.output(*words, stdin=stdin, env=env)).strip(" \t\r\n")

    def output(
        self,
        *words: str,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        shielded: bool = False,
    ) -> bytes:
        """Like `run`, for the exact output; `shielded` keeps the terminal's Ctrl-C from the command."""
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientGitError),
            stop=tenacity.stop_after_attempt(TRIES),
            wait=tenacity.wait_exponential(0.05, max=_LONGEST_WAIT_S),
            sleep=self._sleep,
            reraise=True,
        )
        return attempts(self._once, words, stdin, dict(env or {}), shielded=shielded)

    def names(self, *words: str, env: Mapping[str, str] | None = None) -> list[str]:
        """The items of an output that separates them by NUL."""
        return [os.fsdecode(item) for item in self.output(*words, env=env).split(b"\0") if item]

    def accepts(self, *words: str, env: Mapping[str, str] | None = None) -> bool:
        """Whether the command ends well: for questions that git answers by its exit status."""
        return self._execute(words, None, dict(env or {}), shielded=False)[0] == 0

    def commit_of(self, revision: str) -> str | None:
        """The hash of the commit that a name stands for, None without one; a branch goes before a tag of that name."""
        if revision.startswith("-"):
            return None
        for name in ("HEAD",) if revision == "HEAD" else (f"refs/heads/{revision}", revision):
            status, out, _ = self._execute(
                ("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"), None, {}, shielded=False
            )
            if status == 0:
                return os.fsdecode(out).strip()
        return None

    def _once(self, words: tuple[str, ...], stdin: bytes | None, env: dict[str, str], *, shielded: bool) -> bytes:
        status, out, said = self._execute(words, stdin, env, shielded=shielded)
        if status == 0:
            return out
        verb = next((word for word in words if not word.startswith("-") and "=" not in word), words[0])
        kind = TransientGitError if _PASSES.search(said) else GitOperationError
        told = said.strip() or os.fsdecode(out).strip() or f"exit status {status}"
        raise kind(f"git {verb}: {told}")

    def _execute(
        self, words: tuple[str, ...], stdin: bytes | None, env: dict[str, str], *, shielded: bool
    ) -> tuple[int, bytes, str]:
        # imported here: it fails where there is no git, and costs more time than everything else of this package
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from git.cmd import Git
        from git.exc import GitCommandNotFound

        foreign = [name for name in _LOCAL if name in os.environ and name not in env]
        # GitPython hands on the whole environment and can add to it only
        without = ["env", *(word for name in foreign for word in ("-u", name))] if foreign else []
        options: dict[str, Any] = {"start_new_session": True} if shielded else {}
        with tempfile.TemporaryFile() as file:
            if stdin is not None:
                file.write(stdin)
                file.seek(0)
            try:
                answer: Any = Git(str(self.root)).execute(
                    [*without, "git", *words],
                    istream=file if stdin is not None else None,
                    env=_ALWAYS | env,
                    with_extended_output=True,
                    with_exceptions=False,
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                    **options,
                )
            except GitCommandNotFound as error:
                raise NoRepositoryError("git is not installed, or not on the PATH") from error
            except (OSError, ValueError) as error:  # too long, a NUL or half a character in a word
                raise GitOperationError(f"git {words[0]} cannot be run: {error}") from error
        status, out, said = answer
        return status, bytes(out), str(said)


def _path(output: bytes) -> Path:
    """A path that git printed; it may hold anything but NUL, a newline at its end included."""
    return Path(os.fsdecode(output.removesuffix(b"\n")))
