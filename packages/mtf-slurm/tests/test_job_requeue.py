"""job.sh inside a job of Slurm: requeueing, giving up, several tasks. Slurm's programs are stand-ins."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_folders import Counter, Script, Slurm, text_of

from mtf_config import RetryConfig
from mtf_utils.exits import EXIT_DO_NOT_REQUEUE, EXIT_PREEMPTED
from mtf_utils.rundir import Ask


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    (tmp_path / "runs").mkdir()
    slurm = Slurm(Script(tmp_path / "runs"))
    slurm.answer("squeue", "echo RUNNING None")
    slurm.answer("scontrol", "true")
    return slurm


REQUEUE = "scontrol requeue 79_3"
GROWING = "import os; open(os.environ['MTF_RUN_DIR'] + '/metrics.jsonl', 'a').write('x'); "
LOOK = "squeue --noheader --jobs=79_3 --format=%T %r %L"


@pytest.mark.parametrize("code", ["raise SystemExit(75)", "import os; os.kill(os.getpid(), 15)"])
def test_a_preempted_job_requeues_itself_by_its_array_and_index(slurm: Slurm, code: str) -> None:
    slurm.script.write(code)
    assert slurm.execute()[0] == EXIT_PREEMPTED
    assert slurm.asked() == [LOOK, REQUEUE]
    assert slurm.script.receipt().outcome == "preempted"


@pytest.mark.parametrize("status", [0, 1, 76])
def test_no_other_end_asks_slurm_for_anything(slurm: Slurm, status: int) -> None:
    slurm.script.write(f"raise SystemExit({status})")
    slurm.execute()
    assert slurm.asked() == []


def test_outside_a_submission_nothing_is_requeued(slurm: Slurm) -> None:
    """As in an interactive allocation."""
    slurm.script.write("raise SystemExit(75)")
    slurm.script.run.metrics_file.write_text("x")
    slurm.execute(MTF_SWEEP_DIR="")
    assert slurm.asked() == []


@pytest.mark.parametrize(("state", "requeued"), [
    ("RUNNING None 1:00:00", True), ("SIGNALING None 9:10", True), ("COMPLETING TimeLimit 0:00", True),
    ("COMPLETING None 5:00", False), ("PENDING BeginTime 5:00", False), ("CANCELLED None 5:00", False), ("", False),
])  # fmt: skip
def test_only_a_job_that_nobody_else_decides_about_is_requeued(slurm: Slurm, state: str, requeued: bool) -> None:
    slurm.script.write("raise SystemExit(75)")
    slurm.answer("squeue", f"echo {state}")
    slurm.execute()
    assert slurm.asked() == ([LOOK, REQUEUE] if requeued else [LOOK])
    assert slurm.script.receipt().outcome == "preempted"


def test_a_cancelled_run_is_not_requeued_and_not_started(slurm: Slurm) -> None:
    slurm.script.write("raise SystemExit(75)")
    mark = slurm.sweep / "submissions" / "t1" / "cancelled" / "run-1"
    slurm.script.write(
        f"import pathlib; p = pathlib.Path({str(mark)!r}); p.parent.mkdir(parents=True); p.touch(); exit(75)"
    )
    assert slurm.execute()[0] == EXIT_PREEMPTED
    assert slurm.asked() == []
    assert slurm.execute(restart=1) == (0, "mtf: run-1: cancelled, nothing to do\n")
    assert len(slurm.script.run.attempts()) == 1


def test_a_run_costs_few_programs(slurm: Slurm, tmp_path: Path) -> None:
    """There are thousands of them, and each program is a millisecond of every one."""
    counter = Counter(tmp_path)
    slurm.script.run.attempts_dir.mkdir()  # as the launcher leaves it
    slurm.script.run.logs_dir.mkdir()
    slurm.script.write("pass")
    slurm.execute(PATH=str(counter.programs))
    assert counter.seen() == ["bash", "mkdir", "sync", "mv"]


def test_what_has_finished_is_not_run_again_by_a_controller_that_missed_it(slurm: Slurm) -> None:
    """One that was away when the task ended requeues it."""
    slurm.script.write("open('ran', 'a').write('x')")
    assert slurm.execute()[0] == 0
    status, said = slurm.execute(restart=1)
    assert (status, len(slurm.script.run.attempts())) == (0, 1)
    assert "nothing to do" in said
    assert (slurm.script.root / "ran").read_text() == "x"


OVER = "raise SystemExit(75)"


@pytest.mark.parametrize(("outcome", "goes_on"), [
    ("preempted", True), ("wants-requeue", True), ("failed", False), ("do-not-requeue", False),
])  # fmt: skip
def test_a_job_that_runs_again_under_an_old_restart_count_goes_on(slurm: Slurm, outcome: str, goes_on: bool) -> None:
    """A controller was killed before it had saved that it requeued the job. A receipt says that the attempt is over."""
    slurm.script.write(
        "from mtf_utils.rundir import *\n"
        "run, attempt = current_run()\n"
        "if attempt.number < 3:\n"
        f"    FinishReceipt(attempt=attempt.number, outcome=Outcome({outcome!r}), finished_at=now())"
        ".write(attempt.finished_file)\n"
    )
    slurm.execute()
    _, said = slurm.execute()
    assert len(slurm.script.run.attempts()) == (2 if goes_on else 1)
    assert ("attempt 1 is taken, nothing to do" in said) is not goes_on
    if goes_on:
        assert slurm.execute(restart=1)[0] == 0  # nor is the count that is told next taken for news
        assert slurm.script.receipt(3).outcome == "finished"
        started = slurm.script.run.attempt(3).started()
        assert started is not None
        assert started.restart == 1


def test_a_job_that_runs_again_after_a_kill_goes_on(slurm: Slurm) -> None:
    """It left no receipt, but was on this host, and its process is gone."""
    slurm.script.write(
        "import os; a = os.environ['MTF_ATTEMPT']; open('ran', 'a').write(a); a == '1' and os.kill(os.getppid(), 9)"
    )
    assert slurm.execute()[0] == -signal.SIGKILL
    assert slurm.execute()[0] == 0
    assert (slurm.script.root / "ran").read_text() == "12"


@pytest.mark.parametrize("change", [
    {"SLURM_ARRAY_TASK_ID": "4"}, {"MTF_TOKEN": "t2"}, {"SLURM_ARRAY_JOB_ID": "80"},
])  # fmt: skip
def test_another_job_takes_no_attempt_for_its_own(slurm: Slurm, change: dict[str, str]) -> None:
    slurm.script.write(OVER)
    slurm.execute()
    assert slurm.execute(**change)[0] == 0
    assert len(slurm.script.run.attempts()) == 1


@pytest.mark.parametrize("on_this_host", [True, False])
def test_nothing_runs_beside_an_attempt_that_may_be_at_work(slurm: Slurm, on_this_host: bool) -> None:
    slurm.script.write(OVER)
    slurm.execute()
    attempt = slurm.script.run.attempt(1)
    attempt.finished_file.unlink()
    started = attempt.started()
    assert started is not None
    started.pid, started.host = os.getpid(), started.host if on_this_host else "another"
    started.write(attempt.started_file)
    assert slurm.execute()[0] == 0
    assert len(slurm.script.run.attempts()) == 1


def test_a_controller_that_is_away_is_asked_again(slurm: Slurm) -> None:
    slurm.script.write("raise SystemExit(75)")
    away = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    slurm.answer("squeue", away, "echo RUNNING None")
    slurm.answer("scontrol", "echo 'Socket timed out on send/recv operation' >&2; exit 1", "true")
    slurm.execute()
    assert slurm.asked() == [LOOK, LOOK, REQUEUE, LOOK, REQUEUE]
    assert slurm.script.receipt().outcome == "preempted"
    assert text_of(slurm.script.run.log_file(1)).count("cannot requeue yet") == 2


def test_a_timed_out_request_that_was_carried_out_is_not_repeated(slurm: Slurm) -> None:
    slurm.script.write("raise SystemExit(75)")
    slurm.answer("squeue", "echo RUNNING None", "echo COMPLETING None")
    slurm.answer("scontrol", "echo 'Socket timed out on send/recv operation' >&2; exit 1")
    slurm.execute()
    assert slurm.asked() == [LOOK, REQUEUE, LOOK]


@pytest.mark.parametrize("program", ["squeue", "scontrol"])
def test_a_refusal_becomes_the_receipt(slurm: Slurm, program: str) -> None:
    slurm.script.write("raise SystemExit(75)")
    slurm.answer(program, "echo 'note'; echo 'slurm \"says\" no\\way' >&2; exit 1")
    assert slurm.execute()[0] == EXIT_PREEMPTED
    receipt = slurm.script.receipt()
    assert receipt.outcome == "wants-requeue"
    assert receipt.reason == 'the state is saved, but Slurm does not requeue the job: slurm "says" no\\way'


def test_slurm_that_is_not_on_the_node_is_a_refusal(slurm: Slurm) -> None:
    slurm.script.write("raise SystemExit(75)")
    (slurm.programs / "squeue").unlink()
    links = slurm.sweep / "bin"
    links.mkdir()
    for name in ("bash", "mkdir", "mv", "rm", "date", "uname", "sync", "wc", "ls", "tail", "grep", "cat"):
        (links / name).symlink_to(f"/usr/bin/{name}")
    slurm.execute(PATH=str(links))
    assert slurm.script.receipt().outcome == "wants-requeue"
    assert "not found" in (slurm.script.receipt().reason or "")


def test_three_attempts_without_progress_end_it(slurm: Slurm) -> None:
    slurm.script.write("raise SystemExit(75)")
    assert [slurm.execute(restart)[0] for restart in range(3)] == [75, 75, EXIT_DO_NOT_REQUEUE]
    assert slurm.script.receipt(3).reason == "3 attempts in a row ended without progress; see the logs"
    assert slurm.script.receipt(3).limit == "without_progress"
    assert slurm.asked() == [*[LOOK, REQUEUE] * 2, LOOK]


@pytest.mark.parametrize("progress", ["open('../metrics.jsonl', 'a').write('x')", "os.makedirs('../ck/%d' % attempt)"])
def test_any_progress_in_three_attempts_is_enough(slurm: Slurm, progress: str) -> None:
    code = "import os; os.chdir(os.environ['MTF_RUN_DIR'] + '/logs'); attempt = int(os.environ['MTF_ATTEMPT'])\n"
    slurm.script.write(f"{code}if attempt % 3 == 0: {progress}\nraise SystemExit(75)", checkpoints="ck")
    assert [slurm.execute(restart)[0] for restart in range(7)] == [75] * 7


@pytest.mark.parametrize(
    ("written", "environ"),
    [
        ("${env:SHELF}", {"SHELF": "it's $HOME;x"}),
        ("${env:SHELF,it's $HOME;x}", {}),
        ("it's${env:SHELF} $HOME${env:OTHER,;}x", {"SHELF": ""}),
    ],
)
@pytest.mark.parametrize("grows", [True, False])
def test_progress_is_looked_for_where_the_environment_says(
    slurm: Slurm, written: str, environ: dict[str, str], grows: bool
) -> None:
    shelf = slurm.script.run.path / "it's $HOME;x"
    name = "os.environ['MTF_ATTEMPT']" if grows else "'one'"
    slurm.script.write(
        f"import os; os.makedirs({str(shelf)!r} + '/' + {name}, exist_ok=True); exit(75)", checkpoints=written
    )
    ends = [slurm.execute(restart=restart, **environ)[0] for restart in range(4)]
    assert ends == [75] * 4 if grows else ends == [75, 75, 75, 76]


def test_names_that_come_and_go_are_no_progress(slurm: Slurm) -> None:
    """A checkpoint that is removed again, hidden files, and files that have been there before."""
    shelf = slurm.script.run.path / "checkpoints"
    shelf.mkdir()
    (shelf / "1-step").touch()
    slurm.script.write(
        f"open({str(shelf / '.tmp')!r} + __import__('os').environ['MTF_ATTEMPT'], 'w'); raise SystemExit(75)"
    )
    assert [slurm.execute(restart)[0] for restart in range(3)] == [75, 75, EXIT_DO_NOT_REQUEUE]


def test_slurm_that_requeues_on_its_own_is_stopped_at_the_start(slurm: Slurm) -> None:
    """A preemption without grace: by the time the command has ended, Slurm has requeued the job."""
    slurm.answer("squeue", "echo COMPLETING None")
    slurm.script.write("import os; open('ran', 'a').write('x'); os.kill(os.getppid(), 9); raise SystemExit(75)")
    for restart in range(3):
        slurm.execute(restart)
    assert slurm.execute(3)[0] == EXIT_DO_NOT_REQUEUE
    assert slurm.script.receipt(4).outcome == "do-not-requeue"
    assert (slurm.script.root / "ran").read_text() == "xxx"


def ask_from(slurm: Slurm, attempt: int) -> None:
    file = slurm.script.run.ask_file(attempt)
    file.parent.mkdir(exist_ok=True)
    Ask(attempt=attempt, by="ann@here", how="by name", asked_at="then").write(file)


@pytest.mark.parametrize(("asked", "status"), [(False, EXIT_DO_NOT_REQUEUE), (True, 75)])
def test_attempts_count_until_somebody_asks_for_the_run(slurm: Slurm, asked: bool, status: int) -> None:
    """A submission alone is no asking."""
    slurm.script.write("raise SystemExit(75)")
    for restart in range(2):
        slurm.execute(restart)
    if asked:
        ask_from(slurm, 3)
    assert slurm.execute(MTF_FIRST_ATTEMPT="3", MTF_TOKEN="t2")[0] == status


def test_a_job_that_slurm_requeues_although_it_has_had_its_chances_is_not_run(slurm: Slurm) -> None:
    slurm.script.write(GROWING + "raise SystemExit(75)", max_preemptions=0)
    slurm.answer("squeue", "echo COMPLETING None 5:00")
    assert [slurm.execute(restart)[0] for restart in range(3)] == [EXIT_DO_NOT_REQUEUE] * 3
    assert slurm.script.run.metrics_file.read_text() == "x"
    reasons = {slurm.script.receipt(number).reason for number in (1, 2, 3)}
    assert reasons == {"preempted once, and preemption.max_preemptions is 0"}


def test_the_end_of_its_time_is_no_preemption(slurm: Slurm) -> None:
    retries = RetryConfig(timeout=1)
    slurm.script.write(GROWING + "raise SystemExit(75)", max_preemptions=1, retries=retries, warning_s=240)
    for restart, answer in enumerate(("RUNNING None 5:00", "RUNNING None 5:01", "COMPLETING TimeLimit 0:00")):
        slurm.answer("squeue", f"echo {answer}")
        status = slurm.execute(restart)[0]
    marks = [slurm.script.run.attempt(number).time_limit_file.exists() for number in (1, 2, 3)]
    assert (marks, status) == ([True, False, True], EXIT_DO_NOT_REQUEUE)
    receipt = slurm.script.receipt(3)
    assert (receipt.reason, receipt.limit) == ("out of time 2 times, and slurm.retries.timeout is 1", "timeout")


@pytest.mark.parametrize(
    ("left", "late"),
    [("1:00", True), ("59", False), ("1:01", False), ("1-00:00:01", False), ("UNLIMITED", False), ("1:00:00", False)],
)
def test_what_squeue_says_is_left_of_the_time(slurm: Slurm, left: str, late: bool) -> None:
    slurm.script.write("raise SystemExit(75)")
    slurm.answer("squeue", f"echo RUNNING None {left}")
    slurm.execute()
    assert slurm.script.run.attempt(1).time_limit_file.exists() is late


def test_attempts_that_left_no_word_have_a_budget(slurm: Slurm) -> None:
    slurm.script.write(
        f"{GROWING}os.kill(os.getppid(), 9) if os.environ['MTF_ATTEMPT'] != '2' else os.kill(os.getpid(), 9)",
        retries=RetryConfig(node_failure=2),
    )
    for restart in range(4):  # Slurm requeues the job each time, having lost the node
        status = slurm.execute(restart)[0]
    assert status == EXIT_DO_NOT_REQUEUE
    receipt = slurm.script.receipt(4)
    assert (receipt.outcome, receipt.exit_status, receipt.limit) == ("do-not-requeue", None, "node_failure")
    assert receipt.reason == "ended by a failing node or a kill 3 times, and slurm.retries.node_failure is 2"
    assert (slurm.script.run.metrics_file.read_text()) == "xxx"


def test_a_failure_is_repeated_as_often_as_allowed(slurm: Slurm) -> None:
    slurm.script.write("raise SystemExit(3)", retries=RetryConfig(failure=1))
    assert [slurm.execute(restart)[0] for restart in range(2)] == [1, 1]
    assert [slurm.script.receipt(number).outcome for number in (1, 2)] == ["failed", "failed"]
    assert slurm.asked() == [LOOK, REQUEUE, LOOK]
    ask_from(slurm, 3)
    slurm.execute(2)
    assert slurm.asked()[3:] == [LOOK, REQUEUE]


def test_what_was_killed_is_not_repeated_at_once(slurm: Slurm) -> None:
    """It may be for want of memory, of which the next attempt would have no more."""
    slurm.script.write("import os; os.kill(os.getpid(), 9)", retries=RetryConfig(failure=5))
    slurm.execute()
    assert slurm.asked() == []


def test_a_failure_that_slurm_does_not_requeue_stays_one(slurm: Slurm) -> None:
    slurm.script.write("raise SystemExit(3)", retries=RetryConfig(failure=None))
    slurm.answer("scontrol", "echo 'Requested operation is presently disabled' >&2; exit 1")
    assert slurm.execute()[0] == 1
    assert slurm.script.receipt().outcome == "failed"


def test_more_preemptions_than_allowed_end_it(slurm: Slurm) -> None:
    slurm.script.write(GROWING + "raise SystemExit(75)", max_preemptions=2)
    assert [slurm.execute(restart)[0] for restart in range(3)] == [75, 75, EXIT_DO_NOT_REQUEUE]
    assert slurm.script.receipt(3).limit == "preemption"
    assert slurm.script.receipt(3).reason == "preempted 3 times, and preemption.max_preemptions is 2"


SRUN = """
set -m # each task is a process group, which gets the signal as a whole
trap 'echo srun-got-USR1 >>{asked}; kill -s USR1 -- "${tasks[@]/#/-}"' USR1
trap 'echo srun-got-TERM >>{asked}; exit 1' TERM
while [ "$1" != bash ]; do echo "option $1" >>{asked}; shift; done
for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@" & tasks+=($!); done
worst=0
for job in "${tasks[@]}"; do
  wait $job; status=$?
  while kill -0 $job 2>/dev/null; do wait $job; status=$?; done
  [ $status -gt $worst ] && worst=$status
