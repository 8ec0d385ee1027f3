"""Why a job waits: said with what to do about it, and jobs that a node could not start are let go again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_runs import wait_for

from mtf_config import ExperimentConfig
from mtf_slurm import GridSearchResult, JobStatus, SLURMLauncher
from mtf_slurm.cluster.reasons import is_held_after_launch, waiting_words, waits_in_vain, what_to_do
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.cli import main

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]

BASE = {"model": {"name": "m"}, "data": {"dataset_name": "d"}, "optimizer": {"name": "o"}}
LAUNCH_FAILED = "launch failed requeued held"
CHANGE = "cancel it, change {}, and submit the sweep again"
DEADLINE_S = 60.0


@pytest.mark.parametrize(
    ("reason", "words", "remedy"),
    [
        ("", "", ""),
        ("None", "", ""),
        ("Priority", "Priority", "wait for jobs of higher priority"),
        ("(Priority)", "(Priority)", "wait for jobs of higher priority"),
        (
            "ReqNodeNotAvail, UnavailableNodes:node1",
            "ReqNodeNotAvail, UnavailableNodes:node1",
            "wait for nodes that are down, drained or reserved",
        ),
        (
            "PartitionTimeLimit",
            "PartitionTimeLimit: its partition gives no job as much time",
            CHANGE.format("slurm.time_limit or slurm.partition"),
        ),
        (
            "QOSMaxWallDurationPerJobLimit",
            "QOSMaxWallDurationPerJobLimit: it asks for more or less than a limit allows a job",
            CHANGE.format("what it asks for (section slurm)"),
        ),
        (
            "AssocGrpCpuLimit",
            "AssocGrpCpuLimit",
            "wait for other jobs of yours or of your account to end",
        ),
        ("QOSMaxJobsPerUserLimit", "QOSMaxJobsPerUserLimit", "wait for other jobs of yours or of your account to end"),
        (
            LAUNCH_FAILED,
            f"{LAUNCH_FAILED}: a node could not start it",
            "submit the sweep again, which releases it; if that is of no use, tell the site that a node is broken",
        ),
        ("SomethingNew", "SomethingNew", ""),
    ],
)
def test_reasons(reason: str, words: str, remedy: str) -> None:
    assert (waiting_words(reason), what_to_do(reason)) == (words, remedy)
    assert waits_in_vain(reason) is (": " in words)
    assert is_held_after_launch(reason) is (reason == LAUNCH_FAILED)


def reason_of(cluster: LocalCluster, job_id: str) -> str:
    words = ["squeue", "--noheader", "--array", f"--jobs={job_id}", "--states=all", "--Format=Reason:80"]
    return cluster.run(words, check=False).stdout.strip()


@pytest.mark.skipif(is_available() is not None, reason=is_available() or "")
def test_what_a_node_could_not_start_is_released_by_submitting_again(
    slurm_cluster: Callable[..., LocalCluster],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As when the disk of a node is full: Slurm puts the job back into the queue, and holds it there for ever."""
    launcher = SLURMLauncher(None, tmp_path / "experiments", project_root=tmp_path, command="true")
    batch = [ExperimentConfig.from_dict(BASE | {"experiment_name": f"run-{number}"}) for number in range(3)]
    single = tmp_path / "experiments" / "single"
    with slurm_cluster(ClusterSettings(nodes=1)) as cluster:
        for name, value in cluster.environment().items():
            monkeypatch.setenv(name, value)
        spool = cluster.folder / "spool" / "node1"
        spool.rename(spool.with_name("kept"))
        spool.touch()
        ids = launcher.submit_experiment_batch(batch).job_ids
        wait_for(lambda: {reason_of(cluster, job_id) for job_id in ids.values()} == {LAUNCH_FAILED}, "held jobs")
        spool.unlink()
        spool.with_name("kept").rename(spool)

        run = launcher.get_job(ids["run-0"])
        assert run is not None
        assert (run.status, run.reason) == (JobStatus.PENDING, f"{LAUNCH_FAILED}: a node could not start it")
        assert main(["explain", str(single), "run-0"]) == 0
        assert "to do      submit the sweep again, which releases it" in capsys.readouterr().out
        with caplog.at_level(logging.WARNING), pytest.raises(TimeoutError):
            GridSearchResult.load(single).wait(timeout_s=0.1)
        assert f"waiting in vain, see mtf explain: run-0, run-1, run-2: {run.reason}" in caplog.text

        again = launcher.submit_experiment_batch(batch)
        assert again.job_ids == ids
        said = capsys.readouterr().err
        assert f"released what Slurm held because a node could not start it: {', '.join(ids.values())}" in said
        done = GridSearchResult.load(single).wait(timeout_s=DEADLINE_S)
        assert {run.status for run in done} == {JobStatus.COMPLETED}
        assert {run.attempts for run in done} == {1}
        launcher.submit_experiment_batch(batch)
        assert "released" not in capsys.readouterr().err
