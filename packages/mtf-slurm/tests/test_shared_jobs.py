"""Runs that share a job on a real Slurm: what happens to one of them is no matter of the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_runs import outcomes, wait_for

from mtf_config import ExecutionMode, ExperimentConfig
from mtf_slurm import BatchSubmissionResult, GridSearchResult, JobStatus, SLURMError, SLURMLauncher
from mtf_slurm.cancelling import cancel_runs
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.rundir import RunDirectory, SweepDirectory

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.skipif(is_available() is not None, reason=is_available() or "")

S = JobStatus
SLURM = ExecutionMode.SLURM

# What a run does is told by its name, behind that of the batch. Those that hold save a checkpoint when they are told to
# stop, and end at once when they go on from it.
TRAIN = """
echo $MTF_ATTEMPT >>"$MTF_RUN_DIR/starts"
case ${MTF_EXPERIMENT#*-} in
  bad*) echo 'ValueError: bad step' >&2; exit 3 ;;
  killed*) kill -9 $$ ;;
  vanish*) kill -9 "$PPID" $$ ;;
  hold*)
    [[ -e $MTF_RUN_DIR/checkpoints/1 ]] && exit 0
    trap 'mkdir -p "$MTF_RUN_DIR/checkpoints/1"; exit 75' TERM USR1
    touch "$MTF_RUN_DIR/held"
    while [[ ! -e $MTF_RUN_DIR/gate ]]; do sleep 0.05; done
    ;;
