"""Branches and commits in real repositories."""

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtf_slurm import GitManager, GitOperationError
from mtf_slurm.code.locking import exclusive
from mtf_slurm.code.repository import TRIES, Repository, TransientGitError


@pytest.fixture
def repo(tmp_path: Path, make_repository: Callable[[Path], Any]) -> Any:
    repo = make_repository(tmp_path / "repo")
    repo.write("a.txt", "one")
    repo.git("add", "a.txt")
    repo.git("commit", "--quiet", "-m", "first")
    return repo


@pytest.fixture
def manager(repo: Any) -> GitManager:
    return GitManager(str(repo.path))


def test_branch_context_creates_works_and_returns(repo: Any, manager: GitManager) -> None:
    with manager.branch_context("exp/one"):
        assert repo.here == "exp/one"
        repo.write("a.txt", "two")
        sha = manager.commit_changes("second", add_all=True)
    assert repo.here == "main"
    assert repo.read("a.txt") == "one"
    assert repo.git("rev-parse", "exp/one") == sha
    with manager.branch_context("exp/one", create_if_not_exists=False):
        assert repo.read("a.txt") == "two"


def test_branch_context_returns_after_an_exception(repo: Any, manager: GitManager) -> None:
    with pytest.raises(ZeroDivisionError), manager.branch_context("exp"):
        _ = 1 / 0
    assert repo.here == "main"


def test_branch_context_without_the_branch(repo: Any, manager: GitManager) -> None:
    context = manager.branch_context("exp", create_if_not_exists=False)
    with pytest.raises(GitOperationError, match="there is no branch 'exp'"), context:
        pytest.fail("the block must not run")
    assert repo.git("branch", "--format=%(refname:short)") == "main"


def test_a_detached_head_is_returned_to(repo: Any, manager: GitManager) -> None:
    sha = repo.git("rev-parse", "HEAD")
    repo.git("checkout", "--quiet", "--detach")
    with manager.branch_context("exp"):
        assert repo.here == "exp"
    assert (repo.here, repo.git("rev-parse", "HEAD")) == ("HEAD", sha)


def test_uncommitted_changes_come_along_and_back(repo: Any, manager: GitManager) -> None:
    repo.write("a.txt", "mine")
    repo.write("new.txt", "untracked")
    with manager.branch_context("exp"):
        assert repo.read("a.txt") == "mine"
    assert (repo.read("a.txt"), repo.read("new.txt")) == ("mine", "untracked")
    assert repo.git("status", "--porcelain") == "M a.txt\n?? new.txt"


def test_changes_in_the_way_of_the_switch_leave_everything_as_it_was(repo: Any, manager: GitManager) -> None:
    with manager.branch_context("exp"):
        repo.write("a.txt", "two")
        manager.commit_changes("second", add_all=True)
    repo.write("a.txt", "mine")
    with pytest.raises(GitOperationError, match=r"a\.txt"), manager.branch_context("exp"):
        pytest.fail("the block must not run")
    assert (repo.here, repo.read("a.txt")) == ("main", "mine")


def test_changes_in_the_way_of_the_return_are_kept_and_said(repo: Any, manager: GitManager) -> None:
    with manager.branch_context("exp"):
        repo.write("a.txt", "two")
        manager.commit_changes("second", add_all=True)
    says = "is left on branch 'exp', because the return to 'main' failed"
    with pytest.raises(GitOperationError, match=says), manager.branch_context("exp"):
        repo.write("a.txt", "three")
    assert (repo.here, repo.read("a.txt")) == ("exp", "three")


def test_the_error_of_the_block_counts_more_than_that_of_the_return(repo: Any, manager: GitManager) -> None:
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


def test_create_branch(repo: Any, manager: GitManager) -> None:
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
def test_bad_branch_names(repo: Any, manager: GitManager, name: str) -> None:
    for call in (manager.create_branch, lambda n: manager.branch_context(n).__enter__()):
        with pytest.raises(GitOperationError, match="is not valid as the name of a branch"):
            call(name)
    assert repo.git("branch", "--format=%(refname:short)") == "main"


@pytest.mark.parametrize("base", ["-x", "--all", "main --force"])
def test_a_hostile_base_is_no_option(manager: GitManager, base: str) -> None:
    with pytest.raises(GitOperationError, match="there is no branch or commit"):
        manager.create_branch("x", base)


