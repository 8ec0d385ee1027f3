"""job.sh and the submitted script under a real Slurm; skipped where Slurm is not installed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_runs import TOKEN, Runs, crash_back, keep_state, outcomes, steps_taken, wait_for

from mtf_config import SLURMConfig
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.rundir import RunDirectory
from mtf_utils.sections import PreemptionConfig

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.skipif(is_available() is not None, reason=is_available() or "")

Start = Callable[..., LocalCluster]
ALL_STEPS = [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def cluster(slurm_cluster: Start) -> Iterator[LocalCluster]:
    with slurm_cluster(ClusterSettings(nodes=4, kill_wait_s=3)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def runs(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(cluster, tmp_path_factory.mktemp('it\'s 100% "a" sweep $HOME') / "é")


class Case:
    """A run, its job, and what was done to it."""

    def __init__(self, runs: Runs, name: str, *, slurm: SLURMConfig | None = None, ranks: int = 1, **values: object):
        self.runs, self.ranks = runs, ranks
        self.run: RunDirectory = runs.add(name, slurm=slurm, **values)  # type: ignore[arg-type]
        self.job = runs.submit(self.run, slurm=slurm)

    def held(self) -> None:
        self.runs.wait_held(self.run, ranks=self.ranks)

    def tell(self, name: str = "USR1") -> None:
        self.held()
        self.runs.cluster.run(["scancel", "--batch", f"--signal={name}", self.job])


@pytest.fixture(scope="module")
def cases(runs: Runs) -> dict[str, Case]:
    """All of them go on at once: most of their time is Slurm's waiting."""
    many = SLURMConfig(nodes=2, ntasks_per_node=2)
    alone = SLURMConfig(additional_args=["--nodelist=node1"], exclusive=True)
    cases = {
        "preempted": Case(runs, "preempted", slurm=alone),
        "told": Case(runs, "told"),
        "requeued": Case(runs, "requeued"),
        "cancelled": Case(runs, "cancelled"),
        "withdrawn": Case(runs, "withdrawn"),
        "forbidden": Case(runs, "forbidden", slurm=SLURMConfig(requeue=False)),
        "enough": Case(runs, "enough", max_preemptions=0),
        "many": Case(runs, "many", slurm=many, ranks=4),
        "many-cancelled": Case(runs, "many-cancelled", slurm=many, ranks=4),
    }
    cases["preempted"].held()
    runs.send("#!/bin/sh\nsleep 1\n", "--partition=high", "--exclusive", "--nodelist=node1", "--output=/dev/null")
    (runs.folder / "cancelled").mkdir()
    (runs.folder / "cancelled" / "withdrawn").touch()
    for name in ("told", "withdrawn", "forbidden", "enough", "many"):
        cases[name].tell()
    cases["requeued"].held()
    runs.cluster.run(["scontrol", "requeue", cases["requeued"].job])
    for name in ("cancelled", "many-cancelled"):
        cases[name].held()
        runs.cluster.run(["scancel", cases[name].job])
    return cases


