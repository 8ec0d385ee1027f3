"""Jobs chained to keep to a limit, and a real controller that loses one of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cluster_runs import crash_back, keep_state, wait_for

from mtf_config import ExperimentConfig
from mtf_slurm.cluster.choosing import Templates
from mtf_slurm.cluster.controller import Controller
from mtf_slurm.cluster.patience import Patience
from mtf_slurm.cluster.planning import SubmissionPlanner
from mtf_slurm.cluster.programs import Ran, run_program
from mtf_slurm.cluster.submission import Launch
from mtf_slurm.render import JobScript, render_job
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.rundir import SweepDirectory

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.skipif(is_available() is not None, reason=is_available() or "")

BASE: dict[str, Any] = {"model": {"name": "none"}, "data": {"dataset_name": "none"}, "optimizer": {"name": "none"}}
SPAN = 'cd "$MTF_RUN_DIR" && date +%s%N >span && sleep 1 && date +%s%N >>span'
JOBS = 4


def write_runs(directory: SweepDirectory) -> list[str]:
    """Runs that ask for different things, so that each is a job of its own."""
    names = [f"run-{number}" for number in range(JOBS)]
    for number, name in enumerate(names):
        run = directory.run(name)
        run.path.mkdir(parents=True)
        config = BASE | {"experiment_name": name, "slurm": {"mem": f"{100 + number}M"}}
        run.config_json.write_text(json.dumps(ExperimentConfig.from_dict(config).to_dict()))
        job = JobScript(name=name, project_root=directory.path, python="python3", command=("bash", "-c", SPAN))
        run.job_script.write_text(render_job(job))
    return names


class Crash:
    """Runs Slurm's programs, and has the controller crash, its last seconds lost, just after it has taken a job.

    Args:
        cluster: whose controller.
        after: the crash follows the sbatch of that number, from 0.
        kept: a folder for a copy of the controller's state.
    """

    def __init__(self, cluster: LocalCluster, after: int, kept: Path) -> None:
        self.cluster, self.after, self.kept = cluster, after, kept
        self.calls = 0

    def __call__(self, words: Sequence[str], **settings: Any) -> Ran:
        if words[0] != "sbatch":
            return run_program(words, **settings)
        self.calls += 1
        if self.calls != self.after + 1:
            return run_program(words, **settings)
        keep_state(self.cluster, self.kept)
        done = run_program(words, **settings)
        crash_back(self.cluster, self.kept)
        return done


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1, JOBS - 1])
def test_a_lost_link_neither_breaks_the_limit_nor_loses_a_run(
    slurm_cluster: Callable[..., LocalCluster], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lost: int
) -> None:
    directory = SweepDirectory(tmp_path / "sweep")
    names = write_runs(directory)
    said: list[str] = []
    with slurm_cluster(ClusterSettings(nodes=2)) as cluster:
        for key, value in cluster.environment().items():
            monkeypatch.setenv(key, value)
        planner = SubmissionPlanner(directory, Templates(tmp_path))
        crash = Crash(cluster, lost, tmp_path / "kept")
        done = Launch(planner, Controller(crash), said.append, Patience(timeout_s=60)).submit(names, 1)
        assert done.refused == {}
        assert sorted(done.job_ids) == names
        runs = [directory.run(name) for name in names]
        wait_for(lambda: all(run.attempt(1).finished_file.exists() for run in runs), "the end of the runs", 60)
    assert any("has lost 1 job in a crash" in text for text in said)
    spans = sorted(tuple(map(int, (run.path / "span").read_text().split())) for run in runs)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans)), "two at a time"
    assert all(len(run.attempts()) == 1 for run in runs)
