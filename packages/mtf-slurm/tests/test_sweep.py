"""Planning: what is written, what is refused, what a changed grid does."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from mtf_config import ExecutionMode, ExperimentConfig
from mtf_slurm import GridSearchResult, JobStatus, JobSubmissionError, SLURMError, SLURMLauncher, sweep_name
from mtf_slurm.reports import status_lines
from mtf_utils.rundir import SweepDirectory

LOCAL, DRY_RUN = ExecutionMode.LOCAL, ExecutionMode.DRY_RUN


@pytest.fixture
def folder(project: Path) -> Path:
    return project / "experiments" / "sweep"


def test_dry_run_writes_everything_and_starts_nothing(launcher, make_search, folder, runs_of, project) -> None:
    search = make_search({"custom_params.x": [1.0, 2.0]})
    result = launcher.submit_sweep(search, folder, DRY_RUN)
    assert result.counts == {JobStatus.NOT_SUBMITTED: 2}
    assert all(run.job_id.startswith("dry-") for run in result)
    for point in search.points():
        run = runs_of(folder)[point.name]
        data = json.loads(run.config_json.read_text())
        assert ExperimentConfig.from_dict(data) == point.config
        assert run.config_yaml.read_text().startswith(f"experiment_name: {point.name}\n")
        assert os.access(run.job_script, os.X_OK)
        assert run.attempts() == []
    sweep = SweepDirectory(folder).sweep()
    assert [run["name"] for run in sweep.runs] == ["tiny-x=1.0", "tiny-x=2.0"]
    assert sweep.runs[1]["parameters"] == {"custom_params.x": 2.0}
    assert sweep.grids == [{"name": "grid", "parameters": {"custom_params.x": [1.0, 2.0]}}]
    assert sweep.command == ["{python}", "train.py", "--config", "{config}"]
    assert sweep.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert sweep.code["isolated"] is False
    assert sweep.code["project_root"] == str(project)


def test_what_was_dry_is_run_later(launcher, make_search, folder) -> None:
    launcher.submit_sweep(make_search({}), folder, DRY_RUN)
    result = launcher.submit_sweep(make_search({}), folder, LOCAL)
    assert result.is_complete
    assert result.runs[0].job_id.startswith("local-")


def test_a_repeated_call_redoes_and_rewrites_nothing(launcher, make_search, folder) -> None:
    search = make_search({"custom_params.x": [1.0, 2.0]})
    launcher.submit_sweep(search, folder, LOCAL, 2)
    created = SweepDirectory(folder).sweep().created_at
    before = {file: file.stat().st_mtime_ns for file in folder.glob("runs/**/*") if file.is_file()}
    result = launcher.submit_sweep(search, folder, LOCAL, 2)
    assert {file: file.stat().st_mtime_ns for file in folder.glob("runs/**/*") if file.is_file()} == before
    assert [run.attempts for run in result] == [1, 1]
    assert SweepDirectory(folder).sweep().created_at == created


def test_a_changed_grid_adds_runs_and_names_what_is_orphaned(launcher, make_search, folder, display) -> None:
    launcher.submit_sweep(make_search({"custom_params.x": [1.0, 2.0]}), folder, LOCAL)
    result = launcher.submit_sweep(make_search({"custom_params.x": [2.0, 3.0]}), folder, LOCAL)
    assert [(run.name, run.attempts) for run in result] == [("tiny-x=2.0", 1), ("tiny-x=3.0", 1)]
    assert result.is_complete
    assert result.orphaned == ("tiny-x=1.0",)
    assert display.said[-2:] == [
        "added to the sweep: tiny-x=3.0",
        "no longer a part of the sweep, and left alone: tiny-x=1.0",
    ]
    assert [(run.name, run.status) for run in result.orphans] == [("tiny-x=1.0", JobStatus.COMPLETED)]
    assert result["tiny-x=1.0"].attempts == 1
    on_disk = {run["name"]: run.get("orphaned", False) for run in SweepDirectory(folder).sweep().runs}
    assert on_disk == {"tiny-x=1.0": True, "tiny-x=2.0": False, "tiny-x=3.0": False}
    back = launcher.submit_sweep(make_search({"custom_params.x": [1.0, 2.0, 3.0]}), folder, LOCAL)
    assert [run.attempts for run in back] == [1, 1, 1]
    assert back.orphaned == ()
    assert display.said[-1] == "added to the sweep: tiny-x=1.0"


def test_an_orphan_at_work_is_told_of_and_can_be_cancelled(
    launcher, make_search, project, folder, in_background, wait_until, display
) -> None:
    gate = project / "gate"
    first = make_search({"custom_params.x": [1.0]}, hold_at=1, gate=str(gate))
    in_background(lambda: launcher.submit_sweep(first, folder, LOCAL))
    wait_until((folder / "runs" / "tiny-x=1.0" / "held").exists)
    (folder / ".lock").unlink()  # as if its launcher had been killed
    result = launcher.submit_sweep(make_search({"custom_params.x": [2.0]}, hold_at=1, gate=str(gate)), folder, DRY_RUN)
    assert [(run.name, run.status) for run in result.orphans] == [("tiny-x=1.0", JobStatus.RUNNING)]
    assert "no longer a part of the sweep, and left alone: tiny-x=1.0" in display.said
    assert list(status_lines(result))[-1] == "no longer a part of the sweep: tiny-x=1.0 (RUNNING)"
    assert result.cancel() == {"tiny-x=2.0": False}  # all that are in the sweep
    assert result.cancel(["tiny-x=1.0"]) == {"tiny-x=1.0": True}
    wait_until(lambda: not result.refresh()["tiny-x=1.0"].may_change)
    assert result["tiny-x=1.0"].status is JobStatus.CANCELLED


def test_the_same_name_with_other_settings_is_refused_and_nothing_written(launcher, make_search, folder) -> None:
    launcher.submit_sweep(make_search({"custom_params.x": [1.0]}, naming="sequential"), folder, LOCAL)
    before = SweepDirectory(folder).sweep_file.read_text()
    says = r"a name is taken by another run \(tiny-000: .* with other settings: custom_params\.x \(1\.0 and 5\.0\)\)"
    with pytest.raises(JobSubmissionError, match=says) as caught:
        launcher.submit_sweep(make_search({"custom_params.x": [5.0, 6.0]}, naming="sequential"), folder, LOCAL)
    assert list(caught.value.reasons) == ["tiny-000"]
    assert SweepDirectory(folder).sweep_file.read_text() == before


def test_a_lost_sweep_file_does_not_hide_what_the_folders_hold(launcher, make_search, folder) -> None:
    launcher.submit_sweep(make_search({"custom_params.x": [1.0]}, naming="sequential"), folder, LOCAL)
    SweepDirectory(folder).sweep_file.unlink()
    with pytest.raises(JobSubmissionError, match="tiny-000"):
        launcher.submit_sweep(make_search({"custom_params.x": [5.0]}, naming="sequential"), folder, LOCAL)
    same = launcher.submit_sweep(make_search({"custom_params.x": [1.0]}, naming="sequential"), folder, LOCAL)
    assert [run.attempts for run in same] == [1]


def test_settings_outside_the_identity_reach_unfinished_runs(launcher, make_search, folder, runs_of) -> None:
    launcher.submit_sweep(make_search({}), folder, DRY_RUN)
    launcher.submit_sweep(make_search({}, preemption={"signals": ["SIGUSR2"]}), folder, DRY_RUN)
    (run,) = runs_of(folder).values()
    assert "mtf_signals='TERM USR1 USR2'" in run.job_script.read_text()


def test_the_folders_name_survives_a_changed_grid_and_not_another_base(make_search) -> None:
    name = sweep_name(make_search({"custom_params.x": [1.0]}))
    assert name.startswith("grid-")
    assert name == sweep_name(make_search({"custom_params.x": [1.0, 2.0]}))
    assert name != sweep_name(make_search({"custom_params.x": [1.0]}, steps=7))


def test_a_full_disk_is_one_clear_error_and_repeating_the_call_goes_on(
    small_disk, project, make_search, display
) -> None:
    with small_disk() as disk:
        launcher = SLURMLauncher(None, disk.path, project_root=project, display=display)
        disk.fill()
        with pytest.raises(SLURMError, match=r"cannot be written: No space left on device; nothing was started"):
            launcher.submit_sweep(make_search({}), disk.path / "sweep", LOCAL)
        disk.filler.unlink()
        assert launcher.submit_sweep(make_search({}), disk.path / "sweep", LOCAL).is_complete


def test_a_read_only_folder_is_one_clear_error(small_disk, project, make_search, display) -> None:
    with small_disk() as disk:
        launcher = SLURMLauncher(None, disk.path, project_root=project, display=display)
        disk.remount("ro")
        with pytest.raises(SLURMError, match=r"cannot be written: Read-only file system; nothing was started"):
            launcher.submit_sweep(make_search({}), disk.path / "sweep", LOCAL)


def test_a_file_in_the_way_is_one_clear_error(project, make_search) -> None:
    (project / "taken").write_text("a file where the folder should be")
    launcher = SLURMLauncher(None, project / "taken", project_root=project)
    with pytest.raises(SLURMError, match=r"taken.*cannot be written: Not a directory; nothing was started"):
        launcher.submit_sweep(make_search({}), project / "taken" / "sweep", LOCAL)


def test_a_file_in_the_way_of_experiments_without_a_sweep(project, make_config) -> None:
    (project / "taken").touch()
    launcher = SLURMLauncher(None, project / "taken", project_root=project)
    says = r"taken.single cannot be written: Not a directory; nothing was started"
    with pytest.raises(SLURMError, match=says):
        launcher.submit_experiment(make_config("one"), LOCAL)
    with pytest.raises(SLURMError, match=says):
        launcher.submit_experiment_batch([make_config("one")], LOCAL)


@pytest.mark.parametrize("root", ["missing", "train.py"])
def test_a_missing_project_root_is_a_clear_error(project, root: str) -> None:
    with pytest.raises(SLURMError, match="project_root: there is no folder"):
        SLURMLauncher(None, project, project_root=project / root)


def test_a_missing_template_is_a_clear_error(project) -> None:
    with pytest.raises(SLURMError, match="slurm_template_path: there is no file"):
        SLURMLauncher("no/such.j2", project)


def test_cluster_mode_says_what_is_possible_and_writes_nothing(
    launcher, make_search, folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SLURMError, match=r"no sbatch in the PATH.*use ExecutionMode\.LOCAL"):
        launcher.submit_sweep(make_search({}), folder)
    assert not folder.exists()


def test_results_are_read_in_another_process_state(launcher, make_search, folder) -> None:
    launcher.submit_sweep(make_search({"custom_params.x": [1.0]}), folder, LOCAL)
    assert GridSearchResult.load(str(folder)).is_complete
    with pytest.raises(SLURMError, match="there is no sweep here"):
        GridSearchResult.load(folder.parent)
