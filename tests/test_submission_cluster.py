"""Submissions to a real Slurm: a small slice of the campaign, and what a user meets first.

The whole campaign is `python tests/bench/submission_campaign.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtf_config import ExecutionMode, ExperimentConfig
from mtf_slurm import JobStatus, JobSubmissionError, SLURMLauncher
from mtf_slurm.cluster.controller import Controller
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from repository import ROOT

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]

pytestmark = pytest.mark.timeout(900)  # a busy machine is no failure

BASE: dict[str, Any] = {"model": {"name": "none"}, "data": {"dataset_name": "none"}, "optimizer": {"name": "none"}}


def campaign(name: str, *arguments: str) -> str:
    """Run a scenario; it must be good."""
    if reason := is_available():
        pytest.skip(reason)
    command = [sys.executable, str(ROOT / "tests" / "bench" / "submission_campaign.py"), name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=840)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_one_job_each_while_the_controller_is_frozen_and_killed() -> None:
    out = campaign("controller", "--size", "24", "--seed", "3")
    assert min(map(int, re.findall(r"(\d+) freezes and (\d+) kills of the controller", out)[0])) >= 1
    assert "24 experiments, 0 with more than one job, 0 lost, 0 started twice, 0 unfinished" in out


@pytest.mark.slow
def test_one_job_each_while_the_launcher_is_killed_as_well() -> None:
    out = campaign("both", "--size", "16", "--seed", "5")
    assert "16 experiments, 0 with more than one job, 0 lost, 0 started twice, 0 unfinished" in out


@pytest.mark.slow
def test_one_job_each_when_the_launcher_is_killed_at_a_step_of_its_journal() -> None:
    steps, kills, good = re.findall(r"(\d+) steps, (\d+) kills: (\d+) without", campaign("journal", "--steps", "4"))[0]
    assert int(steps) > 50
    assert kills == good == "4"


def test_a_batch_larger_than_an_array_may_be() -> None:
    assert "MaxArraySize 50: 60 experiments in 2 groups are 2 arrays" in campaign("large", "--size", "60")


@pytest.mark.slow
def test_no_more_runs_at_work_than_asked_for() -> None:
    assert "24 runs, at most 5 at a time asked for, at most 5 seen" in campaign("bound", "--size", "24")


def test_a_batch_is_one_request() -> None:
    assert "30 experiments as an array" in (out := campaign("arrays", "--size", "30"))
    assert "1 submissions" in out


@pytest.fixture(scope="module")
def cluster(slurm_cluster: Callable[..., LocalCluster]) -> Iterator[LocalCluster]:
    with slurm_cluster(ClusterSettings(message_timeout_s=2, max_array_size=50)) as started:
        yield started


@pytest.fixture
def launcher(cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SLURMLauncher:
    for key, value in cluster.environment().items():
        monkeypatch.setenv(key, value)
    return SLURMLauncher(None, tmp_path / "out", project_root=tmp_path, command="true", submit_timeout_s=30)


def experiment(name: str, **slurm: Any) -> ExperimentConfig:
    return ExperimentConfig.from_dict(BASE | {"experiment_name": name, "slurm": slurm})


def test_an_experiment_gets_a_job_of_its_own_and_keeps_it(launcher: SLURMLauncher, cluster: LocalCluster) -> None:
    job_id = launcher.submit_experiment(experiment("alone"))
    assert job_id.isdecimal()
    assert cluster.run(["squeue", "-h", "-j", job_id, "-t", "all", "-o", "%j"]).stdout.startswith("alone-")
    assert launcher.submit_experiment(experiment("alone")) == job_id
    assert launcher.get_job(job_id).name == "alone"


def test_a_mistake_in_one_experiment_stops_no_other(launcher: SLURMLauncher, cluster: LocalCluster) -> None:
    experiments = [
        experiment("good"),
        experiment("nowhere", partition="nope"),
        experiment("greedy", gres="gpu:99"),
        experiment("odd", additional_args=["--wait"]),
    ]
    batch = launcher.submit_experiment_batch(experiments)
    assert batch.successful == ("good",)
    assert set(batch.failed) == {"nowhere", "greedy", "odd"}
    assert "slurm.partition (--partition=nope); the partitions are low, gpu, high" in batch.failed["nowhere"]
    assert "slurm.gres (--gres=gpu:99)" in batch.failed["greedy"]
    assert "--wait" in batch.failed["odd"]
    with pytest.raises(JobSubmissionError, match="invalid partition"):
        launcher.submit_experiment(experiment("nowhere", partition="nope"))


def test_a_job_that_was_cancelled_is_not_submitted_again_by_the_way(
    launcher: SLURMLauncher, cluster: LocalCluster
) -> None:
    # far in the future, so that it waits; scancel takes a waiting task out of the queue's memory at once
    later = {"additional_args": ["--begin=now+1hour"]}
    batch = launcher.submit_experiment_batch([experiment("one", **later), experiment("two", **later)])
    array = batch.job_ids["one"].partition("_")[0]
    cluster.run(["scancel", array])
    launcher.submit_experiment(experiment("other"))
    words = ["squeue", "-h", "-t", "pending", "--name", _job_name(launcher, batch.job_ids["one"]), "-o", "%i"]
    assert cluster.run(words).stdout == ""


def _job_name(launcher: SLURMLauncher, job_id: str) -> str:
    tasks = Controller().queue().tasks
    return next(task.job_name for task in tasks.values() if task.job_id.partition("_")[0] == job_id.partition("_")[0])


def test_cancelling(launcher: SLURMLauncher) -> None:
    job_id = launcher.submit_experiment(experiment("waiting", additional_args=["--begin=now+1hour"]))
    assert launcher.get_job_status(job_id) is JobStatus.PENDING
    assert launcher.cancel_job(job_id)
    assert launcher.get_job_status(job_id) is JobStatus.CANCELLED
    assert not launcher.cancel_job(job_id)


def test_a_controller_that_stays_away_is_an_error_and_nothing_is_lost(
    launcher: SLURMLauncher, cluster: LocalCluster, tmp_path: Path
) -> None:
    launcher.submit_experiment(experiment("first"))
    launcher.submit_timeout_s = 3.0
    cluster.freeze_controller()
    try:
        with pytest.raises(JobSubmissionError, match="gave up after 3 s"):
            launcher.submit_experiment(experiment("second"))
    finally:
        cluster.thaw_controller()
    launcher.submit_timeout_s = 30.0
    job_id = launcher.submit_experiment(experiment("second"))
    names = [task.job_name for task in Controller().queue().tasks.values() if task.job_name.startswith("second-")]
    assert len(names) == 1
    assert launcher.get_job(job_id).name == "second"


def test_a_dry_run_submits_nothing(launcher: SLURMLauncher, cluster: LocalCluster, tmp_path: Path) -> None:
    before = cluster.rpc_counts().get("REQUEST_SUBMIT_BATCH_JOB", 0)
    batch = launcher.submit_experiment_batch(
        [experiment(f"run-{number}", mem="1G") for number in range(60)], ExecutionMode.DRY_RUN, max_concurrent_jobs=7
    )
    assert cluster.rpc_counts().get("REQUEST_SUBMIT_BATCH_JOB", 0) == before
    assert all(job_id.startswith("dry-") for job_id in batch.job_ids.values())
    scripts = sorted((tmp_path / "out" / "single" / "submissions").glob("*/*.sh"))
    assert len(scripts) == 2  # as many as MaxArraySize makes of them
    assert "#SBATCH --array=0-49%7" in scripts[0].read_text()


def test_without_slurm_it_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    launcher = SLURMLauncher(None, tmp_path / "out", project_root=tmp_path, command="true")
    with pytest.raises(ConnectionError, match="no sbatch in the PATH"):
        launcher.submit_experiment(experiment("alone"))
    assert not (tmp_path / "out").exists()
    assert os.environ["PATH"] == str(tmp_path)
