"""Jobs run the code that was submitted, whatever becomes of the checkout meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from mtf_config import ExecutionMode
from mtf_slurm import GitManager, GitOperationError, JobSubmissionError, SLURMLauncher
from mtf_slurm.code.editable import Editable, editable_folders, editables
from mtf_slurm.code.isolation import code_file_of, describe_code, take_code
from mtf_slurm.code.links import check_links, link_inputs
from mtf_slurm.code.provenance import MAX_DIFF_BYTES, without_credentials
from mtf_slurm.code.record import CodeFile, workplace
from mtf_utils.rundir import RunDirectory, SweepDirectory

LOCAL, DRY_RUN = ExecutionMode.LOCAL, ExecutionMode.DRY_RUN

# says what it runs, and the first of a sweep waits until it is told to go on
TRAIN = """
import json, os, sys, time
from pathlib import Path
import helper
config = json.loads(Path(sys.argv[2]).read_text())["custom_params"]
run = Path(os.environ["MTF_RUN_DIR"])
(run.parent.parent / "started").touch()
while "gate" in config and not Path(config["gate"]).exists():
    time.sleep(0.005)
import late
seen = {"train": "TRAIN", "helper": helper.VERSION, "late": late.VERSION, "cwd": os.getcwd(),
        "root": os.environ["MTF_PROJECT_ROOT"], "path": os.environ["PYTHONPATH"].split(":")}
if Path("data").exists():
    seen["data"] = Path("data/values").read_text()