@pytest.mark.parametrize("value", [None, 3, b"exp", ["exp"], Path("exp"), "\ud800"])
def test_what_is_no_text_is_refused_as_such(repo: Any, manager: GitManager, value: Any) -> None:
    before = repo.state()
    with pytest.raises(GitOperationError, match=r"^branch_name="):
        manager.create_branch(value)
    with pytest.raises(GitOperationError, match=r"^branch_name="), manager.branch_context(value):
        pytest.fail("the block must not run")
    with pytest.raises(GitOperationError, match=r"^message="):
        manager.commit_changes(value, add_all=True)
    if value is not None:
        with pytest.raises(GitOperationError, match=r"^base_branch="):
            manager.create_branch("x", value)
    assert repo.state() == before


@pytest.mark.parametrize("files", ["a.txt", b"a.txt", 3, [3], [None], [b"a.txt"]])
def test_files_that_are_no_paths_are_refused_as_such(manager: GitManager, files: Any) -> None:
    with pytest.raises(GitOperationError, match=r"commit_changes: files=.*: expected a list of paths"):
        manager.commit_changes("x", files=files)


def test_commit_without_arguments_commits_the_index_only(repo: Any, manager: GitManager) -> None:
    repo.write("a.txt", "two")
    repo.write("b.txt", "new")
    repo.git("add", "b.txt")
    sha = manager.commit_changes('-m $(touch hacked) "quoted"\n\nbody')
    assert repo.git("rev-parse", "HEAD") == sha
    assert repo.git("log", "-1", "--format=%B") == '-m $(touch hacked) "quoted"\n\nbody'
    assert repo.git("show", "--format=", "--name-only") == "b.txt"
    assert repo.git("status", "--porcelain") == "M a.txt"
    assert manager.commit_changes("nothing left") == sha


def test_commit_of_files_leaves_what_else_is_staged(repo: Any, manager: GitManager) -> None:
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


def test_commit_all_respects_what_is_ignored(repo: Any, manager: GitManager) -> None:
    repo.write(".gitignore", "secret\n")
    repo.write("secret", "x")
    repo.write("new", "x")
    manager.commit_changes("all", add_all=True)
    assert repo.git("ls-files").split() == [".gitignore", "a.txt", "new"]


def test_commits_that_are_refused(repo: Any, manager: GitManager) -> None:
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


def test_the_first_commit_of_a_repository(tmp_path: Path, make_repository) -> None:
    repo = make_repository(tmp_path / "fresh")
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


def script_of(repo: Any, body: str) -> subprocess.Popen[str]:
    """A process of its own that works with the repository."""
    code = f"import os, sys, time\nfrom mtf_slurm import GitManager\nmanager = GitManager({str(repo.path)!r})\n{body}"
    words = [sys.executable, "-c", code]
    piped: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, **piped, cwd=repo.path.parent, start_new_session=True)


HOLD = """
with manager.branch_context("exp"):
    open("{mark}", "w").close()
    while True:
        time.sleep(0.01)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_block_ends_it_and_returns(repo, number, tmp_path, wait_until) -> None:
    repo.write("a.txt", "mine")
    process = script_of(repo, HOLD.format(mark=tmp_path / "inside"))
    wait_until((tmp_path / "inside").exists, "the block")
    assert repo.here == "exp"
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert (repo.here, repo.read("a.txt")) == ("main", "mine")


@pytest.mark.parametrize("moment", ["there", "back"])
def test_an_interrupt_in_the_middle_of_a_switch_waits_until_it_is_whole(repo, moment: str) -> None:
    hook = repo.path / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    other = "exp" if moment == "there" else "main"
    hook.write_text(f'#!/bin/sh\n[ "$(git symbolic-ref --short HEAD)" = {other} ] && kill -INT "$SWITCHER"\nexit 0\n')
    hook.chmod(0o755)
    body = """
os.environ["SWITCHER"] = str(os.getpid())
try:
    with manager.branch_context("exp"):
        print("inside")
except KeyboardInterrupt:
    print("interrupted")
