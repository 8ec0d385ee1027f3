"""A training on two nodes with four ranks, through srun on a real Slurm: the launcher carries what torch does there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster_bench import ClusterBench, experiments, wait_until
from mtf_slurm import JobStatus
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.rundir import Outcome, RunDirectory
from repository import ROOT

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = [pytest.mark.skipif(is_available() is not None, reason=is_available() or ""), pytest.mark.slow]

# What a test does to the example is told by the name of the run: one waits for a signal in the third step of its first
# attempt, and of one a rank fails there.
TRAIN = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT / "examples" / "distributed")!r})
import train_ddp

made, name = train_ddp.make_batch, os.environ["MTF_EXPERIMENT"]

def make_batch(step):
    if step == 3 and name == "preempted" and os.environ["MTF_ATTEMPT"] == "1":
        (train_ddp.RUN / f"held-{{train_ddp.RANK}}").touch()
        while not train_ddp.told_to_stop:
            time.sleep(0.02)
    if step == 3 and name == "failing" and train_ddp.RANK == 3:
        raise ValueError("the last words of rank 3")
    return made(step)

train_ddp.make_batch = make_batch
train_ddp.leave(train_ddp.main())
"""
RANKS = range(4)
PATIENCE_S = 200


class Trainings(ClusterBench):
    """Three trainings that go on at once."""

    def __init__(self, cluster: LocalCluster, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(cluster, root, monkeypatch, {"train.py": TRAIN}, command="{python} train.py")
        names = ("whole", "preempted", "failing")
        slurm = {"nodes": 2, "ntasks_per_node": 2}
        self.ids = self.submit_batch(experiments(names, slurm=slurm, custom_params={"steps": 5})).job_ids

    def preempt(self) -> None:
        held = [self.run("preempted").path / f"held-{rank}" for rank in RANKS]
        wait_until(lambda: all(file.exists() for file in held), "four ranks at step 3", PATIENCE_S)
        self.cluster.run(["scancel", "--batch", "--signal=USR1", self.ids["preempted"]])


@pytest.fixture(scope="module")
def trainings(
    slurm_cluster: Callable[..., LocalCluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trainings]:
    with pytest.MonkeyPatch.context() as patch, slurm_cluster(ClusterSettings(nodes=2)) as cluster:
        trainings = Trainings(cluster, tmp_path_factory.mktemp("distributed"), patch)
        trainings.preempt()
        trainings.wait_over(timeout_s=PATIENCE_S)
        yield trainings


def log_lines(run: RunDirectory, attempt: int = 1) -> list[str]:
    """The lines of the ranks, each of which srun marks with its number."""
    return sorted(line for line in run.log_file(attempt).read_text().splitlines() if ": rank " in line)


def outcomes(run: RunDirectory) -> list[Outcome | None]:
    return [receipt.outcome if (receipt := attempt.finished()) else None for attempt in run.attempts()]


def test_four_ranks_on_two_nodes_take_part_in_one_attempt(trainings: Trainings) -> None:
    run = trainings.run("whole")
    assert trainings.results()["whole"].status is JobStatus.COMPLETED
    assert outcomes(run) == [Outcome.FINISHED]
    nodes = ["node1", "node1", "node2", "node2"]
    assert log_lines(run) == [
        line
        for rank in RANKS
        for line in (f"{rank}: rank {rank} is done", f"{rank}: rank {rank} of 4 on {nodes[rank]} begins at step 0")
    ]
    out = "".join(path.read_text() for path in trainings.folder.glob("submissions/*/*.out"))
    assert "nothing to do" not in out  # one claim for all the ranks of a run


def test_a_preempted_training_goes_on_and_ends_with_the_same_weights(trainings: Trainings) -> None:
    run = trainings.run("preempted")
    assert trainings.results()["preempted"].status is JobStatus.COMPLETED
    assert outcomes(run) == [Outcome.PREEMPTED, Outcome.FINISHED]
    assert [line for line in log_lines(run, 1) if "stop" in line] == [
        f"{rank}: rank {rank} was told to stop; saved after step 3" for rank in RANKS
    ]
    assert sum("begins at step 3" in line for line in log_lines(run, 2)) == 4
    weights = [trainings.run(name).path / "checkpoints" / "5.safetensors" for name in ("whole", "preempted")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_rank_that_fails_fails_the_run_with_its_last_words(trainings: Trainings) -> None:
    """And not with what the others say, whose connections it broke, nor with the signal by which srun ended them."""
    run = trainings.results()["failing"]
    assert run.status is JobStatus.FAILED
    assert run.reason.endswith("ValueError: the last words of rank 3")
    receipt = trainings.run("failing").attempt(1).finished()
    assert receipt is not None
    assert (receipt.outcome, receipt.exit_status) == (Outcome.FAILED, 1)
    assert receipt.reason == "task 3 of 4 failed first: exit status 1"
    assert len(trainings.run("failing").attempts()) == 1