(run / "seen.json").write_text(json.dumps(seen))
sys.exit(config.get("exit", 0))
"""


@pytest.fixture
def repo(tmp_path: Path, make_repository: Callable[[Path], Any]) -> Any:
    repo = make_repository(tmp_path / "repo")
    write_version(repo, "one")
    repo.write(".gitignore", "data\n")
    repo.commit()
    return repo


def write_version(repo: Any, version: str, place: str = "") -> None:
    repo.write(f"{place}train.py", TRAIN.replace("TRAIN", version))
    for name in ("helper", "late"):
        repo.write(f"{place}src/{name}.py", f"VERSION = {version!r}\n")


@pytest.fixture
def launcher(repo: Any, display: Any) -> SLURMLauncher:
    return SLURMLauncher(None, repo.path / "experiments", project_root=repo.path, display=display)


def seen_by(run: RunDirectory) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads((run.path / "seen.json").read_text())
    return seen


def versions(folder: Path) -> list[set[str]]:
    return [{seen_by(run)[key] for key in ("train", "helper", "late")} for run in SweepDirectory(folder).runs()]


def test_waiting_runs_keep_their_code_whatever_happens_to_the_checkout(
    repo, launcher, make_search, in_background, wait_until, tmp_path
) -> None:
    repo.git("checkout", "--quiet", "-b", "exp")
    write_version(repo, "on exp")
    repo.commit()
    write_version(repo, "uncommitted")
    before = repo.state()
    folder = repo.path / "experiments" / "sweep"
    search = make_search({"custom_params.x": [1.0, 2.0, 3.0, 4.0]}, gate=str(tmp_path / "gate"))
    sweep = in_background(lambda: launcher.submit_sweep(search, folder, LOCAL, 1))
    wait_until((folder / "started").exists, "the first run")
    assert repo.state() == before
    repo.git("checkout", "--quiet", "--force", "main")
    repo.git("branch", "--quiet", "-D", "exp")
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--quiet", "--prune=now")
    write_version(repo, "edited since")
    (tmp_path / "gate").touch()
    assert sweep.result().is_complete
    assert versions(folder) == [{"uncommitted"}] * 4
    tree = SweepDirectory(folder).sweep().code["tree"]
    copy = folder / "code" / tree
    seen = seen_by(SweepDirectory(folder).runs()[0])
    assert (seen["cwd"], seen["root"], seen["path"][:2]) == (str(copy), str(copy), [str(copy), str(copy / "src")])


def test_what_is_recorded(repo, launcher, make_config) -> None:
    repo.git("remote", "add", "origin", "https://me:secret-token@example.org/x.git")
    write_version(repo, "two")
    launcher.submit_experiment(make_config("a"), DRY_RUN)
    folder = repo.path / "experiments" / "single"
    run = SweepDirectory(folder).run("a")
    code = code_file_of(run)
    assert (code.isolated, code.branch, code.dirty) == (True, "main", True)
    assert (code.commit, code.remote) == (repo.git("rev-parse", "HEAD"), "https://example.org/x.git")
    assert SweepDirectory(folder).sweep().code == code.to_dict()
    diff = (run.path / "code.diff").read_text()
    assert "-VERSION = 'one'" in diff
    assert "+VERSION = 'two'" in diff
    assert not [p for p in folder.rglob("*") if p.is_file() and b"secret-token" in p.read_bytes()]
    repo.git("checkout", "--quiet", "--", ".")
    launcher.submit_experiment(make_config("a"), DRY_RUN)
    assert code_file_of(run).dirty is False
    assert not (run.path / "code.diff").exists()


def test_a_submission_after_an_edit_runs_the_new_code_and_keeps_the_old_copy(repo, launcher, make_config) -> None:
    for version in ("one", "two"):
        write_version(repo, version)
        launcher.submit_experiment(make_config(version), LOCAL)
    folder = repo.path / "experiments" / "single"
    assert sorted(versions(folder), key=str) == [{"one"}, {"two"}]
    assert len(list((folder / "code").iterdir())) == 2


def test_only_what_never_began_or_failed_gets_the_new_code(repo, launcher, make_search, in_background) -> None:
    folder = repo.path / "experiments" / "sweep"

    def trees() -> dict[str, str]:
        return {run.name: code_file_of(run).tree for run in SweepDirectory(folder).runs()}

    limit = {"preemption": {"max_preemptions": 0}}  # else it would be repeated until it had come to nothing
    launcher.submit_sweep(make_search({"custom_params.exit": [0, 1, 75]}, **limit), folder, LOCAL)
    before = trees()
    scripts = {run.name: run.job_script.read_bytes() for run in SweepDirectory(folder).runs()}
    write_version(repo, "two")
    launcher.submit_sweep(make_search({"custom_params.exit": [0, 1, 75, 76]}, **limit), folder, DRY_RUN)
    after = trees()
    new = SweepDirectory(folder).sweep().code["tree"]
    assert {name: tree == new for name, tree in after.items()} == {
        "tiny-exit=0": False, "tiny-exit=1": True, "tiny-exit=75": False, "tiny-exit=76": True,
    }  # fmt: skip
    for name in ("tiny-exit=0", "tiny-exit=75"):
        assert after[name] == before[name]
        assert SweepDirectory(folder).run(name).job_script.read_bytes() == scripts[name]


def test_a_project_below_the_root_of_its_repository(repo, make_config, display) -> None:
    project = repo.path / "projects" / "mine"
    write_version(repo, "below", "projects/mine/")
    launcher = SLURMLauncher(None, project / "experiments", project_root=project, display=display)
    launcher.submit_experiment(make_config("a"), LOCAL)
    seen = seen_by(SweepDirectory(project / "experiments" / "single").run("a"))
    assert seen["helper"] == "below"
    assert seen["cwd"].endswith("/projects/mine")
    assert f"/code/{SweepDirectory(project / 'experiments' / 'single').sweep().code['tree']}/" in seen["cwd"]


def test_a_sweep_that_was_moved_runs_its_own_copy(repo, launcher, make_config, tmp_path) -> None:
    launcher.submit_experiment(make_config("a"), DRY_RUN)
    moved = tmp_path / "mo'v\"ed $(touch hacked)"
    shutil.move(repo.path / "experiments" / "single", moved)
    subprocess.run(["bash", moved / "runs" / "a" / "job.sh"], check=True, timeout=60, cwd=tmp_path)
    assert seen_by(SweepDirectory(moved).run("a"))["cwd"].startswith(str(moved / "code"))
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("place", [Path(), Path("deep/down")])
def test_git_does_not_take_another_repository_for_that_of_the_copy(
    repo, make_config, display, tmp_path, monkeypatch, place: Path
) -> None:
    """The copy is no repository; the folder of the sweep may lie in one, of papers, say."""
    project = repo.path / place
    project.mkdir(parents=True, exist_ok=True)
    (project / "train.sh").write_text("git rev-parse --show-toplevel HEAD && exit 9; exit 0")
    repo.commit()
    monkeypatch.setenv("GIT_DIR", str(repo.path / ".git"))  # as under a hook
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path / "elsewhere"))
    launcher = SLURMLauncher(
        None, project / "experiments", project_root=project, display=display, command=["bash", "train.sh"]
    )
    launcher.submit_experiment(make_config("a"), LOCAL)
    run = SweepDirectory(project / "experiments" / "single").run("a")
    assert run.attempt(1).finished().outcome == "finished", run.log_file(1).read_text()
    assert "not a git repository" in run.log_file(1).read_text()


def test_without_a_repository_runs_work_in_place(tmp_path, project, make_config, display) -> None:
    launcher = SLURMLauncher(None, tmp_path / "out", project_root=project, display=display)
    launcher.submit_experiment(make_config("a"), DRY_RUN)
    code = SweepDirectory(tmp_path / "out" / "single").sweep().code
    assert (code["isolated"], code["tree"]) == (False, None)
    assert "no git repository" in code["reason"]
    assert not (tmp_path / "out" / "single" / "code").exists()


def test_a_project_that_git_ignores_runs_in_place(repo, make_config, display, caplog) -> None:
    repo.write("data/train.py", TRAIN)
    code = take_code(repo.path / "data")
    assert code.record.isolated is False
    assert "ignores all of it" in code.record.reason
    assert "not in a snapshot" in caplog.text


def test_a_repository_that_git_does_not_trust_is_no_reason_to_run_anything_else(repo, monkeypatch) -> None:
    (repo.path / ".git" / "config").write_text("[core\n")
    with pytest.raises(GitOperationError, match="bad config"):
        take_code(repo.path)


def test_a_plan_writes_nothing_into_the_repository(repo, launcher, make_search) -> None:
    before = {path: path.read_bytes() for path in (repo.path / ".git").rglob("*") if path.is_file()}
    plan = launcher.plan_sweep(make_search({}), repo.path / "experiments" / "sweep")
    assert plan.sweep.code["commit"] == repo.git("rev-parse", "HEAD")
    assert {path: path.read_bytes() for path in (repo.path / ".git").rglob("*") if path.is_file()} == before
    assert not (repo.path / "experiments").exists()


def test_ignored_inputs_are_linked(repo, launcher, make_config) -> None:
    repo.write("data/values", "inputs")
    launcher.submit_experiment(make_config("a", slurm={"link": ["data"]}), LOCAL)
    run = SweepDirectory(repo.path / "experiments" / "single").run("a")
    assert seen_by(run)["data"] == "inputs"
    launcher.submit_experiment(make_config("b", slurm={"link": ["data"]}), DRY_RUN)


def test_links_that_are_missing_or_lead_out_are_all_named(repo, tmp_path) -> None:
    (tmp_path / "elsewhere" / "inside").mkdir(parents=True)
    (repo.path / "out").symlink_to(tmp_path / "elsewhere")
    (repo.path / "dead").symlink_to(tmp_path / "nowhere")
    bad = ["missing", "also $(missing)", "../repo", "/etc", "out/inside", "dead", ".", "a/../../x", "nul\0"]
    with pytest.raises(JobSubmissionError) as caught:
        check_links(repo.path, [*bad, "out", "src"])
    assert all(repr(name) in str(caught.value) for name in bad)
    assert "'out' " not in str(caught.value)
    assert "'src'" not in str(caught.value)


def test_a_missing_input_keeps_everything_from_starting(repo, launcher, make_config) -> None:
    with pytest.raises(JobSubmissionError, match="'data' does not exist"):
        launcher.submit_experiment(make_config("a", slurm={"link": ["data"]}), LOCAL)
    assert not (repo.path / "experiments" / "single" / "runs").exists()


def test_a_folder_that_git_has_a_part_of_is_linked_entry_by_entry(tmp_path) -> None:
    project, copy = tmp_path / "project", tmp_path / "copy"
    for path in (project / "data" / "sub" / "big", project / "data" / "top", copy / "data" / "sub" / "README"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    for _ in range(2):
        link_inputs(copy, project, ["data"])
        assert (copy / "data" / "top").readlink() == project / "data" / "top"
        assert (copy / "data" / "sub" / "big").read_text() == "big"
        assert (copy / "data" / "sub" / "README").read_text() == "README"
        assert not (copy / "data" / "sub").is_symlink()
    (copy / "file").write_text("of the snapshot")
    (project / "file").write_text("live")
    with pytest.raises(JobSubmissionError, match="'file' is a part of the snapshot"):
        link_inputs(copy, project, ["file"])


@pytest.mark.parametrize("links", [["data", "data/x", "data/in/y"], ["data/in/y", "data", "data/x"]])
def test_what_lies_in_a_linked_folder_may_be_linked_as_well(tmp_path, links: list[str]) -> None:
    project, copy = tmp_path / "project", tmp_path / "copy"
    for name in ("x", "in/y"):
        (project / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "data" / name).write_text(name)
    copy.mkdir()
    check_links(project, links)
    for _ in range(2):
        link_inputs(copy, project, links)
    assert [(copy / "data" / name).read_text() for name in ("x", "in/y")] == ["x", "in/y"]
    assert not any(path.is_symlink() for path in project.rglob("*"))


def test_where_a_job_works() -> None:
    assert workplace(CodeFile(isolated=False, project_root="/p")) is None
    top = workplace(CodeFile(isolated=True, project_root="/p", tree="abc", python_path=["src", "lib"]))
    assert (top.project_root, top.python_path) == ("code/abc", ("code/abc", "code/abc/src", "code/abc/lib"))
    below = workplace(CodeFile(isolated=True, project_root="/p/q", tree="abc", place="q"))
    assert (below.project_root, below.python_path) == ("code/abc/q", ("code/abc/q", "code/abc/q/src"))


def test_folders_of_editable_installs(tmp_path) -> None:
    root, site = tmp_path / "repo", tmp_path / "site"
    (root / "lib").mkdir(parents=True)
    (root / "py thon").mkdir()
    site.mkdir()
    (site / "a.pth").write_text(f"{root / 'lib'}\nimport os; os.abort()\n{tmp_path / 'other'}\nrelative\n")
    (site / "b.pth").write_bytes(b"\xff\n")
    mapping = {"flat": str(root / "flat" / "flat"), "renamed": str(root / "else" / "where"), "x": "/elsewhere/x"}
    (site / "__editable___flat_1_0_finder.py").write_text(f"MAPPING: dict[str, str] = {mapping!r}\n")
    (site / "__editable___bad_finder.py").write_text("MAPPING = open('x')\n(")
    (site / "__editable___worse_finder.py").write_text("MAPPING = __import__('os').abort()\n")
    (site / "_editable_impl_x.py").write_text(
        "from editables.redirector import RedirectingFinder as F\nF.install()\n"
        f"F.map_module('pkg', {str(root / 'deep' / 'pkg' / '__init__.py')!r})\n"
        f"F.map_module('single', {str(root / 'more' / 'single.py')!r})\n"
    )
    found = editables(root, [site, tmp_path / "missing"], f"{root / 'py thon'}:")
    folders = [PurePosixPath(path) for path in ("py thon", "lib", "flat", "deep", "more")]
    assert editable_folders(found) == folders
    assert Editable(PurePosixPath("else/where"), "renamed") in found


def test_an_editable_install_does_not_bring_the_checkout_back(repo, display, make_config, tmp_path) -> None:
    """The package lies where neither the root nor `src` leads to, and is known to the interpreter by its path."""
    repo.write("python/helper.py", "VERSION = 'snapshot'\n")
    (repo.path / "src" / "helper.py").unlink()
    repo.commit()
    place = tmp_path / "venv"
    venv.create(place, system_site_packages=True, with_pip=False, symlinks=True)
    site = next(place.glob("lib/python*/site-packages"))
    (site / "helper-editable.pth").write_text(f"{repo.path / 'python'}\n")
    inherited = os.pathsep.join(entry for entry in sys.path if entry)
    submit = (
        "import sys; from pathlib import Path; import json; from mtf_slurm import SLURMLauncher;"
        "from mtf_config import ExecutionMode, ExperimentConfig;"
        "root = Path(sys.argv[1]); config = ExperimentConfig.from_dict(json.loads(sys.argv[2]));"
        "launcher = SLURMLauncher(None, root / 'experiments', project_root=root);"
        "launcher.submit_experiment(config, ExecutionMode.DRY_RUN)"
    )
    words = [place / "bin" / "python", "-c", submit, repo.path, json.dumps(make_config("a").to_dict())]
    subprocess.run(words, check=True, timeout=120, env=os.environ | {"PYTHONPATH": inherited})
    repo.write("python/helper.py", "VERSION = 'edited since'\n")
    run = SweepDirectory(repo.path / "experiments" / "single").run("a")
    assert code_file_of(run).python_path == ["python"]
    subprocess.run(["bash", run.job_script], check=True, timeout=60)
    assert seen_by(run)["helper"] == "snapshot"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:token@host.org/a/b.git", "https://host.org/a/b.git"),
        ("https://token@host.org:8443/a?access_token=x#y", "https://host.org:8443/a"),
        ("ssh://git:secret@host.org/a.git", "ssh://git@host.org/a.git"),
        ("git@host.org:a/b.git", "git@host.org:a/b.git"),
        ("/srv/git/a b.git", "/srv/git/a b.git"),
        ("https://user:p@ss%40@host.org/a", "https://host.org/a"),
        ("https://user:token@[host/a", None),
    ],
)
def test_addresses_without_credentials(url: str, shown: str | None) -> None:
    assert without_credentials(url) == shown


def test_what_git_says_is_recorded_whatever_bytes_it_is_of(repo, launcher, make_config) -> None:
    subprocess.run([b"git", b"-C", os.fsencode(repo.path), b"checkout", b"--quiet", b"-b", b"caf\xe9"], check=True)
    repo.git("remote", "add", "origin", "https://me:secret@[no-host/x")
    launcher.submit_experiment(make_config("a"), DRY_RUN)
    code = code_file_of(SweepDirectory(repo.path / "experiments" / "single").run("a"))
    assert (code.branch, code.remote) == ("caf\ufffd", None)


def test_a_huge_diff_is_a_list_of_files(repo) -> None:
    repo.write("huge.txt", "x" * 99 + "\n")
    (repo.path / "huge.txt").write_text(("x" * 99 + "\n") * (MAX_DIFF_BYTES // 100 + 1))
    diff = take_code(repo.path).diff
    assert len(diff) < 10_000
    assert b"huge.txt" in diff


def test_the_manager_names_the_repository(repo, tmp_path) -> None:
    manager = GitManager(repo.path)
    assert describe_code(repo.path / "src", manager).commit == repo.git("rev-parse", "HEAD")
    outside = take_code(tmp_path, manager).record
    assert (outside.isolated, outside.commit) == (False, repo.git("rev-parse", "HEAD"))