"""
    out, err = script_of(repo, body).communicate(timeout=60)
    assert out.split() == (["interrupted"] if moment == "there" else ["inside", "interrupted"]), err
    assert (repo.here, repo.git("status", "--porcelain")) == ("main", "")


def test_the_terminals_interrupt_does_not_end_git_in_the_middle(repo, manager) -> None:
    """Ctrl-C goes to every process of the group; here it comes while git writes the files of the branch."""
    with manager.branch_context("exp"):
        repo.write(".gitattributes", "a.txt filter=late\n")
        repo.write("a.txt", "theirs")
        repo.write("z.txt", "theirs")
        manager.commit_changes("theirs", add_all=True)
    repo.git("config", "filter.late.smudge", 'kill -INT "-$SWITCHER"; cat')
    body = """
os.environ["SWITCHER"] = str(os.getpid())
try:
    with manager.branch_context("exp"):
        print("inside")
except KeyboardInterrupt:
    print("interrupted")
"""
    out, err = script_of(repo, body).communicate(timeout=60)
    assert out.split() == ["interrupted"], err
    assert (repo.here, repo.git("status", "--porcelain")) == ("main", "")
    assert "left" not in err


def test_eight_processes_take_turns(repo) -> None:
    body = """
for round in range(3):
    with manager.branch_context(name):
        path = manager.root / f"{name}-{round}.txt"
        path.write_text(name)
        manager.commit_changes(f"round {round}", files=[path.name])
