"""No false status: real jobs on a real Slurm that fails, forgets, falls silent and gives ids away again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster_bench import ClusterBench, experiments, wait_until
from mtf_config import ExecutionMode
from mtf_slurm import GridSearchResult, JobStatus
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.cli import main

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.skipif(is_available() is not None, reason=is_available() or "")

S = JobStatus
SLURM = ExecutionMode.SLURM

# What a run does is told by its name. `vanish` takes its job.sh along, so that nobody is left to write a receipt.
TRAIN = """
case $MTF_EXPERIMENT in
  good*) exit 0 ;;
  bad*) echo 'ValueError: bad step' >&2; exit 3 ;;
  vanish*) kill -9 "$PPID" $$ ;;
  hold*) trap 'exit 75' TERM; touch "$MTF_RUN_DIR/held"; while [[ ! -e gate ]]; do sleep 0.05; done ;;
esac
"""


class Bench(ClusterBench):
    """A project whose runs do what their names say."""

    def __init__(self, cluster: LocalCluster, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(cluster, root, monkeypatch, {"train.sh": TRAIN}, command="bash train.sh")

    def submit(self, *names: str) -> dict[str, str]:
        batch = self.submit_batch(experiments(names))
        assert batch.failed == {}
        return dict(batch.job_ids)

    def settle(self, expected: dict[str, JobStatus]) -> None:
        """Look until it is as expected; what is over is never called otherwise on the way."""
        last: dict[str, JobStatus] = {}

        def as_expected() -> bool:
            last.clear()
            last.update(self.statuses())
            wrong = {name: found for name, found in last.items() if found is not expected[name] and not found.is_active}
            assert not wrong, f"false on the way: {wrong}"
            return last == expected

        wait_until(as_expected, f"{expected}, last seen {last}")

    def queue(self) -> str:
        return self.cluster.run(["squeue", "--noheader", "--array", "--states=all", "--Format=JobArrayID,State"]).stdout

    def break_program(self, name: str) -> None:
        self.replace_program(name, f"echo '{name}: error: it is broken' >&2\nexit 1")

    def mend(self, name: str) -> None:
        self.root.joinpath("bin", name).unlink()

    def finish(self) -> None:
        (self.root / "gate").touch()
        self.cluster.run(["scancel", "--name=other"])
        wait_until(lambda: "RUNNING" not in self.queue(), "the end of the jobs that were held")


@pytest.fixture(scope="module")
def steady(slurm_cluster: Callable[..., LocalCluster]) -> Iterator[LocalCluster]:
    """Remembers what is over for long, and keeps no accounts."""
    with slurm_cluster(ClusterSettings(nodes=1, message_timeout_s=2)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def forgetful(slurm_cluster: Callable[..., LocalCluster]) -> Iterator[LocalCluster]:
    """Forgets what is over within seconds; the accounting remembers."""
    with slurm_cluster(ClusterSettings(nodes=1, min_job_age_s=2, message_timeout_s=2, accounting=True)) as cluster:
        yield cluster


@pytest.fixture
def bench(steady: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(steady, tmp_path, monkeypatch)
    yield bench
    bench.finish()


@pytest.fixture
def amnesia(forgetful: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(forgetful, tmp_path, monkeypatch)
    yield bench
    bench.finish()


ENDED = {"good": S.COMPLETED, "bad": S.FAILED, "vanish": S.FAILED}


def test_all_is_told_while_slurm_works(bench: Bench) -> None:
    ids = bench.submit("good", "bad", "vanish", "hold-1", "hold-2")
    bench.settle(ENDED | {"hold-1": S.RUNNING, "hold-2": S.RUNNING})
    result = bench.results()
    assert result["bad"].reason == "ValueError: bad step"
    assert "without a receipt" in result["vanish"].reason
    assert {run.name: run.job_id for run in result} == ids
    assert result.cancel(["hold-1", "good"]) == {"hold-1": True, "good": False}
    bench.settle(ENDED | {"hold-1": S.CANCELLED, "hold-2": S.RUNNING})
    bench.cluster.run(["scancel", ids["hold-2"]])  # by somebody else
    bench.settle(ENDED | {"hold-1": S.CANCELLED, "hold-2": S.CANCELLED})
    assert bench.launcher.get_job_status(ids["bad"]) is S.FAILED


def test_what_waits_and_is_struck_off_its_array(bench: Bench) -> None:
    bench.cluster.run(["scontrol", "update", "NodeName=node1", "State=DRAIN", "Reason=test"])
    try:
        ids = bench.submit("hold-1", "hold-2", "hold-3")
        assert set(bench.statuses().values()) == {S.PENDING}
        bench.cluster.run(["scancel", ids["hold-1"]])
        assert bench.statuses() == {"hold-1": S.CANCELLED, "hold-2": S.PENDING, "hold-3": S.PENDING}
        assert bench.results().cancel() == {"hold-1": False, "hold-2": True, "hold-3": True}
        assert set(bench.statuses().values()) == {S.CANCELLED}
    finally:
        bench.cluster.run(["scontrol", "update", "NodeName=node1", "State=RESUME"])


def test_what_waits_beside_a_cancelled_task_goes_on_waiting(bench: Bench) -> None:
    bench.cluster.run(["scontrol", "update", "NodeName=node1", "State=DRAIN", "Reason=test"])
    try:
        ids = bench.submit("hold-1", "hold-2", "hold-3", "hold-4")
        assert bench.launcher.cancel_job(ids["hold-3"])
        waiting = {"hold-2": S.PENDING, "hold-4": S.PENDING}
        assert bench.statuses() == waiting | {"hold-1": S.PENDING, "hold-3": S.CANCELLED}
        assert bench.results().cancel(["hold-1", "hold-3"]) == {"hold-1": True, "hold-3": False}
        assert bench.statuses() == waiting | {"hold-1": S.CANCELLED, "hold-3": S.CANCELLED}
        assert bench.results().cancel() == {"hold-1": False, "hold-2": True, "hold-3": False, "hold-4": True}
    finally:
        bench.cluster.run(["scontrol", "update", "NodeName=node1", "State=RESUME"])


def test_squeue_fails(bench: Bench) -> None:
    bench.submit("good", "bad", "vanish", "hold")
    bench.settle(ENDED | {"hold": S.RUNNING})
    bench.break_program("squeue")
    # what ended without a receipt is not told by one that does not answer
    silent = {"good": S.COMPLETED, "bad": S.FAILED, "vanish": S.UNKNOWN, "hold": S.UNKNOWN}
    result = bench.results()
    assert {run.name: run.status for run in result} == silent
    assert {run.name for run in result if run.may_change} == {"vanish", "hold"}
    assert "it is broken" in result["hold"].reason
    with pytest.raises(ConnectionError, match="it is broken"):
        result.cancel(["hold"])
    bench.mend("squeue")
    assert bench.statuses() == ENDED | {"hold": S.RUNNING}


def test_the_controller_hangs(bench: Bench) -> None:
    bench.submit("good", "hold")
    bench.settle({"good": S.COMPLETED, "hold": S.RUNNING})
    bench.cluster.freeze_controller()
    try:
        assert bench.statuses() == {"good": S.COMPLETED, "hold": S.UNKNOWN}
    finally:
        bench.cluster.thaw_controller()
    assert bench.statuses() == {"good": S.COMPLETED, "hold": S.RUNNING}


def crash(cluster: LocalCluster, saved: Path) -> None:
    """End the controller and start it with the state of an earlier moment: what came since was never written."""
    cluster.kill_controller()
    state = cluster.folder / "state"
    shutil.rmtree(state)
    shutil.copytree(saved, state)
    cluster.start_controller()


def test_an_id_is_given_to_another_job_after_a_crash(
    slurm_cluster: Callable[..., LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with slurm_cluster(ClusterSettings(nodes=2)) as cluster:
        bench = Bench(cluster, tmp_path, monkeypatch)
        saved = tmp_path / "saved"
        shutil.copytree(cluster.folder / "state", saved)
        ids = bench.submit("hold-at-work")
        bench.settle({"hold-at-work": S.RUNNING})
        for node in ("node1", "node2"):
            cluster.run(["scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test"])
        ids |= bench.submit("hold-in-queue")
        crash(cluster, saved)
        lost = bench.statuses()
        assert lost["hold-in-queue"] is S.LOST
        assert lost["hold-at-work"] in (S.UNKNOWN, S.PREEMPTED)  # its node ends it, and it may say so

        for name, job_id in ids.items():
            task = job_id.partition("_")[2] or "0"
            words = ["sbatch", "--parsable", "--output=/dev/null", "--job-name=other", f"--array={task}"]
            other = cluster.run(words, text_in="#!/bin/bash\nsleep 60\n").stdout.strip()
            assert f"{other}_{task}" == (job_id if "_" in job_id else f"{job_id}_{task}"), name
        wait_until(lambda: bench.queue().count("RUNNING") == 2, "the other jobs")
        now = bench.statuses()
        assert now["hold-in-queue"] is S.LOST
        assert now["hold-at-work"] in (S.UNKNOWN, S.PREEMPTED)
        assert [bench.launcher.cancel_job(job_id) for job_id in ids.values()] == [False, False]
        assert bench.queue().count("RUNNING") == 2  # they are not ours to cancel

        again = bench.submit("hold-in-queue", "hold-at-work")
        assert set(again.values()).isdisjoint(ids.values())
        bench.settle({"hold-in-queue": S.RUNNING, "hold-at-work": S.RUNNING})
        bench.finish()
        bench.settle({"hold-in-queue": S.COMPLETED, "hold-at-work": S.COMPLETED})


def test_what_slurm_has_forgotten(amnesia: Bench) -> None:
    """MinJobAge of 2 s: with accounts, without sacct, and with slurmdbd stopped."""
    ids = amnesia.submit("good", "bad", "vanish", "hold")
    amnesia.settle(ENDED | {"hold": S.RUNNING})
    wait_until(lambda: ids["vanish"] not in amnesia.queue(), "the controller to forget")
    told = ENDED | {"hold": S.RUNNING}
    wait_until(lambda: amnesia.statuses() == told, "the accounting to catch up")
    untold = told | {"vanish": S.UNKNOWN}
    amnesia.break_program("sacct")
    assert amnesia.statuses() == untold
    assert "sacct: error: it is broken" in amnesia.results()["vanish"].reason
    amnesia.mend("sacct")
    amnesia.cluster.stop_accounting()
    try:
        assert amnesia.statuses() == untold
        amnesia.break_program("squeue")
        assert amnesia.statuses() == untold | {"hold": S.UNKNOWN}
        amnesia.mend("squeue")
    finally:
        amnesia.cluster.start_accounting()
    wait_until(lambda: amnesia.statuses() == told, "the accounting")


def test_the_accounting_alone_is_not_believed_of_what_goes_on(amnesia: Bench) -> None:
    amnesia.submit("hold")
    amnesia.settle({"hold": S.RUNNING})
    amnesia.break_program("squeue")
    sacct = ["sacct", "-X", "--noheader", "--format=State"]
    wait_until(lambda: "RUNNING" in amnesia.cluster.run(sacct).stdout, "the accounting to know the job")
    run = amnesia.results()["hold"]
    assert run.status is S.UNKNOWN
    assert "the accounting says RUNNING" in run.reason
    amnesia.mend("squeue")


def test_a_preempted_run_is_never_called_failed(bench: Bench, tmp_path: Path) -> None:
    name, gate = "hold", tmp_path / "gate"
    ids = bench.submit(name)
    wait_until(bench.results()[name].path.joinpath("held").exists, "the command")
    bench.cluster.run(["scontrol", "requeue", ids[name]])
    seen: set[JobStatus] = set()

    def runs_again() -> bool:
        run = bench.results()[name]
        seen.add(run.status)
        return run.attempts == 2 and run.status is S.RUNNING

    wait_until(runs_again, "the second attempt")
    assert all(status.is_active for status in seen), seen
    assert bench.results()[name].reason == "preempted once"
    gate.touch()
    bench.settle({name: S.COMPLETED})


def test_a_node_fails(bench: Bench) -> None:
    ids = bench.submit("hold")
    bench.settle({"hold": S.RUNNING})
    bench.cluster.run(["scontrol", "update", f"JobId={ids['hold']}", "Requeue=0"])
    bench.cluster.run(["scontrol", "update", "NodeName=node1", "State=DOWN", "Reason=test"])
    try:
        wait_until(lambda: not bench.results()["hold"].status.is_active, "the end of the job")
        run = bench.results()["hold"]
        assert run.status is S.NODE_FAIL
        assert run.reason.startswith("a node failed")  # the run may have saved, being told to end, or may not
    finally:  # it may have come back by itself
        bench.cluster.run(["scontrol", "update", "NodeName=node1", "State=RESUME"], check=False)
        bench.cluster.wait_ready()


def test_what_is_in_slurm_is_not_run_on_this_machine(bench: Bench) -> None:
    ids = bench.submit("hold")
    bench.settle({"hold": S.RUNNING})
    result = bench.launcher.continue_sweep(bench.root / "experiments" / "single", 1)
    run = result["hold"]
    assert (run.status, run.attempts, run.job_id) == (S.RUNNING, 1, ids["hold"])
    notes = list(bench.root.glob("experiments/single/submissions/*/given-up/hold"))
    assert "RUNNING in Slurm as job" in notes[0].read_text()
    assert bench.launcher.cancel_job(ids["hold"])
    bench.settle({"hold": S.CANCELLED})
    assert not bench.launcher.cancel_job(ids["hold"])


SWEEP = """
name: sizes
base:
  experiment_name: hold
  model: {name: m}
  data: {dataset_name: d}
  optimizer: {name: o}
  custom_params: {x: 1.0}