@pytest.mark.parametrize("name", ["preempted", "told", "requeued", "many"])
def test_it_goes_on_where_it_was(runs: Runs, cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    assert runs.wait_over(case.job) == "COMPLETED"
    assert outcomes(case.run) == ["preempted", "finished"]
    assert steps_taken(case.run) == ALL_STEPS
    receipts = [attempt.started() for attempt in case.run.attempts()]
    assert [(r.restart, r.job_id, r.token) for r in receipts if r] == [(0, case.job, TOKEN), (1, case.job, TOKEN)]


@pytest.mark.parametrize(("name", "by"), [("preempted", "TERM"), ("told", "USR1"), ("requeued", "TERM")])
def test_the_signal_arrives(runs: Runs, cases: dict[str, Case], name: str, by: str) -> None:
    runs.wait_over(cases[name].job)
    assert f"told by SIG{by}, saved 2" in cases[name].run.log_file(1).read_text()


@pytest.mark.parametrize("name", ["cancelled", "withdrawn", "many-cancelled"])
def test_what_was_cancelled_stays_cancelled(runs: Runs, cases: dict[str, Case], name: str) -> None:
    assert runs.wait_over(cases[name].job) == ("FAILED" if name == "withdrawn" else "CANCELLED")
    assert outcomes(cases[name].run) == ["preempted"]


def test_a_job_that_may_not_be_requeued_says_so(runs: Runs, cases: dict[str, Case]) -> None:
    case = cases["forbidden"]
    runs.wait_over(case.job)
    receipt = case.run.attempt(1).finished()
    assert receipt is not None
    assert receipt.outcome == "wants-requeue"
    assert "Slurm does not requeue the job: Requested operation is presently disabled" in (receipt.reason or "")


def test_one_preemption_too_many(runs: Runs, cases: dict[str, Case]) -> None:
    runs.wait_over(cases["enough"].job)
    receipt = cases["enough"].run.attempt(1).finished()
    assert receipt is not None
    assert (receipt.outcome, receipt.exit_status) == ("do-not-requeue", 76)
    assert receipt.reason == "preempted once, and preemption.max_preemptions is 0"
    assert receipt.limit == "preemption"


def test_every_task_of_srun_is_told(runs: Runs, cases: dict[str, Case]) -> None:
    runs.wait_over(cases["many"].job)
    log = cases["many"].run.log_file(1).read_text()
    assert sorted(line for line in log.splitlines() if ": rank" in line) == [
        f"{rank}: rank {rank} told by SIGUSR1, saved 2" for rank in range(4)
    ]


def test_an_array_runs_each_run_once(runs: Runs) -> None:
    batch = [runs.add(f"array-{number}", hold=-1) for number in range(3)]
    job = runs.submit(*batch, array=True, throttle=2, first_attempt=3)
    again = runs.submit(*batch, array=True, first_attempt=3)  # as after an answer that got lost
    for number, run in enumerate(batch):
        assert runs.wait_over(f"{job}_{number}") == runs.wait_over(f"{again}_{number}") == "COMPLETED"
        assert outcomes(run) == ["finished"]
        assert steps_taken(run) == ALL_STEPS
        started = run.attempt(3).started()
        assert started is not None
        assert started.job_id in (f"{job}_{number}", f"{again}_{number}")
    out = "".join(path.read_text() for path in runs.folder.glob("*.out"))
    assert sum(line.startswith("mtf: array-") and line.endswith("nothing to do") for line in out.splitlines()) == 3


def test_a_task_is_requeued_by_itself(runs: Runs) -> None:
    """The last task of an array has the array's own number as its job id."""
    batch = [runs.add(f"single-{number}", hold=2 if number == 1 else -1) for number in range(2)]
    job = runs.submit(*batch, array=True)
    runs.wait_held(batch[1])
    runs.wait_over(f"{job}_0")
    runs.cluster.run(["scancel", "--batch", "--signal=USR1", f"{job}_1"])
    runs.wait_over(f"{job}_1")
    assert [outcomes(run) for run in batch] == [["finished"], ["preempted", "finished"]]


def test_what_the_launcher_inherits_from_a_job_of_its_own_does_no_harm(runs: Runs) -> None:
    run = runs.add("inherits", hold=-1)
    job = runs.submit(run, environ={"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_JOB_ID": "99", "MTF_JOB_ID": ""})
    assert runs.wait_over(job) == "COMPLETED"
    started = run.attempt(1).started()
    assert started is not None
    assert started.job_id == job


def test_a_missing_line_is_said_in_the_output(runs: Runs) -> None:
    run = runs.add("short", hold=-1)
    job = runs.submit(run, array=True, first_attempt=0)
    assert runs.wait_over(f"{job}_0") == "FAILED"
    out = "".join(path.read_text() for path in runs.folder.glob("*.out"))
    assert "has no line for task 0" in out
    assert run.attempts() == []


def test_the_options_survive_the_way_through_the_script(runs: Runs) -> None:
    """sbatch reads the #SBATCH lines as they were meant: a comment with everything that means something there."""
    comment = """a 'b' "c" \\ #d % $HOME"""
    config = SLURMConfig(time_limit="2-12", mem="900MB", mail_type=["NONE"], additional_args=[f"--comment={comment}"])
    run = runs.add("lines", hold=-1)
    job = runs.submit(run, slurm=config)
    script = runs.cluster.run(["scontrol", "write", "batch_script", job, "-"]).stdout
    alone = runs.send(script, "--hold")
    shown = runs.cluster.run(["scontrol", "show", "job", "-o", alone]).stdout
    runs.cluster.run(["scancel", alone])
    assert f"Comment={comment}" in shown
    assert "TimeLimit=2-12:00:00" in shown
    assert f"StdOut={str(runs.folder).replace('%', '%%')}/" in shown
    assert f"JobName=test-{TOKEN}." in shown
    assert runs.wait_over(job) == "COMPLETED"


@pytest.mark.slow
def test_it_waits_for_a_controller_that_is_away(slurm_cluster: Start, tmp_path: Path) -> None:
    with slurm_cluster(ClusterSettings(nodes=1, message_timeout_s=2)) as cluster:
        runs = Runs(cluster, tmp_path / "sweep")
        case = Case(runs, "patient")
        case.held()
        started = case.run.attempt(1).started()
        assert started is not None
        saved, held = cluster.folder / "state" / "job_state", case.run.path / "held-1-0"
        runs.send("#!/bin/sh\n", "--hold")  # a change, upon which the controller saves what it knows
        wait_for(lambda: saved.stat().st_mtime > held.stat().st_mtime, "the controller to save that the job runs", 30)
        cluster.kill_controller()
        os.kill(started.pid, signal.SIGUSR1)
        wait_for(lambda: "cannot requeue yet" in case.run.log_file(1).read_text(), "the first try")
        cluster.start_controller()
        runs.wait_over(case.job)
        assert outcomes(case.run) == ["preempted", "finished"]
        assert steps_taken(case.run) == ALL_STEPS


@pytest.mark.slow
def test_a_controller_that_forgets_that_a_job_ran_has_it_go_on(slurm_cluster: Start, tmp_path: Path) -> None:
    """It was killed before it had saved that the job started and was requeued, and starts it as if anew."""
    with slurm_cluster(ClusterSettings(nodes=1)) as cluster:
        runs = Runs(cluster, tmp_path / "sweep")
        run = runs.add("forgotten")
        job = runs.submit(run, slurm=SLURMConfig(additional_args=["--begin=now+1hour"]))
        keep_state(cluster, tmp_path / "kept")
        cluster.run(["scontrol", "update", f"JobId={job}", "StartTime=now"])
        runs.wait_held(run)
        cluster.run(["scancel", "--batch", "--signal=USR1", job])
        wait_for(lambda: outcomes(run) == ["preempted"] and runs.state(job) == "PENDING", "the requeue")
        crash_back(cluster, tmp_path / "kept")
        cluster.run(["scontrol", "update", f"JobId={job}", "StartTime=now"])
        assert runs.wait_over(job) == "COMPLETED"
        assert outcomes(run) == ["preempted", "finished"]
        assert steps_taken(run) == ALL_STEPS
        receipts = [attempt.started() for attempt in run.attempts()]
        assert [(receipt.restart, receipt.job_id) for receipt in receipts if receipt] == [(0, job), (0, job)]


@pytest.mark.slow
def test_three_attempts_without_progress_are_enough(runs: Runs) -> None:
    run = runs.add("stuck", hold=0, mode="always")
    job = runs.submit(run)
    for attempt in (1, 2, 3, 4):
        runs.wait_held(run, attempt)
        runs.cluster.run(["scancel", "--batch", "--signal=USR1", job])
    runs.wait_over(job)
    # the first attempt leaves a checkpoint; the three that follow leave nothing new
    assert outcomes(run) == ["preempted"] * 3 + ["do-not-requeue"]


def _preempt(runs: Runs, case: Case) -> None:
    case.held()
    runs.send("#!/bin/sh\nsleep 1\n", "--partition=high", "--exclusive", "--nodes=2", "--output=/dev/null")


@pytest.mark.slow
@pytest.mark.parametrize("send_user_signal", [False, True])
def test_preemption_with_a_grace_period(slurm_cluster: Start, tmp_path: Path, send_user_signal: bool) -> None:
    settings = ClusterSettings(nodes=2, grace_s=5, send_user_signal=send_user_signal, kill_wait_s=3)
    with slurm_cluster(settings) as cluster:
        runs = Runs(cluster, tmp_path / "sweep")
        many = SLURMConfig(nodes=2, ntasks_per_node=2)
        cases = [Case(runs, "one"), Case(runs, "many", slurm=many, ranks=4)]
        cases[0].held()
        _preempt(runs, cases[1])
        for case in cases:
            runs.wait_over(case.job)
            assert outcomes(case.run) == ["preempted", "finished"]
            assert steps_taken(case.run) == ALL_STEPS
        by = "SIGUSR1" if send_user_signal else "SIGTERM"
        assert f"told by {by}" in cases[0].run.log_file(1).read_text()


@pytest.mark.slow
def test_time_limits(runs: Runs) -> None:
    """With the warning before it, and without any: then TERM is the warning."""
    warned = runs.add("warned")
    config = SLURMConfig(time_limit="2", signal="USR1@60")
    jobs = [runs.submit(warned, slurm=config, preemption=PreemptionConfig())]
    unwarned = runs.add("unwarned")
    jobs.append(runs.submit(unwarned, slurm=SLURMConfig(time_limit="1", signal="USR1@1")))
    for run, job in zip((warned, unwarned), jobs, strict=True):
        assert runs.wait_over(job) == "COMPLETED"
        assert outcomes(run) == ["preempted", "finished"]
        assert steps_taken(run) == ALL_STEPS
    assert "told by SIGUSR1" in warned.log_file(1).read_text()
