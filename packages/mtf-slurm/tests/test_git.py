"""Branches and commits in real repositories."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mtf_slurm import GitManager, GitOperationError


class Repository:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "A")
        self.git("config", "user.email", "a@example.org")
        self.git("config", "commit.gpgsign", "false")

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", "-C", self.path, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    @property
    def here(self) -> str:
        return self.git("rev-parse", "--abbrev-ref", "HEAD")


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    repo = Repository(tmp_path / "repo")
    repo.write("a.txt", "one")
    repo.git("add", "a.txt")
    repo.git("commit", "--quiet", "-m", "first")
    return repo


@pytest.fixture
def manager(repo: Repository) -> GitManager:
    return GitManager(str(repo.path))


def test_branch_context_creates_works_and_returns(repo: Repository, manager: GitManager) -> None:
    with manager.branch_context("exp/one"):
        assert repo.here == "exp/one"
        repo.write("a.txt", "two")
        sha = manager.commit_changes("second", add_all=True)
    assert repo.here == "main"
    assert repo.read("a.txt") == "one"
    assert repo.git("rev-parse", "exp/one") == sha
    with manager.branch_context("exp/one", create_if_not_exists=False):
        assert repo.read("a.txt") == "two"


def test_branch_context_returns_after_an_exception(repo: Repository, manager: GitManager) -> None:
    with pytest.raises(ZeroDivisionError), manager.branch_context("exp"):
        _ = 1 / 0
    assert repo.here == "main"


def test_branch_context_without_the_branch(repo: Repository, manager: GitManager) -> None:
    context = manager.branch_context("exp", create_if_not_exists=False)
    with pytest.raises(GitOperationError, match="there is no branch 'exp'"), context:
        pytest.fail("the block must not run")
    assert repo.git("branch", "--format=%(refname:short)") == "main"


def test_a_detached_head_is_returned_to(repo: Repository, manager: GitManager) -> None:
    sha = repo.git("rev-parse", "HEAD")
    repo.git("checkout", "--quiet", "--detach")
    with manager.branch_context("exp"):
        assert repo.here == "exp"
    assert (repo.here, repo.git("rev-parse", "HEAD")) == ("HEAD", sha)


def test_uncommitted_changes_come_along_and_back(repo: Repository, manager: GitManager) -> None:
    repo.write("a.txt", "mine")
    repo.write("new.txt", "untracked")
    with manager.branch_context("exp"):
        assert repo.read("a.txt") == "mine"
    assert (repo.read("a.txt"), repo.read("new.txt")) == ("mine", "untracked")
    assert repo.git("status", "--porcelain") == "M a.txt\n?? new.txt"


def test_changes_in_the_way_of_the_switch_leave_everything_as_it_was(repo: Repository, manager: GitManager) -> None:
    with manager.branch_context("exp"):
        repo.write("a.txt", "two")
        manager.commit_changes("second", add_all=True)
    repo.write("a.txt", "mine")
    with pytest.raises(GitOperationError, match=r"a\.txt"), manager.branch_context("exp"):
        pytest.fail("the block must not run")
    assert (repo.here, repo.read("a.txt")) == ("main", "mine")


def test_changes_in_the_way_of_the_return_are_kept_and_said(repo: Repository, manager: GitManager) -> None:
    with manager.branch_context("exp"):
        repo.write("a.txt", "two")
        manager.commit_changes("second", add_all=True)
    says = "is left on branch 'exp', because the return to 'main' failed"
    with pytest.raises(GitOperationError, match=says), manager.branch_context("exp"):
        repo.write("a.txt", "three")
    assert (repo.here, repo.read("a.txt")) == ("exp", "three")


def test_the_error_of_the_block_counts_more_than_that_of_the_return(repo: Repository, manager: GitManager) -> None:
    with manager.branch_context("exp"):
        repo.write("a.txt", "two")
        manager.commit_changes("second", add_all=True)

    def fail() -> None:
        with manager.branch_context("exp"):
            repo.write("a.txt", "three")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    assert any("is left on branch 'exp'" in note for note in caught.value.__notes__)


def test_create_branch(repo: Repository, manager: GitManager) -> None:
    first = repo.git("rev-parse", "HEAD")
    repo.write("a.txt", "two")
    manager.commit_changes("second", add_all=True)
    assert manager.create_branch("here") is True
    assert manager.create_branch("there", first) is True
    assert manager.create_branch("there") is False
    assert repo.here == "main"
    assert repo.git("rev-parse", "here") == repo.git("rev-parse", "main")
    assert repo.git("rev-parse", "there") == first
    with pytest.raises(GitOperationError, match="no branch or commit 'nowhere'"):
        manager.create_branch("x", "nowhere")


@pytest.mark.parametrize("name", ["", "-x", "--force", "a..b", "a b", "x.lock", "a~1", "../up"])
def test_bad_branch_names(repo: Repository, manager: GitManager, name: str) -> None:
    for call in (manager.create_branch, lambda n: manager.branch_context(n).__enter__()):
        with pytest.raises(GitOperationError, match="is not valid as the name of a branch"):
            call(name)
    assert repo.git("branch", "--format=%(refname:short)") == "main"


@pytest.mark.parametrize("base", ["-x", "--all", "main --force"])
def test_a_hostile_base_is_no_option(manager: GitManager, base: str) -> None:
    with pytest.raises(GitOperationError, match="there is no branch or commit"):
        manager.create_branch("x", base)


def test_commit_without_arguments_commits_the_index_only(repo: Repository, manager: GitManager) -> None:
    repo.write("a.txt", "two")
    repo.write("b.txt", "new")
    repo.git("add", "b.txt")
    sha = manager.commit_changes('-m $(touch hacked) "quoted"\n\nbody')
    assert repo.git("rev-parse", "HEAD") == sha
    assert repo.git("log", "-1", "--format=%B") == '-m $(touch hacked) "quoted"\n\nbody'
    assert repo.git("show", "--format=", "--name-only") == "b.txt"
    assert repo.git("status", "--porcelain") == "M a.txt"
    assert manager.commit_changes("nothing left") == sha


def test_commit_of_files_leaves_what_else_is_staged(repo: Repository, manager: GitManager) -> None:
    for name in ("a.txt", "b.txt", "*.txt", "-f"):
        repo.write(name, "changed")
    repo.git("add", "b.txt")
    manager.commit_changes("some", files=["a.txt", "*.txt", "-f"])
    assert repo.git("show", "--format=", "--name-only").split() == ["*.txt", "-f", "a.txt"]
    assert repo.git("status", "--porcelain") == "A  b.txt"
    (repo.path / "a.txt").unlink()
    manager.commit_changes("gone", files=["a.txt"])
    assert repo.git("show", "--format=", "--name-status") == "D\ta.txt"
    head = repo.git("rev-parse", "HEAD")
    assert manager.commit_changes("none", files=[]) == head


def test_commit_all_respects_what_is_ignored(repo: Repository, manager: GitManager) -> None:
    repo.write(".gitignore", "secret\n")
    repo.write("secret", "x")
    repo.write("new", "x")
    manager.commit_changes("all", add_all=True)
    assert repo.git("ls-files").split() == [".gitignore", "a.txt", "new"]


def test_commits_that_are_refused(repo: Repository, manager: GitManager) -> None:
    with pytest.raises(GitOperationError, match="message is empty"):
        manager.commit_changes(" \n")
    with pytest.raises(GitOperationError, match="either files or add_all"):
        manager.commit_changes("x", files=["a.txt"], add_all=True)
    with pytest.raises(GitOperationError, match=r"git add: .*no-such"):
        manager.commit_changes("x", files=["no-such"])
    hook = repo.path / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    repo.write("a.txt", "two")
    with pytest.raises(GitOperationError, match="not today"):
        manager.commit_changes("x", add_all=True)


def test_the_first_commit_of_a_repository(tmp_path: Path) -> None:
    repo = Repository(tmp_path / "fresh")
    manager = GitManager(repo.path)
    with pytest.raises(GitOperationError, match="no commit yet"):
        manager.create_branch("x")
    with pytest.raises(GitOperationError, match="no commit yet"), manager.branch_context("x"):
        pytest.fail("the block must not run")
    repo.write("a", "x")
    sha = manager.commit_changes("first", add_all=True)
    assert repo.git("rev-parse", "HEAD") == sha


def test_no_repository_and_a_bare_one(tmp_path: Path) -> None:
    with pytest.raises(GitOperationError, match="there is no git repository"):
        GitManager(tmp_path)
    with pytest.raises(GitOperationError, match="there is no git repository"):
        GitManager(tmp_path / "missing")
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "bare"], check=True)
    with pytest.raises(GitOperationError, match="bare"):
        GitManager(tmp_path / "bare")