done
exit $worst
"""


@pytest.mark.parametrize(
    ("statuses", "status", "outcome"),
    [
        ((0, 0), 0, "finished"),
        ((75, 75), 75, "preempted"),
        ((0, 75), 75, "preempted"),
        ((75, 76), 76, "do-not-requeue"),
        ((75, 1), 1, "failed"),
        ((0, 3), 1, "failed"),
    ],
)
def test_what_the_tasks_of_srun_say_is_one_outcome(
    slurm: Slurm, statuses: tuple[int, int], status: int, outcome: str
) -> None:
    slurm.answer("srun", SRUN.replace("{asked}", str(slurm.asked_file)))
    slurm.script.write(f"import os; raise SystemExit({statuses}[int(os.environ['SLURM_PROCID'])])", nodes=2, tasks=2)
    assert slurm.execute(SLURM_CPUS_PER_TASK="4")[0] == status
    assert slurm.script.receipt().outcome == outcome
    options = [line.removeprefix("option ") for line in slurm.asked() if line.startswith("option")]
    wanted = ["--label", "--kill-on-bad-exit=1", "--export=ALL", "--nodes=2", "--ntasks=2", "--cpus-per-task=4"]
    assert options == wanted


@pytest.mark.parametrize(
    ("first", "reason"), [("sys.exit(3)", "exit status 3"), ("os.kill(os.getpid(), 11)", "ended by SIGSEGV")]
)
@pytest.mark.parametrize("then", ["sys.exit(1)", "os.kill(os.getpid(), 15)", "os.kill(os.getpid(), 9)"])
def test_the_first_task_that_fails_is_the_one_that_counts(slurm: Slurm, first: str, then: str, reason: str) -> None:
    """The other one has lost its connection, or srun ends it, and its status is higher."""
    slurm.answer("srun", SRUN.replace("{asked}", str(slurm.asked_file)))
    file = slurm.script.run.attempt(1).path / "failed-first"
    slurm.script.write(
        f"import os, pathlib, sys, time\nif os.environ['SLURM_PROCID'] == '1': {first}\n"
        f"while not pathlib.Path({str(file)!r}).exists(): time.sleep(0.01)\n{then}",
        tasks=2,
    )
    assert slurm.execute()[0] == 1
    assert slurm.script.receipt().outcome == "failed"
    assert slurm.script.receipt().reason == f"task 1 of 2 failed first: {reason}"


def test_outside_slurm_there_is_no_srun(slurm: Slurm) -> None:
    slurm.script.write("pass", nodes=2, tasks=2)
    assert slurm.execute(MTF_JOB_ID="", MTF_SWEEP_DIR="")[0] == 0
    assert slurm.asked() == []


def test_srun_is_never_sent_a_signal_that_kills_its_tasks(slurm: Slurm, wait_until: Callable[..., Any]) -> None:
    slurm.answer("srun", SRUN.replace("{asked}", str(slurm.asked_file)))
    slurm.script.write(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *a: sys.exit(75))\n"
        "open('up' + os.environ['SLURM_PROCID'], 'w'); time.sleep(60)",
        tasks=2,
    )
    process = slurm.script.start(PATH=f"{slurm.programs}:{os.environ['PATH']}", SLURM_JOB_ID="5", MTF_TOKEN="t1")
    wait_until(lambda: all((slurm.script.root / f"up{rank}").exists() for rank in (0, 1)))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == EXIT_PREEMPTED
    assert [line for line in slurm.asked() if line.startswith("srun-got")] == ["srun-got-USR1"]
