"""Whatever state a repository is in and however the block ends: `branch_context` gives back what it found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtf_slurm import GitManager, GitOperationError
from mtf_slurm.code.repository import Repository
from mtf_slurm.code.snapshots import take_snapshot

FILE = "-c", "protocol.file.allow=always"


@pytest.fixture
def repo(tmp_path: Path, make_repository: Callable[[Path], Any]) -> Any:
    """A branch `main`, and a branch `exp` with other files and other contents."""
    repo = make_repository(tmp_path / "repo")
    for name in ("a.txt", "b.txt", "c.txt", "d.txt", "e.txt"):
        repo.write(name, f"{name} of main\n")
    repo.commit()
    repo.git("checkout", "--quiet", "-b", "exp")
    repo.write("e.txt", "of exp\n")
    repo.write("only-exp.txt", "x")
    repo.commit()
    repo.git("checkout", "--quiet", "main")
    return repo


def kept(repo: Any) -> dict[str, Any]:
    """What is the user's, to the byte; not the times at which git wrote a file anew."""

    def said(*words: str) -> bytes:
        return subprocess.run(["git", "-C", repo.path, *words], capture_output=True, check=False).stdout

    inside = repo.path / ".git"
    files = {}
    for folder, names, leaves in os.walk(repo.path):
        names[:] = [name for name in names if name != ".git"]
        for path in (Path(folder, leaf) for leaf in leaves):
            files[str(path)] = (path.read_bytes(), path.stat().st_mode) if not path.is_symlink() else path.readlink()
    return {
        "HEAD": (inside / "HEAD").read_bytes(),
        "index": said("ls-files", "--stage", "-z", "-v"),
        "unmerged": said("ls-files", "--unmerged", "-z"),
        "status": said("status", "--porcelain=v2", "-z", "--ignore-submodules=none"),
        "stash": said("stash", "list", "-p"),
        "refs": said("for-each-ref"),
        "config": (inside / "config").read_bytes(),
        "files": files,
    }


def make_clean(repo: Any) -> None:
    pass


def make_dirty(repo: Any) -> None:
    repo.write("c.txt", "stashed")
    repo.git("stash", "--quiet")
    repo.write("a.txt", "staged")
    repo.git("add", "a.txt")
    repo.write("a.txt", "and edited")
    (repo.path / "b.txt").unlink()
    repo.git("rm", "--quiet", "--cached", "c.txt")
    (repo.path / "d.txt").chmod(0o755)
    repo.write("new.txt", "new")
    repo.write("intended.txt", "new")
    repo.git("add", "--intent-to-add", "intended.txt")
    (repo.path / "link").symlink_to("nowhere")


def make_marked(repo: Any) -> None:
    repo.git("update-index", "--assume-unchanged", "a.txt")
    repo.git("update-index", "--skip-worktree", "b.txt")
    repo.write("a.txt", "mine")
    repo.write("b.txt", "mine")


def make_detached(repo: Any) -> None:
    repo.git("checkout", "--quiet", "--detach")
    repo.write("d.txt", "mine")
    repo.git("commit", "--quiet", "-a", "-m", "on no branch")
    repo.write("a.txt", "more")


def make_bisecting(repo: Any) -> None:
    repo.git("bisect", "start", "exp", "main")


def make_submodule(repo: Any) -> None:
    """Checked out at another commit than either branch has, with changes of its own."""
    origin = type(repo)(repo.path.parent / "origin")
    for version in ("one", "two", "three"):
        origin.write("lib.py", version)
        origin.commit(version)
    for branch, commit in (("exp", "HEAD~2"), ("main", "HEAD~1")):
        repo.git("checkout", "--quiet", branch)
        if not (repo.path / "sub" / ".git").exists():
            repo.git(*FILE, "submodule", "--quiet", "add", "--force", str(origin.path), "sub")
        subprocess.run(["git", "-C", origin.path, "rev-parse", commit], check=True, capture_output=True)
        inner = subprocess.run(
            ["git", "-C", origin.path, "rev-parse", commit], check=True, capture_output=True, text=True
        )
        subprocess.run(["git", "-C", repo.path / "sub", "checkout", "--quiet", inner.stdout.strip()], check=True)
        repo.commit()
    subprocess.run(["git", "-C", repo.path / "sub", "checkout", "--quiet", "main"], check=True)
    repo.write("sub/lib.py", "mine")
    repo.write("sub/new.py", "mine")


