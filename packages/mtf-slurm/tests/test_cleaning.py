"""What `mtf clean` removes from real folders of sweeps, and above all what it does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtf_config import ExecutionMode
from mtf_slurm import SLURMError, SLURMLauncher
from mtf_slurm.clean_command import CLEAN
from mtf_slurm.cleaning import clean, find_rubbish
from mtf_slurm.lock import hold
from mtf_utils.rundir import Outcome, RunDirectory, SweepDirectory

LOCAL, DRY_RUN = ExecutionMode.LOCAL, ExecutionMode.DRY_RUN


@pytest.fixture
def folder(project: Path) -> Path:
    return project / "experiments" / "sweep"


def make_checkpoint(run: RunDirectory, sequence: int, metric: float | None = None, **more: Any) -> Path:
    folder = run.checkpoints_dir / f"ckpt-{sequence:06d}-step-{sequence * 10:08d}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    manifest = {"sequence": sequence, "metric": metric, "pinned": False} | more
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def checkpoints(run: RunDirectory) -> list[int]:
    return sorted(int(path.name[5:11]) for path in run.checkpoints_dir.glob("ckpt-*"))


@pytest.fixture
def finished(launcher: SLURMLauncher, make_search: Any, folder: Path) -> RunDirectory:
    launcher.submit_sweep(make_search({}), folder, LOCAL)
    (run,) = SweepDirectory(folder).runs()
    return run


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_last_the_final_the_best_and_the_pinned_checkpoints_stay(finished: RunDirectory, folder: Path) -> None:
    for number, metric in enumerate([0.5, 0.1, None, 0.9, 0.1, float("nan"), 0.7, 0.8], 1):
        make_checkpoint(finished, number, metric, pinned=number == 3)
    result = finished.result()
    result.checkpoint = "checkpoints/ckpt-000007-step-00000070"
    result.write(finished.result_file)
    config = json.loads(finished.config_json.read_text())
    config["checkpoint"] |= {"save_top_k": 2, "mode": "min"}
    finished.config_json.write_text(json.dumps(config))
    (finished.checkpoints_dir / "mine").mkdir()
    before = files_of(folder)
    found = find_rubbish(folder)
    assert files_of(folder) == before
    assert {item.path.name[:11] for item in found.items} == {"ckpt-000001", "ckpt-000004", "ckpt-000006"}
    assert found.size == sum(
        len(content)
        for path, content in before.items()
        if path.parts[-2][:11] in {"ckpt-000001", "ckpt-000004", "ckpt-000006"}
    )
    assert clean(folder) == found
    assert checkpoints(finished) == [2, 3, 5, 7, 8]
    assert (finished.checkpoints_dir / "mine").is_dir()
    assert not list(finished.checkpoints_dir.glob(".removed-*"))
    assert clean(folder).items == ()


def test_links_are_not_followed(finished: RunDirectory, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for number in (1, 2, 3):
        make_checkpoint(RunDirectory(outside), number)
    (outside / ".removed-mine").mkdir()
    (outside / ".removed-mine" / "file").write_text("mine")
    finished.attempt(2).path.mkdir()
    receipt = finished.attempt(1).finished()
    receipt.attempt = 2
    receipt.write(finished.attempt(2).finished_file)
    for number in (1, 2):
        (outside / f"attempt-{number}.log").write_text("mine")
    shutil.rmtree(finished.logs_dir)
    finished.logs_dir.symlink_to(outside)
    shutil.rmtree(finished.checkpoints_dir)
    finished.checkpoints_dir.symlink_to(outside / "checkpoints")
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / ("0" * 40)).symlink_to(outside)
    (folder / "code" / ".removed-x").symlink_to(outside)
    before = files_of(outside)
    assert clean(folder).items == ()
    assert files_of(outside) == before
    shutil.rmtree(folder / "code")
    (folder / "code").symlink_to(outside)
    assert clean(folder).items == ()
    moved = finished.path.rename(tmp_path / "moved")
    finished.path.symlink_to(moved)
    (moved / "checkpoints").unlink()
    for number in (1, 2):
        make_checkpoint(finished, number)
    assert clean(folder).items == ()
    assert files_of(outside) == before


def test_a_link_in_what_is_removed_goes_alone(finished: RunDirectory, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("mine")
    old, _ = make_checkpoint(finished, 1), make_checkpoint(finished, 2)
    (old / "link").symlink_to(tmp_path / "outside")
    assert [item.path for item in clean(folder).items] == [old]
    assert not old.exists()
    assert (tmp_path / "outside" / "file").read_text() == "mine"


def test_what_cannot_be_read_is_not_judged(finished: RunDirectory, folder: Path) -> None:
    for number in (1, 2, 3):
        make_checkpoint(finished, number)
    (finished.checkpoints_dir / "ckpt-000001-step-00000010" / "manifest.json").write_text("{")
    clean(folder)
    assert checkpoints(finished) == [1, 3]
    finished.config_json.write_text("{")
    make_checkpoint(finished, 4)
    clean(folder)
    assert checkpoints(finished) == [1, 3, 4]


def test_a_removal_that_was_cut_off_is_finished(finished: RunDirectory, folder: Path) -> None:
    make_checkpoint(finished, 1).rename(finished.checkpoints_dir / ".removed-ckpt-000001-step-00000010")
    make_checkpoint(finished, 2)
    clean(folder)
    assert [path.name for path in finished.checkpoints_dir.iterdir() if not path.name.isdigit()] == [
        "ckpt-000002-step-00000020"
    ]


def test_nothing_of_an_unfinished_run_is_touched(launcher, make_search, folder) -> None:
    search = make_search({"custom_params.exit": [76, 0]}, naming="sequential")
    launcher.submit_sweep(search, folder, LOCAL)
    by_outcome = {run.attempt(1).finished().outcome: run for run in SweepDirectory(folder).runs()}
    failed, finished = by_outcome[Outcome.DO_NOT_REQUEUE], by_outcome[Outcome.FINISHED]
    for run in (failed, finished):
        for number in (1, 2, 3):
            make_checkpoint(run, number)
        run.attempt(2).path.mkdir()
        (run.log_file(2)).write_text("again")
        receipt = run.attempt(1).finished()
        receipt.attempt = 2
        receipt.write(run.attempt(2).finished_file)
    before = files_of(failed.path)
    removed = {item.path for item in clean(folder).items}
    assert files_of(failed.path) == before
    assert checkpoints(finished) == [3]
    assert finished.log_file(1) in removed
    assert not finished.log_file(1).exists()
    assert finished.log_file(2).exists()


def test_nothing_of_an_active_sweep_is_touched(
    launcher, make_search, folder, in_background, wait_until, tmp_path, runs_of
) -> None:
    search = make_search({"custom_params.x": [1.0, 2.0]}, hold_at=1, gate=str(tmp_path / "gate"))
    sweep = in_background(lambda: launcher.submit_sweep(search, folder, LOCAL, 1))
    wait_until(lambda: folder.exists() and any((r.path / "held").exists() for r in runs_of(folder).values()), "a run")
    before = set(folder.rglob("*"))
    for call in (find_rubbish, clean):
        with pytest.raises(SLURMError, match="nothing can be removed while runs are, or may be, at work"):
            call(folder)
    assert before <= set(folder.rglob("*"))
    (tmp_path / "gate").touch()
    assert sweep.result().is_complete


def test_a_folder_that_a_launcher_holds_is_left_alone(finished: RunDirectory, folder: Path) -> None:
    make_checkpoint(finished, 1)
    make_checkpoint(finished, 2)
    with hold(SweepDirectory(folder)), pytest.raises(SLURMError, match="another launcher is at work"):
        clean(folder)
    assert checkpoints(finished) == [1, 2]


@pytest.fixture
def isolated(tmp_path: Path, project: Path, make_repository: Callable[[Path], Any]) -> Any:
    repo = make_repository(project)
    repo.commit()
    return repo


def test_copies_that_no_unfinished_run_uses_go(isolated, launcher, make_config, project) -> None:
    folder = project / "experiments" / "single"
    trees = []
    for number, (name, mode) in enumerate(
        [("done", LOCAL), ("planned", DRY_RUN), ("replaced", DRY_RUN), ("replaced", DRY_RUN), ("last", DRY_RUN)]
    ):
        isolated.write("version.py", str(number))
        launcher.submit_experiment(make_config(name), mode)
        trees.append(SweepDirectory(folder).sweep().code["tree"])
    (folder / "code" / ".new-abc").mkdir()
    (folder / "code" / "mine").mkdir()
    found = clean(folder)
    assert {item.path.name for item in found.items} == {trees[0], trees[2], ".new-abc"}
    assert {path.name for path in (folder / "code").iterdir()} == {trees[1], trees[3], trees[4], "mine"}
    # the finished run's snapshot stays in git, which is how its code is found again
    assert found.snapshots == (trees[2],)
    kept = isolated.git("for-each-ref", "--format=%(refname:lstrip=3)", "refs/mtf").split()
    assert sorted(kept) == sorted({trees[0], trees[1], trees[3], trees[4]})
    isolated.git("gc", "--quiet", "--prune=now")
    assert isolated.git("show", f"{trees[0]}:version.py") == "0"


def test_code_whose_users_cannot_be_told_stays(isolated, launcher, make_config, project) -> None:
    folder = project / "experiments" / "single"
    for number in (1, 2):
        isolated.write("version.py", str(number))
        launcher.submit_experiment(make_config("a"), DRY_RUN)
    (folder / "runs" / "a" / "code.json").write_text("{")
    assert find_rubbish(folder).items == ()


def test_the_verb(finished: RunDirectory, folder: Path) -> None:
    make_checkpoint(finished, 1)
    make_checkpoint(finished, 2)

    def mtf(*words: str | Path) -> subprocess.CompletedProcess[str]:
        code = (
            "import argparse, sys; from mtf_slurm.clean_command import CLEAN; parser = argparse.ArgumentParser();"
            "CLEAN.configure(parser); sys.exit(CLEAN.run(parser.parse_args()))"
        )
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)

    shown = mtf(folder)
    assert "ckpt-000001" in shown.stdout
    assert "nothing was removed, --apply does it" in shown.stdout
    assert checkpoints(finished) == [1, 2]
    data = json.loads(mtf(folder, "--apply", "--json").stdout)["data"]
    assert (data["removed"], [item["kind"] for item in data["items"]]) == (True, ["checkpoint"])
    assert checkpoints(finished) == [2]
    assert mtf(folder).stdout == "nothing to remove\n"
    assert "CommandError" in mtf(folder / "missing").stderr
    assert "is neither the folder of a sweep nor a sweep file" in mtf(__file__).stderr
    assert CLEAN.help
