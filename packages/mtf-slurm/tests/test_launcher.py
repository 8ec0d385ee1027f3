"""Experiments submitted by themselves and in batches: ids, statuses, cancelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtf_config import ExecutionMode
from mtf_slurm import GridSearchResult, JobStatus, JobSubmissionError, SLURMError, SLURMLauncher
from mtf_utils.rundir import SweepDirectory

LOCAL, DRY_RUN = ExecutionMode.LOCAL, ExecutionMode.DRY_RUN


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def test_a_lone_experiment_runs_and_has_an_id(launcher, make_config, project) -> None:
    job_id = launcher.submit_experiment(make_config("one"), LOCAL)
    assert job_id.startswith("local-")
    assert "_" not in job_id
    assert launcher.get_job_status(job_id) is JobStatus.COMPLETED
    assert launcher.get_job(job_id).path == project / "experiments" / "single" / "runs" / "one"
    # another launcher, in another process, knows it as well
    other = SLURMLauncher(None, project / "experiments", project_root=project)
    assert other.get_job(job_id).metrics == {"val_loss": 1 / 3}
    assert not other.cancel_job(job_id)


def test_lone_experiments_live_side_by_side(launcher, make_config, project) -> None:
    for name in ("one", "two"):
        launcher.submit_experiment(make_config(name), LOCAL)
    sweep = SweepDirectory(project / "experiments" / "single").sweep()
    assert [(run["name"], "orphaned" in run) for run in sweep.runs] == [("one", False), ("two", False)]


def test_a_finished_experiment_is_not_run_again(launcher, make_config) -> None:
    first = launcher.submit_experiment(make_config("one"), LOCAL)
    second = launcher.submit_experiment(make_config("one"), LOCAL)
    assert launcher.get_job(second).attempts == 1
    assert launcher.get_job_status(first) is launcher.get_job_status(second) is JobStatus.COMPLETED


def test_the_same_name_with_other_settings_is_refused(launcher, make_config) -> None:
    launcher.submit_experiment(make_config("one", x=1.0), LOCAL)
    with pytest.raises(JobSubmissionError, match=r"one: .*other settings: custom_params\.x \(1\.0 and 2\.0\)"):
        launcher.submit_experiment(make_config("one", x=2.0), LOCAL)


def test_a_failing_experiment_is_submitted_all_the_same(launcher, make_config) -> None:
    job_id = launcher.submit_experiment(make_config("bad", fail_at=1), LOCAL)
    job = launcher.get_job(job_id)
    assert (job.status, job.reason) == (JobStatus.FAILED, "ValueError: bad step 1")


def test_an_active_experiment_keeps_its_id(launcher, make_config, gate, in_background, wait_until, project) -> None:
    config = make_config("one", hold_at=1, gate=str(gate))
    call = in_background(lambda: launcher.submit_experiment(config, LOCAL))
    wait_until((project / "experiments/single/runs/one/held").exists)
    other = SLURMLauncher(None, project / "experiments", project_root=project)
    active = other.submit_experiment(config, LOCAL)
    assert other.get_job_status(active) is JobStatus.RUNNING
    gate.touch()
    assert call.result() == active


def test_a_batch(launcher, make_config) -> None:
    batch = launcher.submit_experiment_batch(
        [make_config("one"), make_config("two"), make_config("one")], LOCAL, max_concurrent_jobs=2
    )
    assert batch.successful == ("one", "two")
    assert not batch.failed
    assert {name: launcher.get_job(job_id).name for name, job_id in batch.job_ids.items()} == {
        "one": "one",
        "two": "two",
    }
    assert all(launcher.get_job_status(job_id) is JobStatus.COMPLETED for job_id in batch.job_ids.values())
    token = {job_id.partition("_")[0] for job_id in batch.job_ids.values()}
    assert len(token) == 1


def test_a_name_that_stands_for_two_experiments_stands_for_none(launcher, make_config, project) -> None:
    dear = make_config("three", slurm={"mem": "64G"})  # no part of the identity, and still another experiment
    batch = launcher.submit_experiment_batch(
        [make_config("one"), make_config("two"), make_config("two", x=9.0), make_config("three"), dear], DRY_RUN
    )
    assert batch.successful == tuple(batch.job_ids) == ("one",)
    assert set(batch.failed) == {"two", "three"}
    assert "they differ in custom_params.x (None and 9.0); neither was submitted" in batch.failed["two"]
    assert "they differ in slurm.mem (None and '64G'); neither" in batch.failed["three"]
    folder = project / "experiments" / "single" / "runs"
    assert [path.name for path in folder.iterdir()] == ["one"]


def test_a_name_that_is_taken_is_in_one_list_only(launcher, make_config) -> None:
    launcher.submit_experiment(make_config("taken"), DRY_RUN)
    batch = launcher.submit_experiment_batch([make_config("taken", x=2.0), make_config("free")], DRY_RUN)
    assert (batch.successful, list(batch.failed), list(batch.job_ids)) == (("free",), ["taken"], ["free"])


def test_a_name_that_differs_in_case_only_is_refused(launcher, make_config) -> None:
    launcher.submit_experiment(make_config("Baseline"), DRY_RUN)
    with pytest.raises(JobSubmissionError, match=r"baseline: there is 'Baseline', whose folder would be the same"):
        launcher.submit_experiment(make_config("baseline"), DRY_RUN)
    batch = launcher.submit_experiment_batch([make_config("two"), make_config("TWO"), make_config("Baseline")], DRY_RUN)
    assert (batch.successful, list(batch.failed)) == (("two", "Baseline"), ["TWO"])


WRONG = ["3", "", None, True, False, -1, 0, 2.0, float("nan"), [1], {}, ...]


@pytest.mark.parametrize("limit", [value for value in WRONG if value is not None], ids=repr)
def test_a_limit_that_is_none_is_an_error(launcher, make_config, make_search, project, limit) -> None:
    calls = (
        lambda: launcher.submit_experiment_batch([make_config("one")], LOCAL, limit),
        lambda: launcher.submit_sweep(make_search({}), project / "sweep", LOCAL, limit),
        lambda: launcher.continue_sweep(project, limit),
    )
    for call in calls:
        with pytest.raises(SLURMError, match=r"max_concurrent_jobs=.*: expected a whole number from 1, or None"):
            call()
    assert not (project / "sweep").exists()
    assert not (project / "experiments").exists()


@pytest.mark.parametrize("job_id", [value for value in [*WRONG, 123] if not isinstance(value, str)], ids=repr)
def test_a_job_id_of_another_type_is_an_error(launcher, job_id) -> None:
    for ask in (launcher.get_job_status, launcher.get_job, launcher.cancel_job):
        with pytest.raises(SLURMError, match=r"job_id=.*as submit_experiment returns it: '123'"):
            ask(job_id)


@pytest.mark.parametrize("experiments", [None, 3, "one", {"experiment_name": "x"}, [{"experiment_name": "x"}], [None]])
def test_what_is_no_list_of_experiments_is_an_error(launcher, experiments, project) -> None:
    with pytest.raises(SLURMError, match=r"experiments(\[0\])?=.*: expected an? (list of )?ExperimentConfig"):
        launcher.submit_experiment_batch(experiments, LOCAL)
    assert not (project / "experiments").exists()


def test_other_values_of_a_wrong_type_are_errors(launcher, make_config, project) -> None:
    with pytest.raises(SLURMError, match=r"experiments=ExperimentConfig.*expected a list"):
        launcher.submit_experiment_batch(make_config("one"), LOCAL)
    with pytest.raises(SLURMError, match=r"experiment_config='one': expected an ExperimentConfig"):
        launcher.submit_experiment("one", LOCAL)
    with pytest.raises(SLURMError, match=r"search=\[\]: expected a ParameterGridSearch"):
        launcher.submit_sweep([], project / "sweep", LOCAL)
    for value in ("3", None, True, -1.0, float("nan")):
        with pytest.raises(SLURMError, match=r"submit_timeout_s=.*: expected a number of seconds, 0 or more"):
            SLURMLauncher(None, project, submit_timeout_s=value)


def test_an_empty_batch_is_nothing(launcher, project) -> None:
    assert launcher.submit_experiment_batch([], LOCAL).successful == ()


def test_dry_run_ids(launcher, make_config) -> None:
    job_id = launcher.submit_experiment(make_config("one"), DRY_RUN)
    assert job_id.startswith("dry-")
    assert launcher.get_job_status(job_id) is JobStatus.NOT_SUBMITTED
    assert not launcher.cancel_job(job_id)


def test_cancelling_lets_the_run_save_and_starts_it_no_more(
    launcher, make_search, gate, in_background, wait_until, project
) -> None:
    folder = project / "experiments" / "sweep"
    search = make_search({"custom_params.x": [1.0, 2.0, 3.0]}, hold_at=1, gate=str(gate))
    call = in_background(lambda: launcher.submit_sweep(search, folder, LOCAL, 1))
    wait_until((folder / "runs/tiny-x=1.0/held").exists)
    other = SLURMLauncher(None, project / "experiments", project_root=project)
    token = next((folder / "submissions").iterdir()).name
    assert other.get_job_status(f"local-{token}_2") is JobStatus.PENDING
    assert other.cancel_job(f"local-{token}_0")  # at work
    assert other.cancel_job(f"local-{token}_2")  # waiting
    wait_until((folder / "runs/tiny-x=2.0/held").exists)
    gate.touch()
    result = call.result()
    assert [(run.status, run.attempts) for run in result] == [
        (JobStatus.CANCELLED, 1),
        (JobStatus.COMPLETED, 1),
        (JobStatus.CANCELLED, 0),
    ]
    assert not other.cancel_job(f"local-{token}_0")
    again = launcher.submit_sweep(search, folder, LOCAL)  # asked for anew
    assert again.is_complete
    assert [run.attempts for run in again] == [2, 1, 1]


def test_a_cancelled_attempt_counts_against_nothing(
    launcher, make_search, gate, in_background, wait_until, project
) -> None:
    """It ends as a preempted one does, of which there may be none; and asking for the run again is said to be that."""
    folder = project / "experiments" / "sweep"
    search = make_search({}, hold_at=1, gate=str(gate), preemption={"max_preemptions": 0})
    call = in_background(lambda: launcher.submit_sweep(search, folder, LOCAL))
    (run,) = wait_until(lambda: folder.exists() and SweepDirectory(folder).runs())
    wait_until((run.path / "held").exists)
    assert GridSearchResult.load(folder).cancel() == {run.name: True}
    assert [(each.status, each.held) for each in call.result()] == [(JobStatus.CANCELLED, "")]
    assert run.asks() == []
    gate.touch()
    assert launcher.submit_sweep(search, folder, LOCAL).is_complete
    assert [(ask.attempt, ask.how) for ask in run.asks()] == [(2, "submitted again after it was cancelled")]


@pytest.mark.parametrize("job_id", ["local-0123abc", "dry-0123abc_4", "123", "123_4"])
def test_nothing_is_known_of_an_unknown_job(launcher, job_id: str) -> None:
    assert launcher.get_job_status(job_id) is JobStatus.UNKNOWN
    assert launcher.get_job(job_id) is None
    assert launcher.cancel_job(job_id) is False


@pytest.mark.parametrize("job_id", ["", "local-", "nonsense", "local-../../etc", "local-abc_x", "local-abc_"])
def test_what_is_no_job_id_is_an_error(launcher, job_id: str) -> None:
    with pytest.raises(SLURMError, match="no job id"):
        launcher.get_job_status(job_id)


def test_without_a_cluster_nothing_is_written(launcher, make_config, project, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for call in (
        lambda: launcher.submit_experiment(make_config("one")),
        lambda: launcher.submit_experiment_batch([make_config("one")]),
    ):
        with pytest.raises(SLURMError, match="no sbatch in the PATH"):
            call()
    with pytest.raises(SLURMError, match=r"expected one of ExecutionMode\.SLURM"):
        launcher.submit_experiment(make_config("one"), "local-ish")
    assert not (project / "experiments").exists()


def test_a_planned_sweep_can_be_continued_without_its_search(launcher, make_search, project) -> None:
    folder = project / "experiments" / "sweep"
    launcher.submit_sweep(make_search({"custom_params.x": [1.0, 2.0]}), folder, DRY_RUN)
    assert launcher.continue_sweep(folder, 2).is_complete
    with pytest.raises(SLURMError, match="there is no sweep here"):
        launcher.continue_sweep(project)


def test_a_command_of_ones_own(project, make_config, display) -> None:
    (project / "own.py").write_text("import sys; print(*sys.argv[1:])")
    command = ["{python}", "own.py", "{name}", "it's $HOME"]
    launcher = SLURMLauncher(None, project / "out", project_root=project, command=command, display=display)
    job = launcher.get_job(launcher.submit_experiment(make_config("one"), LOCAL))
    assert job.status is JobStatus.COMPLETED
    assert job.log.read_text() == "one it's $HOME\n"


@pytest.mark.parametrize("content", [None, "{}", "[]", "{broken", "other"])
def test_a_run_whose_configuration_was_changed_is_refused_and_the_others_go_on(
    launcher, make_search, project, content
) -> None:
    folder = project / "experiments" / "sweep"
    search = make_search({"custom_params.x": [1.0, 2.0]})
    launcher.submit_sweep(search, folder, DRY_RUN)
    file = folder / "runs" / "tiny-x=1.0" / "config.json"
    if content is None:
        file.unlink()
    else:
        file.write_text(file.read_text().replace("1.0", "7.0") if content == "other" else content)
    result = launcher.continue_sweep(folder)
    assert result["tiny-x=2.0"].status is JobStatus.COMPLETED
    assert (result["tiny-x=1.0"].status, result["tiny-x=1.0"].attempts) == (JobStatus.NOT_SUBMITTED, 0)
    (reason,) = result.failures().values()
    assert str(file) in reason
    assert "restore the file, or plan the sweep again" in reason
    assert launcher.submit_sweep(search, folder, LOCAL).is_complete


def test_a_failed_run_that_cannot_be_started_again_says_why(launcher, make_search, project) -> None:
    folder = project / "experiments" / "sweep"
    (failed,) = launcher.submit_sweep(make_search({}, fail_at=1), folder, LOCAL)
    (failed.path / "config.json").unlink()
    (again,) = launcher.continue_sweep(folder)
    assert (again.status, again.attempts) == (JobStatus.FAILED, 1)
    assert "config.json cannot be read" in again.reason


def test_a_start_that_the_disk_has_no_room_for_says_so(small_disk, project, make_search, display) -> None:
    with small_disk() as disk:
        launcher = SLURMLauncher(None, disk.path, project_root=project, display=display)
        launcher.submit_sweep(make_search({"custom_params.x": [1.0, 2.0]}), disk.path / "sweep", DRY_RUN)
        display.say = lambda text: disk.fill()  # that a run is orphaned is said when everything is written
        result = launcher.submit_sweep(make_search({"custom_params.x": [1.0]}), disk.path / "sweep", LOCAL)
        assert "cannot write the start receipt of attempt 1" in result.failures()["tiny-x=1.0"]
        seen = GridSearchResult.load(disk.path / "sweep").failures()["tiny-x=1.0"]
        assert seen == "attempt 1 was claimed, but left no receipt"