grids:
  - name: grid
    parameters: {custom_params.x: [1.0, 2.0]}
naming: descriptive
execution: slurm
command: bash train.sh
"""


def test_the_verbs(bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.root)
    (bench.root / "sweep.yaml").write_text(SWEEP)
    (bench.root / "pyproject.toml").touch()

    def mtf(*words: str, status: int = 0) -> str:
        assert main(list(words)) == status
        return capsys.readouterr().out

    assert "2 pending" in mtf("submit", "sweep.yaml", "-o", "out", "-j", "1").lower()
    first, second = "hold-x=1.0", "hold-x=2.0"
    wait_until(lambda: "1 pending, 1 running" in mtf("status", "out"), "one of the two")
    lines = {line.split()[0]: line.split() for line in mtf("status", "out").splitlines()}
    assert lines["run"][:3] == ["run", "state", "job"]
    assert lines[first][1:3] == ["RUNNING", lines[first][2]]
    assert "wait for its turn: max_concurrent_jobs" in mtf("explain", "out", second)
    assert "squeue says RUNNING" in mtf("explain", "out", first)
    assert f"{second}: told to save and end" in mtf("cancel", "out", second)
    (bench.root / "gate").touch()
    assert mtf("logs", "out", first, "-f") == ""  # until it is over
    assert "1 cancelled, 1 completed" in mtf("status", "out")
    assert (
        "2 completed" in mtf("submit", "sweep.yaml", "-o", "out") or GridSearchResult.load("out").wait(30).is_complete
    )
    bench.break_program("squeue")
    assert "2 completed" in mtf("status", "out")  # nothing has to be asked
    assert "not asked, the receipt says it all" in mtf("explain", "out", first)
    bench.mend("squeue")
