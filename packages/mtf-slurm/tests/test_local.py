"""The local launcher with real processes: N at a time, kills, failures, limits."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from mtf_config import ExecutionMode
from mtf_slurm import GridSearchResult, JobStatus, SLURMError, SweepLockedError
from mtf_slurm.cancelling import cancel_runs
from mtf_slurm.local import LocalRunner
from mtf_slurm.lock import hold
from mtf_slurm.processes import environment_of
from mtf_slurm.submissions import Submissions
from mtf_utils.rundir import RunDirectory, SweepDirectory

LOCAL, DRY_RUN = ExecutionMode.LOCAL, ExecutionMode.DRY_RUN


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def folder(project: Path) -> Path:
    return project / "experiments" / "sweep"


def pid_of(run: RunDirectory) -> int:
    return int((run.path / "pid").read_text())


def starts(run: RunDirectory) -> list[str]:
    return (run.path / "starts").read_text().split()


def losses(run: RunDirectory) -> list[str]:
    """The metrics without the clock."""
    return [line.split('"time"')[0] for line in run.metrics_file.read_text().splitlines()]


def test_n_at_a_time(launcher, make_search, folder, gate, in_background, wait_until, runs_of) -> None:
    search = make_search({"custom_params.x": [1.0, 2.0, 3.0, 4.0, 5.0]}, hold_at=1, gate=str(gate))
    call = in_background(lambda: launcher.submit_sweep(search, folder, LOCAL, 2))
    wait_until(lambda: sum((run.path / "held").exists() for run in runs_of(folder).values()) == 2)
    # two are at work and hold; were there room for a third, it would have been claimed before the second held
    assert sum(len(run.attempts()) for run in runs_of(folder).values()) == 2
    gate.touch()
    result = call.result()
    assert result.counts == {JobStatus.COMPLETED: 5}
    assert [run.metrics["val_loss"] for run in result] == [x / 3 for x in (1.0, 2.0, 3.0, 4.0, 5.0)]


@pytest.mark.parametrize("whom", ["group", "trainer", "job.sh"])
def test_a_killed_run_is_started_again_and_goes_on(
    launcher, make_search, folder, gate, in_background, wait_until, runs_of, whom: str
) -> None:
    search = make_search({"custom_params.x": [1.0, 2.0]}, hold_at=2, gate=str(gate))
    call = in_background(lambda: launcher.submit_sweep(search, folder, LOCAL, 2))
    run = wait_until(lambda: runs_of(folder).get("tiny-x=1.0"))
    wait_until((run.path / "held").exists)
    trainer, started = pid_of(run), run.attempt(1).started()
    if whom == "group":
        os.killpg(started.pid, signal.SIGKILL)
    else:
        os.kill(trainer if whom == "trainer" else started.pid, signal.SIGKILL)
    wait_until(lambda: len(starts(run)) == 2)
    assert not is_running(trainer)  # never two in one folder
    gate.touch()
    result = call.result()
    assert result.is_complete
    killed, undisturbed = result["tiny-x=1.0"], result["tiny-x=2.0"]
    assert (killed.attempts, undisturbed.attempts) == (2, 1)
    assert len(losses(run)) == 3
    assert killed.metrics["val_loss"] * 2 == undisturbed.metrics["val_loss"]


def test_what_a_killed_job_script_left_is_ended_also_when_nothing_follows(
    launcher, make_search, folder, gate, in_background, wait_until, runs_of
) -> None:
    call = in_background(lambda: launcher.submit_sweep(make_search({}, hold_at=1, gate=str(gate)), folder, LOCAL))
    run = wait_until(lambda: next(iter(runs_of(folder).values()), None))
    wait_until((run.path / "held").exists)
    submissions = Submissions(SweepDirectory(folder))
    submissions.cancel(submissions.all()[-1], run.name)  # so that no next attempt ends it
    trainer = pid_of(run)
    os.kill(run.attempt(1).started().pid, signal.SIGKILL)
    assert call.result().runs[0].status is JobStatus.CANCELLED
    wait_until(lambda: not is_running(trainer), "the end of the trainer")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_preempted_run_is_continued_at_once(
    launcher, make_search, folder, gate, in_background, wait_until, runs_of
) -> None:
    call = in_background(lambda: launcher.submit_sweep(make_search({}, hold_at=2, gate=str(gate)), folder, LOCAL))
    run = wait_until(lambda: next(iter(runs_of(folder).values()), None))
    wait_until((run.path / "held").exists)
    os.kill(run.attempt(1).started().pid, signal.SIGTERM)
    wait_until(lambda: len(starts(run)) == 2)
    assert run.attempt(1).finished().outcome == "preempted"
    gate.touch()
    assert call.result().counts == {JobStatus.COMPLETED: 1}
    assert len(losses(run)) == 3


def test_a_failing_run_leaves_the_others_alone_and_says_why(launcher, make_search, folder) -> None:
    search = make_search({"custom_params.fail_at": [None, 1]})
    result = launcher.submit_sweep(search, folder, LOCAL, 1)
    assert result.counts == {JobStatus.COMPLETED: 1, JobStatus.FAILED: 1}
    failed = next(run for run in result if run.status is JobStatus.FAILED)
    assert result.failures() == {failed.name: "ValueError: bad step 1"}
    assert failed.attempts == 1


def test_repeating_the_call_tries_failed_runs_again_and_no_others(
    launcher, make_search, folder, project, runs_of
) -> None:
    search = make_search({"custom_params.fail_at": [None, 1]})
    launcher.submit_sweep(search, folder, LOCAL)
    repeated = launcher.submit_sweep(search, folder, LOCAL)
    assert sorted(run.attempts for run in repeated) == [1, 2]
    train = project / "train.py"
    train.write_text(train.read_text().replace("fail_at", "mended"))
    mended = launcher.submit_sweep(search, folder, LOCAL)
    assert mended.is_complete
    assert sorted(run.attempts for run in mended) == [1, 3]
    assert launcher.submit_sweep(search, folder, LOCAL).to_dict()["runs"][0]["attempts"] == 1


def test_three_attempts_without_progress_are_enough(launcher, make_search, folder) -> None:
    result = launcher.submit_sweep(make_search({}, exit=75), folder, LOCAL)
    (run,) = result
    assert (run.status, run.attempts) == (JobStatus.PREEMPTED, 3)
    assert "3 attempts in a row ended without progress" in run.reason
    assert launcher.submit_sweep(make_search({}, exit=75), folder, LOCAL).runs[0].attempts == 6


def test_progress_resets_the_count(launcher, make_search, folder, project) -> None:
    train = project / "train.py"
    train.write_text(train.read_text().replace("    step += 1\n", "    step += 1\n    stop.append(15)\n"))
    (run,) = launcher.submit_sweep(make_search({}, steps=6), folder, LOCAL)
    # one step an attempt, preempted after each; the last step ends the loop
    assert (run.status, run.attempts) == (JobStatus.COMPLETED, 6)


def test_max_preemptions_is_respected_also_when_repeated(launcher, make_search, folder, project) -> None:
    train = project / "train.py"
    train.write_text(train.read_text().replace("    step += 1\n", "    step += 1\n    stop.append(15)\n"))
    search = make_search({}, steps=9, preemption={"max_preemptions": 1})
    (run,) = launcher.submit_sweep(search, folder, LOCAL)
    assert (run.status, run.attempts) == (JobStatus.PREEMPTED, 2)
    assert run.reason == "preempted 2 times, and preemption.max_preemptions is 1"
    assert launcher.submit_sweep(search, folder, LOCAL).runs[0].attempts == 2
    raised = make_search({}, steps=9, preemption={"max_preemptions": 20})
    assert launcher.submit_sweep(raised, folder, LOCAL).is_complete


def test_do_not_requeue_is_final(launcher, make_search, folder) -> None:
    search = make_search({}, exit=76)
    for _ in range(2):
        (run,) = launcher.submit_sweep(search, folder, LOCAL)
        assert (run.status, run.attempts) == (JobStatus.FAILED, 1)
    assert run.reason == "it said that it must not run again (status 76): about to end"


def test_an_attempt_on_another_host_is_not_started_beside(launcher, make_search, folder, runs_of) -> None:
    search = make_search({})
    launcher.submit_sweep(search, folder, ExecutionMode.DRY_RUN)
    (run,) = runs_of(folder).values()
    attempt = run.attempt(1)
    attempt.path.mkdir(parents=True)
    text = '{"version": 1, "attempt": 1, "token": "t", "host": "elsewhere", "pid": 1, "started_at": "x"}'
    attempt.started_file.write_text(text)
    (result,) = launcher.submit_sweep(search, folder, LOCAL)
    assert (result.status, result.attempts) == (JobStatus.UNKNOWN, 1)
    assert "process 1 on elsewhere" in result.reason
    attempt.started_file.unlink()  # as the reason given to the launcher's user says
    os.utime(attempt.path, (0, 0))
    assert launcher.submit_sweep(search, folder, LOCAL).runs[0].attempts == 2


def test_a_receipt_that_cannot_be_read_concerns_its_run_only(launcher, make_search, folder, runs_of) -> None:
    search = make_search({"custom_params.x": [1.0, 2.0]})
    launcher.submit_sweep(search, folder, ExecutionMode.DRY_RUN)
    attempt = runs_of(folder)["tiny-x=1.0"].attempt(1)
    attempt.path.mkdir(parents=True)
    attempt.started_file.write_text("{")
    result = launcher.submit_sweep(search, folder, LOCAL)
    assert result["tiny-x=1.0"].status is JobStatus.UNKNOWN
    assert "started.json" in result["tiny-x=1.0"].reason
    assert result["tiny-x=2.0"].status is JobStatus.COMPLETED


def test_gpus_and_threads_are_dealt_out(launcher, make_search, folder, monkeypatch, project, runs_of) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "9")
    train = project / "train.py"
    note = "(run.path / 'env').write_text(' '.join(os.environ[k] for k in ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS'"
    train.write_text(train.read_text() + f"{note}, 'MKL_NUM_THREADS')))\n")
    launcher.submit_sweep(make_search({"custom_params.x": [1.0, 2.0, 3.0]}), folder, LOCAL)
    seen = [(run.path / "env").read_text().split() for run in runs_of(folder).values()]
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert {gpu for gpu, _, _ in seen} == {"3", "5"}  # two at a time by default, one GPU each
    assert {(omp, mkl) for _, omp, mkl in seen} == {(threads, "9")}


def at_work(runs: dict[str, RunDirectory], count: int) -> list[RunDirectory]:
    """The runs that hold, if there are so many of them; else none."""
    held = [run for run in runs.values() if (run.path / "held").exists()]
    return held if len(held) == count else []


def test_every_run_at_work_has_a_gpu_of_its_own(
    launcher, make_search, folder, gate, in_background, wait_until, runs_of, monkeypatch
) -> None:
    monkeypatch.setattr("mtf_slurm.local.visible_gpus", lambda: ["0", "1", "GPU-2"])
    values = [float(x) for x in range(1, 6)]
    search = make_search({"custom_params.x": values}, hold_at=1, gate=str(gate))
    call = in_background(lambda: launcher.submit_sweep(search, folder, LOCAL))
    held = wait_until(lambda: at_work(runs_of(folder), 3))
    gpus = sorted(environment_of(pid_of(run))["CUDA_VISIBLE_DEVICES"] for run in held)
    assert gpus == ["0", "1", "GPU-2"]  # as many at a time as there are GPUs
    gate.touch()
    assert call.result().counts == {JobStatus.COMPLETED: 5}


@pytest.mark.parametrize(("jobs", "sharing"), [(2, 2), (64, 3)], ids=["places", "more places than runs"])
def test_threads_are_shared_by_as_many_as_can_be_at_work(
    launcher, make_search, folder, monkeypatch, project, runs_of, jobs: int, sharing: int
) -> None:
    monkeypatch.setattr("mtf_slurm.slots._usable_cores", lambda: 12)
    monkeypatch.setattr("mtf_slurm.local.visible_gpus", list)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    train = project / "train.py"
    train.write_text(train.read_text() + "(run.path / 'env').write_text(os.environ['OMP_NUM_THREADS'])\n")
    launcher.submit_sweep(make_search({"custom_params.x": [1.0, 2.0, 3.0]}), folder, LOCAL, jobs)
    assert {(run.path / "env").read_text() for run in runs_of(folder).values()} == {str(12 // sharing)}


def test_inside_an_allocation_runs_are_local_all_the_same(launcher, make_search, folder, monkeypatch, runs_of) -> None:
    for name, value in {"SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": "2", "MTF_FIRST_ATTEMPT": "7"}.items():
        monkeypatch.setenv(name, value)
    assert launcher.submit_sweep(make_search({}), folder, LOCAL).is_complete
    (run,) = runs_of(folder).values()
    assert [attempt.number for attempt in run.attempts()] == [1]
    assert run.attempt(1).started().job_id is None


def test_one_launcher_at_a_time(launcher, make_search, folder) -> None:
    folder.mkdir(parents=True)
    with hold(SweepDirectory(folder)), pytest.raises(SweepLockedError, match=f"process {os.getpid()} on "):
        launcher.submit_sweep(make_search({}), folder, LOCAL)
    assert launcher.submit_sweep(make_search({}), folder, LOCAL).is_complete


def test_the_display_sees_every_run_to_its_end(launcher, make_search, folder, display) -> None:
    launcher.submit_sweep(make_search({"custom_params.fail_at": [None, 1]}), folder, LOCAL)
    done, failed = display.frames[-1]
    assert (done.status, done.attempts, done.telemetry.global_step) == (JobStatus.COMPLETED, 1, 3)
    assert (failed.status, failed.reason) == (JobStatus.FAILED, "ValueError: bad step 1")
    assert display.closed


def test_a_bad_number_of_places_is_refused(launcher, make_search, folder) -> None:
    with pytest.raises(SLURMError, match="max_concurrent_jobs=0"):
        launcher.submit_sweep(make_search({}), folder, LOCAL, 0)
    assert not folder.exists()


def test_a_run_that_is_cancelled_while_it_begins_is_ended(launcher, make_search, folder, gate, runs_of) -> None:
    """Whoever cancelled it saw no process yet; the launcher had decided to start it."""
    launcher.submit_sweep(make_search({}, hold_at=1, gate=str(gate)), folder, DRY_RUN)
    directory = SweepDirectory(folder)
    (name,) = runs_of(folder)
    submissions = Submissions(directory)
    submission = submissions.add(LOCAL, [name])

    def sleep(seconds: float) -> None:
        submissions.cancel(submission, name)
        time.sleep(seconds)

    LocalRunner(directory, submission, sleep=sleep).run()
    (run,) = GridSearchResult.load(folder)
    assert (run.status, run.attempts) == (JobStatus.CANCELLED, 1)


def test_a_run_that_begins_while_it_is_cancelled_is_ended(
    launcher, make_search, folder, gate, in_background, wait_until, runs_of, monkeypatch
) -> None:
    """The launcher found it not cancelled yet; whoever cancels it had found it waiting."""
    search = make_search({"custom_params.x": [1.0, 2.0]}, hold_at=1, gate=str(gate))
    call = in_background(lambda: launcher.submit_sweep(search, folder, LOCAL, 1))
    wait_until(lambda: folder.exists() and len(runs_of(folder)) == 2)
    first, second = runs_of(folder).values()
    wait_until((first.path / "held").exists)
    cancel = Submissions.cancel

    def late(self: Submissions, submission: Any, name: str) -> None:
        gate.touch()
        wait_until((first.path / "result.json").exists)
        gate.unlink()
        wait_until((second.path / "held").exists)
        cancel(self, submission, name)

    monkeypatch.setattr(Submissions, "cancel", late)
    assert cancel_runs(SweepDirectory(folder), [second.name]) == {second.name: True}
    assert [run.status for run in call.result()] == [JobStatus.COMPLETED, JobStatus.CANCELLED]


def test_the_launcher_sleeps_between_its_looks(launcher, make_search, folder) -> None:
    launcher.submit_sweep(make_search({}), folder, ExecutionMode.DRY_RUN)
    directory = SweepDirectory(folder)
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        time.sleep(seconds)

    submission = Submissions(directory).add(LOCAL, [run.name for run in directory.runs()])
    LocalRunner(directory, submission, sleep=sleep, poll_s=0.07).run()
    assert naps
    assert set(naps) == {0.07}