"""
    processes = [script_of(repo, f"name = 'w{n}'{body}") for n in range(8)]
    for process in processes:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    assert (repo.here, repo.git("status", "--porcelain"), repo.git("ls-files")) == ("main", "", "a.txt")
    for n in range(8):
        files = repo.git("ls-tree", "--name-only", f"w{n}").split()
        assert files == ["a.txt", *(f"w{n}-{round}.txt" for round in range(3))]


def test_threads_take_turns_and_nested_contexts_do_not_wait(repo, manager, in_background) -> None:
    entered = threading.Event()

    def other() -> None:
        with GitManager(repo.path).branch_context("theirs"):
            entered.set()

    with manager.branch_context("one"):
        waiting = in_background(other)
        with GitManager(repo.path).branch_context("two"), manager.branch_context("one"):
            assert repo.here == "one"
        assert repo.here == "one"
        assert not entered.is_set()
    waiting.result()
    assert entered.is_set()
    assert repo.here == "main"


def test_who_holds_the_checkout_is_said(repo, tmp_path) -> None:
    path = tmp_path / "lock"
    with exclusive(path):
        body = "from pathlib import Path\nfrom mtf_slurm.code.locking import exclusive\n"
        body += f"with exclusive(Path({str(path)!r}), wait_s=0): pass"
        _, err = script_of(repo, body).communicate(timeout=60)
    assert f"process {os.getpid()} on" in err
    assert "git worktree add" in err


def test_an_ignored_file_in_the_way_is_not_lost(repo, manager) -> None:
    with manager.branch_context("exp"):
        repo.write("data.bin", "theirs")
        manager.commit_changes("tracked there", add_all=True)
    repo.write(".gitignore", "data.bin\n")
    manager.commit_changes("ignored here", add_all=True)
    repo.write("data.bin", "mine")
    with pytest.raises(GitOperationError, match=r"data\.bin"), manager.branch_context("exp"):
        pytest.fail("the block must not run")
    assert (repo.here, repo.read("data.bin")) == ("main", "mine")


def test_staged_and_unstaged_changes_stay_what_they_are(repo, manager) -> None:
    repo.write("b.txt", "one")
    manager.commit_changes("b", add_all=True)
    repo.write("a.txt", "staged")
    repo.git("add", "a.txt")
    repo.write("a.txt", "and more")
    (repo.path / "b.txt").unlink()
    before = repo.git("status", "--porcelain=v2")
    with manager.branch_context("exp"):
        repo.write("c.txt", "made here")
        manager.commit_changes("c", files=["c.txt"])
    assert repo.git("status", "--porcelain=v2") == before
    assert repo.git("show", ":a.txt") == "staged"
    assert repo.git("show", "exp:c.txt") == "made here"


def test_a_merge_under_way_is_not_ended_by_a_switch(repo, manager) -> None:
    with manager.branch_context("exp"):
        repo.write("b.txt", "b")
        manager.commit_changes("b", add_all=True)
    repo.write("c.txt", "c")
    manager.commit_changes("c", add_all=True)
    repo.git("merge", "--no-commit", "--no-ff", "exp")
    with pytest.raises(GitOperationError, match="a merge is under way"), manager.branch_context("exp"):
        pytest.fail("the block must not run")
    repo.git("commit", "--quiet", "-m", "merged")
    assert len(repo.git("log", "-1", "--format=%P").split()) == 2


def test_a_failing_hook_does_not_keep_the_repository_away(repo, manager) -> None:
    hook = repo.path / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho bad hook >&2\nexit 1\n")
    hook.chmod(0o755)
    with manager.branch_context("exp"):
        assert repo.here == "exp"
    assert repo.here == "main"


def test_a_branch_goes_before_a_tag_of_its_name(repo, manager) -> None:
    first = repo.git("rev-parse", "HEAD")
    repo.git("tag", "both", first)
    repo.write("a.txt", "two")
    second = manager.commit_changes("second", add_all=True)
    repo.git("branch", "both", second)
    manager.create_branch("x", "both")
    assert repo.git("rev-parse", "x") == second


def open_files() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def test_nothing_stays_open(repo, manager) -> None:
    before = open_files()
    with manager.branch_context("exp"):
        repo.write("a.txt", "two")
        manager.commit_changes("two", add_all=True)
    assert open_files() == before
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    assert not [c for c in children if "git" in Path(f"/proc/{c}/comm").read_text()]


def test_a_held_index_lock_is_waited_for_and_then_named(repo) -> None:
    lock = repo.path / ".git" / "index.lock"
    lock.touch()
    waits: list[float] = []

    def free_it(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            lock.unlink()

    found = Repository.find(repo.path)
    repo.write("a.txt", "two")
    Repository(found.root, found.git_dir, sleep=free_it).run("add", "--", "a.txt")
    assert len(waits) == 3
    lock.touch()
    stubborn = Repository(found.root, found.git_dir, sleep=waits.append)
    with pytest.raises(TransientGitError, match=r"index\.lock': File exists"):
        stubborn.run("add", "--", "a.txt")
    assert len(waits) == 3 + TRIES - 1


def test_what_does_not_pass_is_not_tried_again(repo) -> None:
    found = Repository.find(repo.path)
    once = Repository(found.root, found.git_dir, sleep=lambda _: pytest.fail("it must not wait"))
    with pytest.raises(GitOperationError, match="did not match any files") as caught:
        once.run("add", "--", "no-such")
    assert not isinstance(caught.value, TransientGitError)


def test_the_variables_of_a_hook_do_not_mislead(repo, manager, tmp_path, make_repository, monkeypatch) -> None:
    other = make_repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.path / ".git" / "index"))
    repo.write("a.txt", "two")
    sha = GitManager(repo.path).commit_changes("two", add_all=True)
    monkeypatch.undo()
    assert repo.git("rev-parse", "HEAD") == sha


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.one_of(_text, _text.map("-".__add__), _text.map("$(touch hacked)".__add__)))
def test_any_text_as_a_name_makes_that_branch_or_none(repo, manager, name: str) -> None:
    before = repo.git("for-each-ref", "--format=%(refname)").split("\n")
    try:
        made = manager.create_branch(name)
    except GitOperationError:
        made = False
    after = repo.git("for-each-ref", "--format=%(refname)").split("\n")
    assert sorted(after) == sorted([*before, *([f"refs/heads/{name}"] if made else [])])
    assert not (repo.path / "hacked").exists()
    if made:
        with manager.branch_context(name), manager.branch_context("main"):
            pass
        repo.git("symbolic-ref", "HEAD", f"refs/heads/{name}")
        with manager.branch_context("main"):
            assert repo.here == "main"
        assert (repo.path / ".git" / "HEAD").read_bytes() == f"ref: refs/heads/{name}\n".encode()
        repo.git("symbolic-ref", "HEAD", "refs/heads/main")


_messages = _text.filter(lambda text: text.strip() and "\0" not in text)
_files = _text.filter(lambda text: text.strip("./") and "/" not in text and "\0" not in text)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=_messages, file=_files)
def test_any_text_as_message_and_file_is_data(repo, manager, message: str, file: str) -> None:
    repo.write(file, message)
    if ".git" in file.lower():
        return
    manager.commit_changes(message, files=[file])
    listed = subprocess.run(["git", "-C", repo.path, "ls-files", "-z"], capture_output=True, check=True).stdout
    assert os.fsencode(file) in listed.split(b"\0")
