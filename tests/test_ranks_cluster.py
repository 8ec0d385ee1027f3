"""The trainer on two nodes with four ranks, started by srun on a real Slurm: preempted, and on to the same bits."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtf_config import ExecutionMode, ExperimentConfig
from mtf_slurm import GridSearchResult, JobStatus, SLURMLauncher
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.rundir import Outcome, SweepDirectory
from repository import ROOT

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.skipif(is_available() is not None, reason=is_available() or "")

TRAIN = f"""
import os, sys
sys.path.insert(0, {str(ROOT / "packages" / "mtf-trainer" / "tests")!r})
import ranks_task

sys.argv = ["train.py", os.environ["MTF_RUN_DIR"], "--pace", "0.05"]
ranks_task.main()
"""
RANKS = range(4)


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 200
    while not (value := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)
    return value


def test_a_training_on_two_nodes_is_preempted_and_comes_to_the_same_bits(
    slurm_cluster: Callable[..., LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    names = ("undisturbed", "preempted")
    with slurm_cluster(ClusterSettings(nodes=2)) as cluster:
        for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "MTF_"))]:
            monkeypatch.delenv(name)
        for name, value in cluster.environment().items():
            monkeypatch.setenv(name, value)
        launcher = SLURMLauncher(None, tmp_path / "experiments", project_root=tmp_path, command="{python} train.py")
        ids = launcher.submit_experiment_batch(list(map(experiment, names)), ExecutionMode.SLURM).job_ids
        sweep = SweepDirectory(tmp_path / "experiments" / "single")
        runs = {name: sweep.run(name) for name in names}
        last_words = runs["preempted"].log_file(1)
        wait_for(
            lambda: all(place(runs["preempted"].path, rank) >= (0, 2) for rank in RANKS),
            f"four ranks in mid-accumulation: {last_words}",
        )
        cluster.run(["scancel", "--batch", "--signal=USR1", ids["preempted"]])

        def ended() -> GridSearchResult | None:
            result = GridSearchResult.load(sweep.path)
            return None if any(run.may_change for run in result) else result

        result: GridSearchResult = wait_for(ended, "the ends of the trainings")
        outcomes = {
            name: [None if (end := attempt.finished()) is None else end.outcome for attempt in run.attempts()]
            for name, run in runs.items()
        }
    said = {
        name: [attempt.path.name + run.log_file(attempt.number).read_text() for attempt in run.attempts()]
        for name, run in runs.items()
    }
    assert {name: result[name].status for name in names} == dict.fromkeys(names, JobStatus.COMPLETED), said
    assert outcomes == {"undisturbed": [Outcome.FINISHED], "preempted": [Outcome.PREEMPTED, Outcome.FINISHED]}, said
    digests = {
        name: [json.loads((run.path / f"digest-{rank}.json").read_text()) for rank in RANKS]
        for name, run in runs.items()
    }
    assert digests["preempted"] == digests["undisturbed"]


def experiment(name: str) -> ExperimentConfig:
    keys = {"model": {"name": "m"}, "data": {"dataset_name": "d"}, "optimizer": {"name": "o"}}
    slurm = {"nodes": 2, "ntasks_per_node": 2}
    return ExperimentConfig.from_dict(keys | {"experiment_name": name, "slurm": slurm})


def place(folder: Path, rank: int) -> tuple[int, ...]:
    """Epoch and batch that a rank has reached."""
    file = folder / f"pace-{rank}"
    words = file.read_text().split()[1:] if file.exists() else []
    return tuple(map(int, words)) or (0, -1)
