"""Snapshots of real repositories, the copies made of them, and that the user's own state stays as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtf_slurm import GitOperationError
from mtf_slurm.code.checkout import UNPUBLISHED, check_out, differences
from mtf_slurm.code.contents import Limits, NewFile, choose, readable_size
from mtf_slurm.code.references import PRIVATE, prune_snapshots
from mtf_slurm.code.repository import Repository
from mtf_slurm.code.snapshots import take_snapshot


@pytest.fixture
def repo(tmp_path: Path, make_repository: Callable[[Path], Any]) -> Any:
    repo = make_repository(tmp_path / "repo")
    repo.write("train.py", "one")
    repo.write("pkg/mod.py", "one")
    repo.write(".gitignore", "ignored/\n*.ckpt\n")
    repo.write("run.sh", "#!/bin/sh\n").chmod(0o755)
    (repo.path / "link").symlink_to("pkg/mod.py")
    repo.commit()
    return repo


@pytest.fixture
def found(repo: Any) -> Repository:
    return Repository.find(repo.path)


def copy_of(found: Repository, parent: Path) -> Path:
    return check_out(take_snapshot(found), parent)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def test_the_working_tree_as_it_is(repo, found, tmp_path) -> None:
    repo.write("train.py", "staged")
    repo.git("add", "train.py")
    repo.write("train.py", "edited")
    repo.write("new/file.py", "new")
    repo.write("ignored/data", "x")
    repo.write("a.ckpt", "x")
    (repo.path / "pkg/mod.py").unlink()
    repo.git("rm", "--quiet", "--cached", "run.sh")
    copy = copy_of(found, tmp_path / "code")
    assert files_in(copy) == {"train.py", "new/file.py", ".gitignore", "run.sh", "link"}
    assert (copy / "train.py").read_text() == "edited"
    assert os.access(copy / "run.sh", os.X_OK)
    assert not os.access(copy / "train.py", os.X_OK)
    assert os.fspath((copy / "link").readlink()) == "pkg/mod.py"


def test_nothing_of_the_user_changes(repo, found, tmp_path) -> None:
    repo.write("stashed.txt", "x")
    repo.git("stash", "--include-untracked", "--quiet")
    repo.write("train.py", "staged")
    repo.git("add", "train.py")
    repo.write("train.py", "edited")
    repo.write("new.py", "new")
    repo.write("intended.py", "new")
    repo.git("add", "--intent-to-add", "intended.py")
    before = repo.state()
    snapshot = take_snapshot(found)
    check_out(snapshot, tmp_path / "code")
    check_out(snapshot, tmp_path / "code")
    prune_snapshots(found, lambda kept: True)
    assert repo.state() == before
    assert repo.git("for-each-ref", "--format=%(refname)", "refs/mtf") == f"{PRIVATE}{snapshot.tree}"
    assert {"new.py", "intended.py"} <= files_in(tmp_path / "code" / snapshot.tree)


def test_equal_content_has_one_hash_and_one_reference(repo, found) -> None:
    first = take_snapshot(found)
    assert first.tree == repo.git("rev-parse", "HEAD^{tree}")
    repo.git("commit", "--quiet", "--allow-empty", "-m", "empty")
    assert take_snapshot(found).tree == first.tree
    repo.write("train.py", "two")
    assert take_snapshot(found).tree != first.tree
    assert len(repo.git("for-each-ref", "refs/mtf").splitlines()) == 2


def test_files_that_git_was_told_not_to_look_at(repo, found, tmp_path) -> None:
    repo.git("update-index", "--assume-unchanged", "train.py")
    repo.git("update-index", "--skip-worktree", "pkg/mod.py")
    repo.write("train.py", "edited")
    repo.write("pkg/mod.py", "edited")
    copy = copy_of(found, tmp_path)
    assert [(copy / name).read_text() for name in ("train.py", "pkg/mod.py")] == ["edited", "edited"]


def test_an_edit_as_young_as_the_index_is_seen(repo, found, tmp_path) -> None:
    repo.git("config", "core.trustctime", "false")
    moment = (10**18, 10**18)
    os.utime(repo.write("train.py", "old"), ns=moment)
    repo.git("add", "train.py")
    os.utime(repo.write("train.py", "new"), ns=moment)  # of the same size
    os.utime(repo.path / ".git" / "index", ns=moment)
    assert (copy_of(found, tmp_path) / "train.py").read_text() == "new"


def test_survives_branch_deletion_and_garbage_collection(repo, found, tmp_path) -> None:
    repo.git("checkout", "--quiet", "-b", "exp")
    repo.write("train.py", "committed on exp")
    repo.commit()
    repo.write("train.py", "never committed")
    snapshot = take_snapshot(found)
    repo.git("checkout", "--quiet", "--force", "main")
    repo.git("branch", "--quiet", "-D", "exp")
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--quiet", "--prune=now")
    assert (check_out(snapshot, tmp_path) / "train.py").read_text() == "never committed"
    assert [kept.tree for kept in prune_snapshots(found, lambda kept: kept.tree != snapshot.tree)] == [snapshot.tree]
    repo.git("gc", "--quiet", "--prune=now")
    with pytest.raises(subprocess.CalledProcessError):
        repo.git("cat-file", "-e", snapshot.tree)


def test_a_copy_that_was_changed_is_refused_and_named(found, tmp_path) -> None:
    snapshot = take_snapshot(found)
    copy = check_out(snapshot, tmp_path)
    (copy / "pkg" / "__pycache__").mkdir()
    assert check_out(snapshot, tmp_path) == copy
    (copy / "train.py").write_text("two")
    (copy / "run.sh").chmod(0o644)
    (copy / "link").unlink()
    assert differences(snapshot, copy) == ["link", "run.sh", "train.py"]
    with pytest.raises(GitOperationError, match=r"no longer what was submitted: 'link', 'run\.sh', 'train\.py'"):
        check_out(snapshot, tmp_path)
    shutil.rmtree(copy)
    assert differences(snapshot, check_out(snapshot, tmp_path)) == []


def test_a_copy_is_whole_or_not_there(repo, found, tmp_path) -> None:
    snapshot = take_snapshot(found)
    blob = repo.git("rev-parse", "HEAD:train.py")
    (repo.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(GitOperationError, match="git read-tree"):
        check_out(snapshot, tmp_path / "code")
    assert list((tmp_path / "code").iterdir()) == []


def test_processes_that_copy_at_once_agree(found, tmp_path) -> None:
    for number in range(200):
        (found.root / f"file-{number}").write_text("x" * number)
    code = (
        "from pathlib import Path\nfrom mtf_slurm.code.repository import Repository\n"
        "from mtf_slurm.code.snapshots import take_snapshot\nfrom mtf_slurm.code.checkout import check_out\n"
        f"print(check_out(take_snapshot(Repository.find(Path({str(found.root)!r}))), Path({str(tmp_path / 'code')!r})))"
    )
    words = [sys.executable, "-c", code]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, answers
    assert len({out for out, _ in answers}) == 1
    assert [path.name for path in (tmp_path / "code").iterdir()] == [Path(answers[0][0].strip()).name]
    assert not [path for path in (tmp_path / "code").iterdir() if path.name.startswith(UNPUBLISHED)]


def test_submodules_as_they_are(repo, found, tmp_path, make_repository) -> None:
    origin = make_repository(tmp_path / "origin")
    origin.write("lib.py", "one")
    origin.commit()
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(origin.path), "sub")
    repo.commit()
    clean = take_snapshot(found)
    assert clean.tree == repo.git("rev-parse", "HEAD^{tree}")
    assert (check_out(clean, tmp_path / "code") / "sub" / "lib.py").read_text() == "one"
    repo.write("sub/lib.py", "edited")
    repo.write("sub/new.py", "new")
    before = {name: (repo.path / ".git/modules/sub" / name).read_bytes() for name in ("HEAD", "index")}
    snapshot = take_snapshot(found)
    assert snapshot.tree != clean.tree
    assert take_snapshot(found).tree == snapshot.tree
    copy = check_out(snapshot, tmp_path / "code")
    assert ((copy / "sub/lib.py").read_text(), (copy / "sub/new.py").read_text()) == ("edited", "new")
    assert {name: (repo.path / ".git/modules/sub" / name).read_bytes() for name in before} == before
    (copy / "sub/lib.py").write_text("broken")
    assert differences(snapshot, copy) == ["sub/lib.py"]


def test_what_is_too_large_is_left_out_and_named(repo, found) -> None:
    repo.write("big.bin", "x" * 3000)
    repo.write("small.bin", "x" * 10)
    snapshot = take_snapshot(found, limits=Limits(file_bytes=1000))
    assert "big.bin" not in repo.git("ls-tree", "-r", "--name-only", snapshot.tree)
    assert "small.bin" in repo.git("ls-tree", "-r", "--name-only", snapshot.tree)
    assert any("'big.bin' (2.9 KiB)" in line and "slurm.link" in line for line in snapshot.warnings)
    with pytest.raises(GitOperationError, match="neither tracked nor ignored"):
        take_snapshot(found, limits=Limits(count=1))


@given(sizes=st.lists(st.integers(0, 100), max_size=20), one=st.integers(0, 100), total=st.integers(0, 300))
def test_what_is_taken_keeps_the_limits_and_leaves_out_no_more(sizes: list[int], one: int, total: int) -> None:
    files = [NewFile(f"f{number}", size) for number, size in enumerate(sizes)]
    taken, warnings = choose(files, Limits(file_bytes=one, total_bytes=total))
    left = [file for file in files if file not in taken]
    assert all(file.size <= one for file in taken)
    assert sum(file.size for file in taken) <= total
    assert bool(warnings) == bool(left)
    fits = [file for file in left if file.size <= one]
    if fits:
        assert sum(file.size for file in taken) + min(file.size for file in fits) > total


def test_a_repository_inside_is_left_out_and_named(repo, found, make_repository) -> None:
    inner = make_repository(repo.path / "vendored")
    inner.write("x.py", "x")
    inner.commit()
    snapshot = take_snapshot(found)
    assert "vendored" not in repo.git("ls-tree", "--name-only", snapshot.tree)
    assert any("'vendored/'" in line and "submodules" in line for line in snapshot.warnings)


def test_new_files_whose_names_git_refuses_are_named(repo, found, tmp_path) -> None:
    repo.write("git~1", "x")
    repo.write("data/.GIT/x", "x")
    repo.write("a\nb", "x")
    snapshot = take_snapshot(found)
    (warning,) = snapshot.warnings
    assert "takes no files of such names: 'data/.GIT/x', 'git~1'; rename them" in warning
    copied = files_in(check_out(snapshot, tmp_path / "code"))
    assert "a\nb" in copied
    assert not {"git~1", "data/.GIT/x"} & copied


def test_pointers_of_lfs_are_told(repo, found) -> None:
    repo.write(".gitattributes", "*.bin filter=lfs\n")
    repo.write("model.bin", f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")
    repo.write("real.bin", "content")
    (warning,) = take_snapshot(found).warnings
    assert "model.bin" in warning
    assert "real.bin" not in warning
    assert "git lfs pull" in warning


def test_links_that_lead_out_are_named_and_not_followed(repo, found, tmp_path) -> None:
    (tmp_path / "outside").write_text("theirs")
    (repo.path / "absolute").symlink_to(repo.path / "train.py")
    (repo.path / "pkg" / "up").symlink_to("../../outside")
    (repo.path / "pkg" / "fine").symlink_to("../train.py")
    (repo.path / "winding").symlink_to("pkg/../pkg/mod.py")
    snapshot = take_snapshot(found)
    (warning,) = snapshot.warnings
    assert "symbolic links lead out of the snapshot ('absolute', 'pkg/up')" in warning
    copy = check_out(snapshot, tmp_path / "code")
    assert os.fspath((copy / "pkg" / "up").readlink()) == "../../outside"
    assert (copy / "pkg" / "fine").read_text() == "one"
    assert (tmp_path / "outside").read_text() == "theirs"


@pytest.mark.parametrize("configured", [False, True])
def test_no_hook_of_the_user_is_run(repo, found, tmp_path, configured: bool) -> None:
    hooks = repo.path / ".git" / "hooks"
    if configured:
        hooks = tmp_path / "hooks"
        repo.git("config", "core.hooksPath", str(hooks))
    hooks.mkdir(exist_ok=True)
    repo.git("config", "core.fsmonitor", str(hooks / "fsmonitor"))
    for name in (
        "fsmonitor",
        "post-index-change",
        "reference-transaction",
        "post-checkout",
        "pre-commit",
        "post-commit",
    ):
        (hooks / name).write_text(f'#!/bin/sh\necho "$0" >>{tmp_path}/ran\nexit 1\n')
        (hooks / name).chmod(0o755)
    repo.write("train.py", "two")
    repo.write("new.py", "new")
    copy = check_out(take_snapshot(found), tmp_path / "code")
    assert (copy / "new.py").read_text() == "new"
    assert len(prune_snapshots(found, lambda kept: False)) == 1
    assert not (tmp_path / "ran").exists()


LINE_ENDS = {
    "core.autocrlf": ("true", "", b"#!/bin/sh\ntrue\n"),
    "core.eol": ("crlf", "* text=auto\n", b"#!/bin/sh\ntrue\n"),
}


@pytest.mark.parametrize("setting", LINE_ENDS)
def test_no_setting_of_the_user_puts_carriage_returns_into_the_copy(repo, found, tmp_path, setting: str) -> None:
    value, attributes, content = LINE_ENDS[setting]
    repo.git("config", setting, value)
    repo.write(".gitattributes", attributes)
    (repo.path / "job.sh").write_bytes(content)
    snapshot = take_snapshot(found)
    copy = check_out(snapshot, tmp_path / "code")
    assert (copy / "job.sh").read_bytes() == content
    assert differences(snapshot, copy) == []


# what git stored as it was, before an attribute said that it stores it otherwise: attributes, a filter, the content
STORED_OTHERWISE = {
    "line ends": ("*.txt text\n", None, b"one\r\ntwo\r\n"),
    "no pointer of LFS": ("*.txt filter=other\n", "tr a-z A-Z", b"content\n"),
    "a keyword": ("*.txt ident\n", None, b"$Id: abc $\n"),
}


@pytest.mark.parametrize("kind", STORED_OTHERWISE)
def test_what_git_stored_before_an_attribute_spoke_of_it_is_no_change(repo, found, tmp_path, kind: str) -> None:
    attributes, clean, content = STORED_OTHERWISE[kind]
    old = repo.write("old.txt", "")
    old.write_bytes(content)
    os.utime(old, (1_000_000_000, 1_000_000_000))  # git need not look at it again
    repo.commit()
    repo.git("config", "filter.other.smudge", "cat")
    repo.git("config", "filter.other.clean", clean or "cat")
    repo.write(".gitattributes", attributes)
    snapshot = take_snapshot(found)
    copy = check_out(snapshot, tmp_path / "code")
    assert check_out(snapshot, tmp_path / "code") == copy
    assert differences(snapshot, copy) == []
    (copy / "old.txt").write_bytes(content + b"more\n")
    assert differences(snapshot, copy) == ["old.txt"]
    (copy / "old.txt").unlink()
    assert differences(snapshot, copy) == ["old.txt"]
    (copy / "old.txt").symlink_to("train.py")
    with pytest.raises(GitOperationError, match=r"no longer what was submitted: 'old\.txt'"):
        check_out(snapshot, tmp_path / "code")


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="needs git-lfs")
def test_what_lfs_has_is_in_the_copy_and_nothing_is_downloaded(repo, found, tmp_path) -> None:
    repo.git("lfs", "install", "--local")
    repo.git("remote", "add", "origin", "http://127.0.0.1:9/nobody-answers.git")
    repo.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    repo.write("here.bin", "content")
    repo.write("missing.bin", "elsewhere")
    repo.commit()
    pointer = repo.git("show", "HEAD:missing.bin") + "\n"
    repo.write("missing.bin", pointer)
    (stored,) = (repo.path / ".git" / "lfs" / "objects").rglob(pointer.partition("sha256:")[2].split()[0])
    stored.unlink()
    repo.git("add", "missing.bin")
    snapshot = take_snapshot(found)
    copy = check_out(snapshot, tmp_path / "code")
    assert (copy / "here.bin").read_text() == "content"
    assert (copy / "missing.bin").read_text() == pointer
    assert differences(snapshot, copy) == []
    assert any("'missing.bin'" in line and "git lfs pull" in line for line in snapshot.warnings)


def test_odd_names_are_data(repo, found, tmp_path) -> None:
    names = ["a b", "-rf", "--all", "$(touch hacked)", "; touch hacked", "'q'", '"q"', "new\nline", "ü", "*", ":(top)"]
    for name in names:
        repo.write(name, name)
    (repo.path / os.fsdecode(b"\xff\xfe")).write_text("not text")
    copy = copy_of(found, tmp_path / "code '$(touch hacked)' \n;")
    for name in [*names, os.fsdecode(b"\xff\xfe")]:
        assert (copy / name).exists()
    assert not any(path.name == "hacked" for path in tmp_path.rglob("hacked"))


_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0/")
_NAMES = st.text(_CHARACTERS, min_size=1, max_size=12).filter(
    lambda name: name.strip(". ") and ".git" not in name.lower()
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(_NAMES, st.binary(max_size=50)))
def test_any_files_come_out_as_they_went_in(tmp_path_factory, make_repository, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("any")
    repo = make_repository(folder / "repo")
    for name, content in files.items():
        (repo.path / name).write_bytes(content)
    snapshot = take_snapshot(Repository.find(repo.path))
    copy = check_out(snapshot, folder / "code")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == files
    assert (snapshot.files, snapshot.size) == (len(files), sum(map(len, files.values())))


def test_the_files_of_sweeps_are_no_code(repo, found, launcher_in) -> None:
    tree = take_snapshot(found).tree
    launcher_in(repo.path)
    assert (repo.path / "experiments" / "single" / "sweep.json").exists()
    repo.write("experiments/single/code/abc/train.py", "x")
    assert take_snapshot(found).tree == tree


@pytest.fixture
def launcher_in(make_config: Any, display: Any) -> Callable[[Path], None]:
    from mtf_config import ExecutionMode
    from mtf_slurm import SLURMLauncher

    def plan(root: Path) -> None:
        launcher = SLURMLauncher(None, root / "experiments", project_root=root, display=display)
        launcher.submit_experiment(make_config(), ExecutionMode.DRY_RUN)

    return plan


def test_a_linked_working_tree_and_a_repository_without_commits(repo, tmp_path, make_repository) -> None:
    repo.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "-b", "other")
    (tmp_path / "linked" / "train.py").write_text("linked")
    copy = copy_of(Repository.find(tmp_path / "linked" / "pkg"), tmp_path / "code")
    assert (copy / "train.py").read_text() == "linked"
    fresh = make_repository(tmp_path / "fresh")
    fresh.write("a.py", "a")
    assert files_in(copy_of(Repository.find(fresh.path), tmp_path / "code")) == {"a.py"}


def test_what_is_too_large_in_a_submodule_is_left_out_and_named(repo, found, tmp_path, make_repository) -> None:
    origin = make_repository(tmp_path / "origin")
    origin.write("lib.py", "one")
    origin.write(".gitattributes", "*.bin filter=lfs\n")
    origin.write("model.bin", f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")
    origin.commit()
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(origin.path), "sub")
    repo.commit()
    repo.write("sub/big.bin.part", "x" * 3000)
    snapshot = take_snapshot(found, limits=Limits(file_bytes=1000))
    assert any(
        line.startswith("submodule 'sub': ") and "'big.bin.part' (2.9 KiB)" in line for line in snapshot.warnings
    )
    assert any(line.startswith("submodule 'sub': 1 file is a pointer of Git LFS") for line in snapshot.warnings)
    copy = check_out(snapshot, tmp_path / "code")
    assert not (copy / "sub" / "big.bin.part").exists()


def test_sizes_for_people() -> None:
    assert [readable_size(n) for n in (0, 1023, 1024, 1536, 5 * 2**30, 2**50)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB", "1024.0 TiB",
    ]  # fmt: skip
