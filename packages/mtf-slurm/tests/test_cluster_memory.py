"""What is known of the memory of a job on a real Slurm that was killed for it, with accounting and without."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from control_groups import HUNGRY, LIMIT_MB, enter, memory_group

from mtf_config import ExperimentConfig
from mtf_slurm import JobStatus, SLURMLauncher
from mtf_slurm.cluster.controller import Controller
from mtf_slurm.cluster.judgement import memory_words
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.cli import main

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]

DEADLINE_S = 120.0
# Here nothing but the sampling itself ends what uses too much.
ENFORCED = {
    "JobAcctGatherParams": "OverMemoryKill",
    "JobAcctGatherFrequency": "task=1",
    "SelectTypeParameters": "CR_Core_Memory",
}
GREEDY = """#!/bin/bash
python3 -c 'import time; held = bytearray(300 * 2**20); time.sleep(100)' &
wait
"""


@pytest.mark.slow
@pytest.mark.skipif(is_available(accounting=True) is not None, reason=is_available(accounting=True) or "")
def test_a_job_that_used_too_much(
    slurm_cluster: Callable[..., LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with slurm_cluster(ClusterSettings(nodes=1, accounting=True, options=ENFORCED)) as cluster:
        for name, value in cluster.environment().items():
            monkeypatch.setenv(name, value)
        script = tmp_path / "greedy.sh"
        script.write_text(GREEDY)
        words = ["sbatch", "--parsable", "--mem=100M", "--job-name=greedy", "--output=/dev/null", str(script)]
        job_id = cluster.run(words).stdout.strip()
        controller = Controller()
        end = time.monotonic() + DEADLINE_S
        while True:
            task = controller.observe([job_id]).find(job_id, "greedy")
            if task is not None and task.peak_memory:  # the accounting lags
                break
            assert time.monotonic() < end, task
            time.sleep(0.2)
        assert task.signal == 9
        found = re.fullmatch(r"100M asked for, up to ([0-9]+)M in use when sampled", memory_words(task))
        assert found is not None, memory_words(task)
        assert 100 <= int(found[1]) < 500  # it may have been caught while it was growing


@pytest.mark.slow
@pytest.mark.skipif(is_available() is not None, reason=is_available() or "")
def test_slurm_has_forgotten_and_keeps_no_accounts(
    slurm_cluster: Callable[..., LocalCluster],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Here no job gets a control group from Slurm: it enters one by itself."""
    launcher = SLURMLauncher(None, tmp_path / "experiments", project_root=tmp_path, command=["{python}", "-c", HUNGRY])
    base = {"model": {"name": "m"}, "data": {"dataset_name": "d"}, "optimizer": {"name": "o"}}

    with slurm_cluster(ClusterSettings(nodes=1, min_job_age_s=2)) as cluster, memory_group("few") as group:
        for name, value in cluster.environment().items():
            monkeypatch.setenv(name, value)
        slurm = {"setup": [enter(group)], "mem": "80M", "retries": {"out_of_memory": 1}}
        experiment = ExperimentConfig.from_dict(base | {"experiment_name": "hungry", "slurm": slurm})
        for attempt, asked in ((1, "80M"), (2, "120M")):
            job_id = launcher.submit_experiment_batch([experiment]).job_ids["hungry"]
            assert f"MinMemoryNode={asked}" in cluster.run(["scontrol", "show", "job", job_id]).stdout
            end = time.monotonic() + DEADLINE_S
            while cluster.run(["squeue", "--noheader", f"--jobs={job_id}", "--states=all"], check=False).stdout:
                assert time.monotonic() < end, "squeue does not forget"
                time.sleep(0.2)
            run = launcher.get_job(job_id)
            assert run is not None
            assert (run.status, run.attempts) == (JobStatus.OUT_OF_MEMORY, attempt)
            found = re.fullmatch(r"out of memory \(up to ([0-9]+)M in use\)", run.reason)
            assert found is not None, run.reason
            assert int(found[1]) <= LIMIT_MB
        assert run.held == "out of memory 2 times, and slurm.retries.out_of_memory is 1"
        assert main(["explain", str(tmp_path / "experiments" / "single"), "hungry"]) == 0
        shown = capsys.readouterr().out
        assert f"because    {run.reason}" in shown
        assert "ask for more (slurm.mem), or make the batch smaller" in shown