STATES = [make_clean, make_dirty, make_marked, make_detached, make_bisecting, make_submodule]


def end_well(manager: GitManager) -> None:
    with manager.branch_context("exp"):
        assert manager.repository.run("symbolic-ref", "--short", "HEAD") == "exp"


def end_with_an_exception(manager: GitManager) -> None:
    with pytest.raises(ZeroDivisionError), manager.branch_context("exp"):
        _ = 1 / 0


def end_with_exit(manager: GitManager) -> None:
    with pytest.raises(SystemExit), manager.branch_context("exp"):
        sys.exit(3)


def end_with_an_interrupt(manager: GitManager) -> None:
    with pytest.raises(KeyboardInterrupt), manager.branch_context("exp"):
        signal.raise_signal(signal.SIGINT)


def end_nested(manager: GitManager) -> None:
    with manager.branch_context("exp"), pytest.raises(KeyError), manager.branch_context("main"):
        raise KeyError


def end_in_a_new_branch(manager: GitManager) -> None:
    with manager.branch_context("fresh"):
        pass
    manager.repository.run("branch", "-D", "fresh")


ENDINGS = [
    end_well,
    end_with_an_exception,
    end_with_exit,
    end_with_an_interrupt,
    end_nested,
    end_in_a_new_branch,
]


@pytest.mark.parametrize("state", STATES)
def test_the_state_is_given_back(repo: Any, state: Callable[[Any], None]) -> None:
    state(repo)
    manager = GitManager(repo.path)
    before = kept(repo)
    for end in ENDINGS:
        end(manager)
        assert kept(repo) == before, end.__name__


def make_merging(repo: Any) -> None:
    repo.write("e.txt", "other")
    repo.commit()
    subprocess.run(["git", "-C", repo.path, "merge", "exp"], capture_output=True, check=False)
    assert (repo.path / ".git" / "MERGE_HEAD").exists()


def make_rebasing(repo: Any) -> None:
    repo.write("e.txt", "other")
    repo.commit()
    subprocess.run(["git", "-C", repo.path, "rebase", "exp"], capture_output=True, check=False)
    assert (repo.path / ".git" / "rebase-merge").exists()


def make_picking(repo: Any) -> None:
    repo.write("e.txt", "other")
    repo.commit()
    subprocess.run(["git", "-C", repo.path, "cherry-pick", "exp"], capture_output=True, check=False)
    assert (repo.path / ".git" / "CHERRY_PICK_HEAD").exists()


def make_reverting(repo: Any) -> None:
    repo.write("e.txt", "other")
    repo.commit()
    repo.write("e.txt", "another")
    repo.commit()
    subprocess.run(["git", "-C", repo.path, "revert", "--no-edit", "HEAD~1"], capture_output=True, check=False)
    assert (repo.path / ".git" / "REVERT_HEAD").exists()


def make_unborn(repo: Any) -> None:
    repo.git("checkout", "--quiet", "--orphan", "unborn")


def make_conflicting(repo: Any) -> None:
    repo.write("e.txt", "mine, and exp has another")


def make_untracked_in_the_way(repo: Any) -> None:
    repo.write("only-exp.txt", "mine")


def make_ignored_in_the_way(repo: Any) -> None:
    repo.write(".git/info/exclude", "only-exp.txt\n")
    repo.write("only-exp.txt", "mine")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (make_merging, "a merge is under way"),
        (make_rebasing, "a rebase is under way"),
        (make_picking, "a cherry-pick is under way"),
        (make_reverting, "a revert is under way"),
        (make_unborn, "no commit yet"),
        (make_conflicting, r"e\.txt"),
        (make_untracked_in_the_way, r"only-exp\.txt"),
        (make_ignored_in_the_way, r"only-exp\.txt"),
    ],
)
def test_what_would_be_lost_is_refused_and_left_as_it_is(repo: Any, state: Callable[[Any], None], says: str) -> None:
    state(repo)
    manager = GitManager(repo.path)
    before = kept(repo)
    index = (repo.path / ".git" / "index").read_bytes()
    for branch in ("exp", "fresh"):
        if branch == "fresh" and state in (make_conflicting, make_untracked_in_the_way, make_ignored_in_the_way):
            continue  # nothing is in the way there
        with pytest.raises(GitOperationError, match=says), manager.branch_context(branch):
            pytest.fail("the block must not run")
        assert kept(repo) == before
        assert (repo.path / ".git" / "index").read_bytes() == index


