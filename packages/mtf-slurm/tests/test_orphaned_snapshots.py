"""Snapshots whose sweeps are gone: which are found, which are let go, and which never are."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtf_config import ExecutionMode
from mtf_slurm import GitOperationError, SLURMLauncher
from mtf_slurm.clean_command import CLEAN
from mtf_slurm.cleaning import clean
from mtf_slurm.code import users
from mtf_slurm.code.locking import exclusive
from mtf_slurm.code.references import PRIVATE, kept_snapshots, lock_of
from mtf_slurm.code.repository import Repository
from mtf_slurm.code.snapshots import take_snapshot
from mtf_slurm.code.users import find_orphans, has_users, note_user, prune_orphans
from mtf_utils.cli import CommandError
from mtf_utils.rundir import SweepDirectory

DRY_RUN = ExecutionMode.DRY_RUN


def tomorrow() -> float:
    return time.time() + users.FRESH_S + 60


@pytest.fixture
def repo(project: Path, make_repository: Callable[[Path], Any]) -> Any:
    repo = make_repository(project)
    repo.write(".gitignore", "experiments/\n")
    repo.commit()
    return repo


@pytest.fixture
def found(repo: Any) -> Repository:
    return Repository.find(repo.path)


@pytest.fixture
def submit(repo, launcher, make_config) -> Callable[[Path, str], str]:
    """Write a sweep for a version of the code into a folder, and return the hash of its snapshot."""

    def submit(folder: Path, version: str) -> str:
        repo.write("version.py", version)
        inside = SLURMLauncher(None, folder, project_root=repo.path, display=launcher._display)
        inside.submit_experiment(make_config("a"), DRY_RUN)
        return str(SweepDirectory(folder / "single").sweep().code["tree"])

    return submit


def kept(repo: Any) -> set[str]:
    return set(repo.git("for-each-ref", "--format=%(refname:lstrip=3)", "refs/mtf").split())


def test_snapshots_of_folders_that_are_gone_are_let_go_and_no_others(repo, found, submit, tmp_path) -> None:
    gone = submit(repo.path / "experiments" / "gone", "1")
    lives = submit(repo.path / "experiments" / "lives", "2")
    outside = submit(tmp_path / "outside", "3")
    shared = submit(repo.path / "experiments" / "gone-too", "4")
    assert submit(tmp_path / "shares", "4") == shared
    shutil.rmtree(repo.path / "experiments" / "gone")
    shutil.rmtree(repo.path / "experiments" / "gone-too")
    shutil.rmtree(tmp_path / "outside" / "single")
    before = repo.state()
    assert find_orphans(found) == []  # too fresh: a folder may be about to be made
    orphans = {orphan.tree: orphan.folders for orphan in find_orphans(found, clock=tomorrow)}
    assert orphans == {
        gone: (repo.path / "experiments" / "gone" / "single",),
        outside: (tmp_path / "outside" / "single",),
    }
    assert kept(repo) == {gone, lives, outside, shared}
    assert {orphan.tree for orphan in prune_orphans(found, clock=tomorrow)} == {gone, outside}
    assert kept(repo) == {lives, shared}
    assert prune_orphans(found, clock=tomorrow) == []
    assert repo.state() == before
    notes = found.common_dir / "mtf" / "folders"
    assert {path.name for path in notes.iterdir()} == {lives, shared}


def test_what_cannot_be_seen_is_not_gone(repo, found, submit, tmp_path, monkeypatch) -> None:
    disk = tmp_path / "disk"
    tree = submit(disk / "experiments", "1")
    disk.rename(tmp_path / "unmounted")
    assert find_orphans(found, clock=tomorrow) == []
    (disk / "experiments").mkdir(parents=True)
    assert [orphan.tree for orphan in find_orphans(found, clock=tomorrow)] == [tree]
    monkeypatch.setattr(users, "host_name", lambda: "another-host")  # whose disk of that name is another one
    assert has_users(found, tree)


def test_a_snapshot_that_nobody_noted_goes_when_it_is_old(repo, found) -> None:
    """Its launcher was killed, or took it for no sweep."""
    tree = take_snapshot(found).tree
    assert find_orphans(found) == []
    assert [(orphan.tree, orphan.folders) for orphan in find_orphans(found, clock=tomorrow)] == [(tree, ())]


def test_a_submission_meanwhile_saves_its_snapshot(repo, found, submit, in_background, wait_until) -> None:
    """Pruning decides while nobody can take a snapshot, and one that was taken again is fresh."""
    folder = repo.path / "experiments" / "sweep"
    tree = submit(folder, "1")
    old = repo.git("commit-tree", tree, "-m", "old")
    repo.git("update-ref", f"{PRIVATE}{tree}", old)
    shutil.rmtree(folder)
    with exclusive(lock_of(found)):
        pruning = in_background(lambda: prune_orphans(found, clock=lambda: time.time() + users.FRESH_S - 60))
        take_snapshot(found)  # the lock is this thread's: it goes on at once
    assert pruning.result() == []
    assert kept(repo) == {tree}


def test_linked_working_trees_share_snapshots_and_the_lock(repo, found, submit, tmp_path) -> None:
    repo.git("worktree", "add", "--quiet", tmp_path / "linked")
    linked = Repository.find(tmp_path / "linked")
    assert linked.git_dir != found.git_dir
    assert lock_of(linked) == lock_of(found)
    tree = submit(repo.path / "experiments" / "sweep", "1")
    assert tree in [item.tree for item in kept_snapshots(linked)]
    assert find_orphans(linked, clock=tomorrow) == []


def test_cleaning_a_sweep_leaves_what_another_one_needs(repo, submit, tmp_path) -> None:
    first, second = repo.path / "experiments", tmp_path / "elsewhere"
    shared = submit(first, "1")
    assert submit(second, "1") == shared
    submit(first, "2")  # its only run never began, and has the new code from now on
    assert clean(first / "single").snapshots == ()
    assert shared in kept(repo)
    submit(second, "3")
    assert clean(second / "single").snapshots == (shared,)
    assert shared not in kept(repo)


def test_snapshots_of_submodules_stay_as_long_as_that_of_the_whole(repo, found, submit, tmp_path, make_repository):
    library = make_repository(tmp_path / "library")
    library.write("a.py", "1")
    library.commit()
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library.path, "library")
    repo.write("library/a.py", "edited")
    outer = submit(repo.path / "experiments" / "sweep", "1")
    module = Repository.find(repo.path / "library")
    (inner,) = kept_snapshots(module)
    assert find_orphans(module, clock=tomorrow) == []  # asked in the submodule itself
    assert find_orphans(found, clock=tomorrow) == []
    shutil.rmtree(repo.path / "experiments" / "sweep")
    assert [(o.root, o.tree) for o in prune_orphans(found, clock=tomorrow)] == [
        (found.root, outer),
        (module.root, inner.tree),
    ]
    assert kept_snapshots(module) == kept_snapshots(found) == []


def test_a_note_that_cannot_be_read_is_no_licence(repo, found, submit) -> None:
    tree = submit(repo.path / "experiments" / "sweep", "1")
    shutil.rmtree(repo.path / "experiments" / "sweep")
    (note,) = (found.common_dir / "mtf" / "folders" / tree).iterdir()
    note.write_text("{")
    with pytest.raises(GitOperationError, match="cannot be read"):
        prune_orphans(found, clock=tomorrow)
    assert kept(repo) == {tree}


def test_any_folder_can_be_noted(found, tmp_path) -> None:
    tree = take_snapshot(found).tree
    strange = tmp_path / "a\nb\udcff\"'"
    note_user(found, tree, strange)
    assert find_orphans(found, clock=tomorrow)[0].folders == (strange,)


def test_the_verb(repo, submit, capsys) -> None:
    parser = argparse.ArgumentParser()
    CLEAN.configure(parser)

    def mtf(*words: str | Path) -> str:
        assert CLEAN.run(parser.parse_args([*map(str, words)])) == 0
        return str(capsys.readouterr().out)

    folder = repo.path / "experiments" / "sweep"
    tree = submit(folder, "1")
    shutil.rmtree(folder)
    assert mtf(repo.path, "--snapshots") == "nothing to remove\n"
    repo.git("update-ref", f"{PRIVATE}{tree}", old_commit(repo, tree))
    shown = mtf(repo.path, "--snapshots")
    assert f"{tree}  2001-09-09T01:46:40Z  (gone: {folder / 'single'})" in shown
    assert "nothing was removed, --apply does it" in shown
    assert kept(repo) == {tree}
    data = json.loads(mtf(repo.path / "experiments", "--snapshots", "--apply", "--json"))["data"]
    assert data["removed"] is True
    assert [(item["tree"], item["folders"]) for item in data["snapshots"]] == [(tree, [str(folder / "single")])]
    assert kept(repo) == set()
    with pytest.raises(CommandError, match="no git repository"):
        mtf(repo.path.parent, "--snapshots")


def old_commit(repo: Any, tree: str) -> str:
    """A commit of the tree, of the year 2001."""
    when = "A <a@example.org> 1000000000 +0000"
    file: Path = repo.path.parent / "commit"
    file.write_text(f"tree {tree}\nauthor {when}\ncommitter {when}\n\nold\n")
    return str(repo.git("hash-object", "-t", "commit", "-w", file))