esac
"""


class Bench:
    """A project on a cluster."""

    def __init__(self, cluster: LocalCluster, root: Path) -> None:
        self.cluster, self.root = cluster, root
        (root / "train.sh").write_text(TRAIN)
        self.launcher = SLURMLauncher(None, root / "experiments", project_root=root, command="bash train.sh")
        self.directory = SweepDirectory(root / "experiments" / "single")

    def submit(self, *names: str, per_job: int = 8, **slurm: Any) -> BatchSubmissionResult:
        keys = {"model": {"name": "m"}, "data": {"dataset_name": "d"}, "optimizer": {"name": "o"}}
        section = {"runs_per_job": per_job, **slurm}
        configs = [ExperimentConfig.from_dict(keys | {"experiment_name": name, "slurm": section}) for name in names]
        batch = self.launcher.submit_experiment_batch(configs, SLURM)
        assert batch.failed == {}
        return batch

    def run(self, name: str) -> RunDirectory:
        return self.directory.run(name)

    def starts(self, name: str) -> list[str]:
        file = self.run(name).path / "starts"
        return file.read_text().split() if file.exists() else []

    def wait_held(self, *names: str) -> None:
        wait_for(lambda: all((self.run(name).path / "held").exists() for name in names), f"{names} at their hold")

    def open(self, *names: str) -> None:
        for name in names:
            (self.run(name).path / "gate").touch()

    def statuses(self, *names: str) -> list[JobStatus]:
        found = {run.name: run.status for run in GridSearchResult.load(self.directory.path)}
        return [found[name] for name in names]

    def reason(self, name: str) -> str:
        return str(GridSearchResult.load(self.directory.path)[name].reason)

    def settle(self, expected: dict[str, JobStatus]) -> None:
        """Look until it is as expected; what is called over on the way is over that way."""

        def as_expected() -> bool:
            seen = dict(zip(expected, self.statuses(*expected), strict=True))
            wrong = {name: found for name, found in seen.items() if found is not expected[name] and not found.is_active}
            assert not wrong, f"false on the way: {wrong}"
            return seen == expected

        wait_for(as_expected, f"{expected}", 60)

    def state(self, job: str) -> str:
        words = ["squeue", "--noheader", "--states=all", "--array", f"--jobs={job}", "--format=%T"]
        return self.cluster.run(words, check=False).stdout.strip()

    def wait_over(self, job: str) -> str:
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED")
        return str(wait_for(lambda: (state := self.state(job)) in over and state, f"the end of {job}", 60))


@pytest.fixture(scope="module")
def cluster(slurm_cluster: Callable[..., LocalCluster]) -> Iterator[LocalCluster]:
    patch = pytest.MonkeyPatch()
    with slurm_cluster(ClusterSettings(nodes=2, kill_wait_s=3)) as cluster:
        for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "MTF_"))]:
            patch.delenv(name)
        for name, value in cluster.environment().items():
            patch.setenv(name, value)
        yield cluster
    patch.undo()


@pytest.fixture
def bench(cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    return Bench(cluster, tmp_path)


def task_of(batch: BatchSubmissionResult, name: str) -> str:
    return batch.job_ids[name].partition("/")[0]


def test_one_is_killed_and_seven_finish(bench: Bench) -> None:
    names = [f"a-{kind}" for kind in ("good1", "good2", "killed", "good3", "good4", "good5", "good6", "good7")]
    batch = bench.submit(*names)
    task = task_of(batch, "a-killed")
    assert [batch.job_ids[name] for name in names] == [f"{task}/{place}" for place in range(8)]
    bench.settle({name: S.FAILED if "killed" in name else S.COMPLETED for name in names})
    assert "killed by SIGKILL" in bench.reason("a-killed")
    assert bench.wait_over(task) == "FAILED"
    bench.settle({name: S.FAILED if "killed" in name else S.COMPLETED for name in names})
    assert all(bench.starts(name) == ["1"] for name in names)
    receipts = [bench.run(name).attempt(1).started() for name in names]
    assert {receipt.job_id for receipt in receipts if receipt} == {task}


def test_the_end_of_the_job_is_not_taken_for_that_of_a_run(bench: Bench) -> None:
    """One fails, one vanishes together with its script; of these two alone something is wrong."""
    names = ("b-good1", "b-bad", "b-vanish", "b-good2")
    batch = bench.submit(*names)
    bench.settle(dict(zip(names, (S.COMPLETED, S.FAILED, S.UNKNOWN, S.COMPLETED), strict=True)))
    assert bench.wait_over(task_of(batch, "b-bad")) == "FAILED"
    assert bench.reason("b-bad") == "ValueError: bad step"
    assert "left no finish receipt" in bench.reason("b-vanish")
    again = bench.submit(*names)
    assert set(again.job_ids) >= {"b-bad", "b-vanish"}
    assert task_of(again, "b-bad") != task_of(batch, "b-bad")
    wait_for(lambda: bench.starts("b-vanish") == ["1", "2"], "the second attempt")
    assert bench.starts("b-good1") == ["1"]


@pytest.mark.parametrize("how", ["signal", "requeue", "preemption"])
def test_a_job_that_is_preempted_goes_on_with_what_is_left(bench: Bench, how: str) -> None:
    names = (f"{how}-good", f"{how}-bad", f"{how}-hold", f"{how}-late")
    batch = bench.submit(*names)
    task = task_of(batch, names[0])
    bench.wait_held(names[2])
    assert bench.statuses(*names) == [S.COMPLETED, S.FAILED, S.RUNNING, S.PENDING]
    assert bench.reason(names[3]) == f"waits for its turn in job {task}"
    if how == "signal":
        bench.cluster.run(["scancel", "--batch", "--signal=USR1", task])
    elif how == "requeue":
        bench.cluster.run(["scontrol", "requeue", task])
    else:
        words = ["--partition=high", "--exclusive", "--nodes=2", "--output=/dev/null"]
        bench.cluster.run(["sbatch", *words], text_in="#!/bin/sh\nsleep 1\n")
    bench.settle(dict(zip(names, (S.COMPLETED, S.FAILED, S.COMPLETED, S.COMPLETED), strict=True)))
    assert [bench.starts(name) for name in names] == [["1"], ["1"], ["1", "2"], ["2"]]
    assert outcomes(bench.run(names[2])) == ["preempted", "finished"]


def test_one_that_is_cancelled_leaves_the_others_alone(bench: Bench) -> None:
    names = ("c-hold1", "c-hold2", "c-good")
    batch = bench.submit(*names)
    task = task_of(batch, "c-good")
    bench.wait_held("c-hold1")
    assert cancel_runs(bench.directory, ["c-hold2"]) == {"c-hold2": True}  # its turn has not come
    assert bench.statuses("c-hold2") == [S.CANCELLED]
    assert bench.launcher.cancel_job(f"{task}/0") is True
    bench.settle({"c-hold1": S.CANCELLED, "c-hold2": S.CANCELLED, "c-good": S.COMPLETED})
    assert bench.wait_over(task) == "COMPLETED"
    assert [bench.starts(name) for name in names] == [["1"], [], ["1"]]
    assert outcomes(bench.run("c-hold1")) == ["preempted"]
    assert bench.launcher.cancel_job(f"{task}/0") is False
    with pytest.raises(SLURMError, match=f"job {task} has 3 runs; name one of them, {task}/0 to /2"):
        bench.launcher.get_job_status(task)


def test_a_run_that_is_over_can_be_submitted_again_while_its_job_goes_on(bench: Bench) -> None:
    names = ("d-bad", "d-hold1", "d-hold2")
    batch = bench.submit(*names)
    bench.wait_held("d-hold1")
    cancel_runs(bench.directory, ["d-hold2"])
    again = bench.submit(*names)
    assert again.job_ids["d-hold1"] == batch.job_ids["d-hold1"]
    assert task_of(again, "d-bad") == task_of(again, "d-hold2") != task_of(batch, "d-bad")
    wait_for(lambda: bench.starts("d-bad") == ["1", "2"], "the second attempt")
    bench.open("d-hold1", "d-hold2")
    bench.settle({"d-bad": S.FAILED, "d-hold1": S.COMPLETED, "d-hold2": S.COMPLETED})
    assert bench.wait_over(task_of(batch, "d-bad")) == "FAILED"
    assert (bench.starts("d-bad"), bench.starts("d-hold2")) == (["1", "2"], ["1"])


def test_cancelling_all_of_them_cancels_the_job(bench: Bench) -> None:
    names = ("e-hold1", "e-hold2")
    batch = bench.submit(*names)
    bench.wait_held("e-hold1")
    cancel_runs(bench.directory, names)
    assert bench.wait_over(task_of(batch, "e-hold1")) == "CANCELLED"
    bench.settle(dict.fromkeys(names, S.CANCELLED))


def test_several_at_a_time(bench: Bench) -> None:
    names = [f"f-hold{number}" for number in range(4)]
    batch = bench.submit(*names, runs_at_once=2)
    bench.wait_held(*names[:2])
    assert bench.statuses(*names) == [S.RUNNING, S.RUNNING, S.PENDING, S.PENDING]
    bench.open(names[1])
    bench.wait_held(names[2])
    bench.settle(dict(zip(names, (S.RUNNING, S.COMPLETED, S.RUNNING, S.PENDING), strict=True)))
    bench.cluster.run(["scancel", "--batch", "--signal=USR1", task_of(batch, names[0])])
    bench.settle(dict.fromkeys(names[:3], S.COMPLETED))  # both have saved, and end when they go on
    bench.open(names[3])
    bench.settle(dict.fromkeys(names, S.COMPLETED))
    assert [bench.starts(name) for name in names] == [["1", "2"], ["1"], ["1", "2"], ["2"]]


def test_runs_of_several_processes_take_turns(bench: Bench) -> None:
    names = ("m-good", "m-bad", "m-good2")
    bench.submit(*names, nodes=2)
    bench.settle(dict(zip(names, (S.COMPLETED, S.FAILED, S.COMPLETED), strict=True)))
    assert [bench.starts(name) for name in names if name != "m-bad"] == [["1", "1"]] * 2
    assert bench.reason("m-bad").endswith("ValueError: bad step")


def test_where_slurm_does_not_requeue(bench: Bench) -> None:
    names = ("g-hold", "g-late")
    batch = bench.submit(*names, requeue=False)
    task = task_of(batch, "g-hold")
    bench.wait_held("g-hold")
    bench.cluster.run(["scancel", "--batch", "--signal=USR1", task])
    bench.wait_over(task)
    bench.settle({"g-hold": S.PREEMPTED, "g-late": S.LOST})
    assert "Slurm does not requeue the job" in bench.reason("g-hold")
    assert bench.reason("g-late") == f"job {task} ended (FAILED) before its turn came"
    bench.submit(*names, requeue=False)
    bench.settle(dict.fromkeys(names, S.COMPLETED))


def test_arrays_of_shared_tasks(bench: Bench) -> None:
    """More runs than one task has, in a template of the user's own that is no bash."""
    template = bench.root / "own.sh"
    template.write_text("#!/bin/sh\n{% for option in options %}\n#SBATCH {{ option }}\n{% endfor %}\n{{ body }}\n")
    bench.launcher = SLURMLauncher(
        template, bench.root / "experiments", project_root=bench.root, command="bash train.sh"
    )
    names = [f"h-good{number}" for number in range(7)]
    batch = bench.submit(*names, per_job=3)
    job = task_of(batch, names[0]).partition("_")[0]
    assert [batch.job_ids[name] for name in names] == [f"{job}_{n // 3}/{n % 3}" for n in range(7)]
    bench.settle(dict.fromkeys(names, S.COMPLETED))
    assert [bench.wait_over(f"{job}_{task}") for task in range(3)] == ["COMPLETED"] * 3
    assert all(bench.starts(name) == ["1"] for name in names)