def impatient(repo: Any) -> GitManager:
    manager = GitManager(repo.path)
    manager.repository = Repository(manager.repository.root, manager.repository.git_dir, sleep=lambda _: None)
    return manager


@pytest.mark.parametrize("branch", ["exp", "fresh"])
def test_a_lock_of_the_index_that_stays(repo: Any, branch: str) -> None:
    make_dirty(repo)
    manager = impatient(repo)
    before = kept(repo)
    lock = repo.path / ".git" / "index.lock"
    lock.touch()
    with pytest.raises(GitOperationError, match=r"index\.lock"), manager.branch_context(branch):
        pytest.fail("the block must not run")
    lock.unlink()
    assert kept(repo) == before
    says = rf"is left on branch '{branch}', because the return to 'main' failed: .*index\.lock"
    with pytest.raises(GitOperationError, match=says), manager.branch_context(branch):
        lock.touch()
    lock.unlink()
    repo.git("checkout", "--quiet", "main")
    if branch == "fresh":
        repo.git("branch", "-D", "fresh")
    assert kept(repo) == before


def test_a_lock_of_the_index_that_passes_is_waited_for(repo: Any) -> None:
    make_dirty(repo)
    manager = GitManager(repo.path)
    before = kept(repo)
    lock = repo.path / ".git" / "index.lock"
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        lock.unlink(missing_ok=True)

    manager.repository = Repository(manager.repository.root, manager.repository.git_dir, sleep=wait)
    lock.touch()
    with manager.branch_context("exp"):
        lock.touch()
    assert len(waits) == 2
    assert kept(repo) == before


WORK = """
import os, signal, sys
from mtf_slurm import GitManager
manager, name, ending = GitManager(sys.argv[1]), sys.argv[2], sys.argv[3]
for number in range(2):
    with manager.branch_context(name):
        path = manager.root / f"{name}-{number}"
        path.write_text(name)
        manager.commit_changes("mine", files=[path.name])
        if number and ending == "raise":
            raise ValueError(name)
        if number and ending != "well":
            os.kill(os.getpid(), int(ending))
            signal.pause()
"""


def test_eight_processes_at_once_in_a_dirty_tree_that_end_in_every_way(repo: Any) -> None:
    make_dirty(repo)
    before = kept(repo)
    endings = ["well", "raise", *(str(int(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))]
    endings = [endings[number % len(endings)] for number in range(8)]
    command = [sys.executable, "-c", WORK, str(repo.path)]
    processes = [
        subprocess.Popen([*command, f"w{number}", ending], stderr=subprocess.PIPE, text=True)
        for number, ending in enumerate(endings)
    ]
    said = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode == 0 for process in processes] == [ending == "well" for ending in endings], said
    after = kept(repo)
    assert {key: value for key, value in after.items() if key != "refs"} == {
        key: value for key, value in before.items() if key != "refs"
    }
    for number in range(8):
        made = repo.git("diff", "--name-only", "main", f"w{number}").split()
        assert made == [f"w{number}-0", f"w{number}-1"]


def test_nothing_stays_open_whatever_happens(repo: Any) -> None:
    def open_files() -> set[str]:
        return {entry.name for entry in Path("/proc/self/fd").iterdir()}

    def children() -> list[str]:
        return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()

    manager = impatient(repo)
    end_well(manager)
    files, processes = open_files(), children()
    for _ in range(5):
        for end in ENDINGS:
            end(manager)
        with pytest.raises(GitOperationError):
            manager.commit_changes("x", files=["no-such"])
        with pytest.raises(GitOperationError):
            manager.create_branch("a..b")
        with pytest.raises(GitOperationError):
            GitManager("/proc")
        take_snapshot(Repository.find(repo.path))
    assert open_files() == files
    assert children() == processes
