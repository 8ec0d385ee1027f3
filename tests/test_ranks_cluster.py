"""The trainer on two nodes with four ranks, started by srun on a real Slurm: preempted, and on to the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster_bench import ClusterBench, experiments, wait_until
from mtf_slurm import JobStatus
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.rundir import Outcome
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
PATIENCE_S = 200


def test_a_training_on_two_nodes_is_preempted_and_comes_to_the_same_bits(
    slurm_cluster: Callable[..., LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("undisturbed", "preempted")
    with slurm_cluster(ClusterSettings(nodes=2)) as cluster:
        bench = ClusterBench(cluster, tmp_path, monkeypatch, {"train.py": TRAIN}, command="{python} train.py")
        ids = bench.submit_batch(experiments(names, slurm={"nodes": 2, "ntasks_per_node": 2})).job_ids
        runs = {name: bench.run(name) for name in names}
        last_words = runs["preempted"].log_file(1)
        wait_until(
            lambda: all(place(runs["preempted"].path, rank) >= (0, 2) for rank in RANKS),
            f"four ranks in mid-accumulation: {last_words}",
            PATIENCE_S,
        )
        cluster.run(["scancel", "--batch", "--signal=USR1", ids["preempted"]])
        result = bench.wait_over(timeout_s=PATIENCE_S)
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


def place(folder: Path, rank: int) -> tuple[int, ...]:
    """Epoch and batch that a rank has reached."""
    file = folder / f"pace-{rank}"
    words = file.read_text().split()[1:] if file.exists() else []
    return tuple(map(int, words)) or (0, -1)
