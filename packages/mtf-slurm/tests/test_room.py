"""How much room a sweep takes: the estimate beside what is really written, and what is said when it does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtf_config import ExecutionMode
from mtf_slurm import SLURMLauncher, room
from mtf_slurm.code.contents import measure_tree
from mtf_slurm.code.repository import Repository
from mtf_slurm.code.snapshots import take_snapshot
from mtf_slurm.commands import PLAN
from mtf_slurm.room import Room, Takes
from mtf_utils.cli import main
from mtf_utils.rundir import SweepDirectory

LOCAL, DRY_RUN = ExecutionMode.LOCAL, ExecutionMode.DRY_RUN
BLOCK = 4096


@pytest.fixture
def folder(project: Path) -> Path:
    return project / "experiments" / "sweep"


@pytest.fixture
def repo(project: Path, make_repository: Callable[[Path], Any]) -> Any:
    repo = make_repository(project)
    repo.write(".gitignore", "experiments/\n*.ckpt\n")
    repo.commit()
    return repo


def blocks(path: Path) -> int:
    return -(-path.stat().st_size // BLOCK) * BLOCK


def test_the_tree_is_measured_as_the_snapshot_takes_it(repo, make_repository, tmp_path) -> None:
    repo.write("gone.py", "x" * 1000)
    repo.write("changed.py", "x")
    repo.commit()
    (repo.path / "gone.py").unlink()
    repo.write("changed.py", "x" * 500)
    repo.write("new.py", "x" * 70)
    repo.write("large.ckpt", "x" * 10_000)
    repo.write("experiments/notes.txt", "x" * 10_000)
    (repo.path / "link").symlink_to("large.ckpt")
    found = Repository.find(repo.path)
    before = {path: path.read_bytes() for path in (repo.path / ".git").rglob("*") if path.is_file()}
    measured = measure_tree(found)
    assert {path: path.read_bytes() for path in (repo.path / ".git").rglob("*") if path.is_file()} == before
    snapshot = take_snapshot(found)
    assert measured == (snapshot.files, snapshot.size)


def test_submodules_are_part_of_the_copy(repo, make_repository, tmp_path) -> None:
    library = make_repository(tmp_path / "library")
    library.write("a.py", "x" * 300)
    library.commit()
    before = measure_tree(Repository.find(repo.path))
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library.path, "library")
    files, size = measure_tree(Repository.find(repo.path))
    assert files == before[0] + 2  # and .gitmodules
    assert size == before[1] + 300 + (repo.path / ".gitmodules").stat().st_size


def test_what_is_written_is_what_was_estimated(repo, launcher: SLURMLauncher, make_search, folder) -> None:
    search = make_search({"custom_params.x": [float(x) for x in range(40)]})
    estimate = launcher.plan_sweep(search, folder).estimate
    assert estimate is not None
    launcher.submit_sweep(search, folder, DRY_RUN)
    written = [path for path in (folder / "runs").rglob("*") if path.is_file()]
    folders = [path for path in (folder / "runs").rglob("*") if path.is_dir()]
    assert (estimate.written.files, estimate.written.folders) == (len(written), len(folders))
    assert estimate.runs == 40
    assert estimate.written.size == pytest.approx(sum(map(blocks, written)) + len(folders) * BLOCK, rel=0.02)
    copied = [path for path in (folder / "code").rglob("*") if path.is_file()]
    assert estimate.code is not None
    assert estimate.code.files == len(copied)
    assert sum(path.stat().st_size for path in copied) <= estimate.code.size
    again = launcher.plan_sweep(search, folder).estimate
    assert again is not None
    assert (again.written, again.runs) == (Takes(), 40)


def test_a_finished_run_shows_what_the_others_will_leave(launcher: SLURMLauncher, make_search, folder) -> None:
    unknown = launcher.plan_sweep(make_search({"custom_params.x": [1.0]}), folder).estimate
    assert unknown is not None
    assert (unknown.checkpoints, unknown.measured) == (None, 0)
    launcher.submit_sweep(make_search({"custom_params.x": [1.0]}), folder, LOCAL)
    (run,) = SweepDirectory(folder).runs()
    for number in (1, 2):
        (run.checkpoints_dir / str(number) / "model.safetensors").write_bytes(b"x" * 10_000)
    estimate = launcher.plan_sweep(make_search({"custom_params.x": [1.0, 2.0, 3.0, 4.0]}), folder).estimate
    assert estimate is not None
    assert (estimate.runs, estimate.measured) == (3, 1)
    assert estimate.checkpoints == Takes(files=6, folders=9, size=3 * (2 * 3 * BLOCK + 3 * BLOCK))
    left = [path for path in run.path.rglob("*") if path.is_file() and run.checkpoints_dir not in path.parents]
    assert estimate.left.files == 3 * (len(left) - 4)  # without what was written before it ran
    assert unknown.left.files <= estimate.left.files


def test_the_code_that_is_there_is_not_counted_again(repo, launcher, make_search, folder) -> None:
    launcher.submit_sweep(make_search({}), folder, DRY_RUN)
    plan = launcher.plan_sweep(make_search({}), folder)
    taken = SweepDirectory(folder).sweep().code
    assert plan.estimate.code.files == taken["files"]  # a plan does not know which tree it will be
    record = replace(plan.code.record, tree=taken["tree"], isolated=True)
    estimate = room.estimate_room(SweepDirectory(folder), replace(plan, code=replace(plan.code, record=record)))
    assert estimate.code == Takes()


def test_without_a_repository_nothing_is_copied(launcher, make_search, folder) -> None:
    estimate = launcher.plan_sweep(make_search({}), folder).estimate
    assert estimate.code is None
    assert "copy of the code: none, runs work in the project itself" in list(estimate.lines())


def test_few_runs_stand_for_many(launcher, make_search, folder, monkeypatch) -> None:
    rendered = []
    dump = room.dump_yaml
    monkeypatch.setattr(room, "dump_yaml", lambda data: rendered.append(data) or dump(data))
    estimate = launcher.plan_sweep(make_search({"custom_params.x": list(range(3000))}), folder).estimate
    assert (estimate.runs, estimate.written.folders, estimate.written.files) == (3000, 9000, 12000)
    assert len(rendered) <= 16


def test_what_does_not_fit_is_said(launcher, display, make_search, small_disk, project, capsys) -> None:
    search = make_search({"custom_params.x": [float(x) for x in range(30)]})
    with small_disk() as disk:
        (problem,) = launcher.plan_sweep(search, disk.path / "deep" / "sweep").estimate.problems
        assert problem.startswith("it needs ")
        assert ", without checkpoints, and 256.0 KiB are free" in problem
        few = make_search({"custom_params.x": [1.0]})
        assert launcher.plan_sweep(few, disk.path / "sweep").estimate.problems == []
        launcher.submit_sweep(few, disk.path / "sweep", DRY_RUN)
        assert display.said == []
        disk.fill()
        with pytest.raises(Exception, match="cannot be written"):
            launcher.submit_sweep(search, disk.path / "sweep", DRY_RUN)
        assert any("warning: " in line and "are free" in line for line in display.said)


def test_too_few_files_are_a_problem_of_their_own(launcher, make_search, folder) -> None:
    estimate = launcher.plan_sweep(make_search({}), folder).estimate
    needed = estimate.total.files + estimate.total.folders
    fits = replace(estimate, room=Room(size=estimate.total.size, entries=needed))
    assert fits.problems == []
    (problem,) = replace(fits, room=Room(size=estimate.total.size, entries=needed - 1)).problems
    assert problem == f"it needs {needed} files and folders, without checkpoints, and there is room for {needed - 1}"
    assert replace(fits, room=Room(size=estimate.total.size)).problems == []


def test_the_verb(repo, project, monkeypatch, capsys) -> None:
    repo.write("sweep.yaml", json.dumps({"base": BASE, "grids": [{"name": "g", "parameters": {"seed": [1, 2]}}]}))
    monkeypatch.chdir(project)
    assert PLAN.help
    assert main(["plan", "sweep.yaml", "--project-root", "."]) == 0
    shown = capsys.readouterr().out
    assert "folders of the runs: 8 files in 6 folders, " in shown
    assert "checkpoints: not known until a run of the sweep has finished" in shown
    assert main(["plan", "sweep.yaml", "--project-root", ".", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)["data"]["estimate"]
    assert (estimate["written"]["files"], estimate["checkpoints"], estimate["problems"]) == (8, None, [])
    assert estimate["total"]["files"] > 8 + estimate["code"]["files"]


BASE = {"experiment_name": "a", "model": {"name": "b"}, "data": {"dataset_name": "c"}, "optimizer": {"name": "d"}}
