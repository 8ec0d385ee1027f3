"""job.sh as bash runs it: claims, receipts, signals, environment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_folders import Script, text_of

from mtf_slurm.render import JobScript, render_job
from mtf_utils.exits import EXIT_DO_NOT_REQUEUE, EXIT_PREEMPTED
from mtf_utils.rundir import Outcome


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


@pytest.mark.parametrize(
    ("code", "status", "outcome", "exit_status"),
    [
        ("pass", 0, Outcome.FINISHED, 0),
        ("raise SystemExit(75)", EXIT_PREEMPTED, Outcome.PREEMPTED, 75),
        ("raise SystemExit(76)", EXIT_DO_NOT_REQUEUE, Outcome.DO_NOT_REQUEUE, 76),
        ("raise SystemExit(1)", 1, Outcome.FAILED, 1),
        ("raise SystemExit(3)", 1, Outcome.FAILED, 3),
        ("import os; os.kill(os.getpid(), 15)", EXIT_PREEMPTED, Outcome.PREEMPTED, 143),
        ("import os, signal; os.kill(os.getpid(), signal.SIGUSR1)", EXIT_PREEMPTED, Outcome.PREEMPTED, 138),
        ("import os; os.kill(os.getpid(), 1)", EXIT_PREEMPTED, Outcome.PREEMPTED, 129),
        ("raise KeyboardInterrupt", EXIT_PREEMPTED, Outcome.PREEMPTED, 130),
        ("import os; os.kill(os.getpid(), 9)", 1, Outcome.FAILED, 137),
        ("import os; os.abort()", 1, Outcome.FAILED, 134),
    ],
)
def test_the_exit_status_becomes_a_receipt(
    script: Script, code: str, status: int, outcome: Outcome, exit_status: int
) -> None:
    script.write(code)
    assert script.execute()[0] == status
    receipt = script.receipt()
    assert (receipt.outcome, receipt.exit_status, receipt.attempt) == (outcome, exit_status, 1)


def test_a_command_that_does_not_exist_is_a_failure(script: Script) -> None:
    script.run.job_script.write_text(
        render_job(JobScript(name="n", project_root=script.root, python="x", command=("no-such-program",)))
    )
    assert script.execute()[0] == 1
    assert script.receipt().exit_status == 127
    assert "no-such-program" in script.run.log_file(1).read_text()


def test_shell_builtins_are_no_programs(script: Script) -> None:
    script.run.job_script.write_text(
        render_job(JobScript(name="n", project_root=script.root, python="x", command=("eval", "touch hacked")))
    )
    assert script.execute()[0] == 1
    assert not (script.root / "hacked").exists()


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("finished", 0), ("preempted", 75), ("wants-requeue", 75), ("do-not-requeue", 76), ("failed", 1)],
)
def test_what_the_trainer_says_counts_more_than_its_status(script: Script, outcome: str, status: int) -> None:
    """As under torchrun, which turns every status into 1."""
    script.write(
        "from mtf_utils.rundir import *\n"
        "run, attempt = current_run()\n"
        f'FinishReceipt(attempt=attempt.number, outcome=Outcome({outcome!r}), reason=\'"outcome": "x"\','
        " finished_at=now()).write(attempt.finished_file)\n"
        "raise SystemExit(1)"
    )
    assert script.execute()[0] == status
    assert script.receipt().outcome == outcome


def test_start_receipt_and_environment(script: Script) -> None:
    script.write(
        "import json, os, sys; json.dump({'env': dict(os.environ), 'cwd': os.getcwd(), 'path': sys.path},"
        " open(os.environ['MTF_RUN_DIR'] + '/seen.json', 'w'))"
    )
    process = script.start(MTF_TOKEN="abc123", MTF_FIRST_ATTEMPT="4", SLURM_RESTART_COUNT="2", SLURM_JOB_ID="77")
    assert process.wait(60) == 0
    started = script.run.attempt(6).started()
    assert started is not None
    assert (started.attempt, started.token, started.restart, started.job_id) == (6, "abc123", 2, "77")
    assert (started.host, started.pid) == (os.uname().nodename, process.pid)
    seen = json.loads((script.run.path / "seen.json").read_text())
    env = seen["env"]
    assert env["MTF_RUN_DIR"] == str(script.run.path)
    assert env["MTF_CONFIG"] == str(script.run.config_json)
    assert (env["MTF_EXPERIMENT"], env["MTF_ATTEMPT"], env["MTF_TOKEN"]) == ("run-1", "6", "abc123")
    assert env["MTF_PROJECT_ROOT"] == str(script.root) == seen["cwd"]
    assert seen["path"][1:3] == [str(script.root), str(script.root / "src")]
    assert (env["PYTHONHASHSEED"], env["PYTHONUNBUFFERED"]) == ("0", "1")
    assert env["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert "MTF_FIRST_ATTEMPT" not in env


def test_what_the_user_has_set_stands(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    script.write(
        "import os; e = os.environ; print(e['PYTHONHASHSEED'], e['PYTHONPATH'], e.get('CUBLAS_WORKSPACE_CONFIG'))",
        deterministic=False,
    )
    script.execute(PYTHONHASHSEED="7", PYTHONPATH="/mine")
    assert script.run.log_file(1).read_text() == f"7 {script.root}:{script.root}/src:/mine None\n"


def test_an_array_task_has_its_id(script: Script) -> None:
    script.write("pass")
    script.execute(SLURM_JOB_ID="80", SLURM_ARRAY_JOB_ID="79", SLURM_ARRAY_TASK_ID="3")
    started = script.run.attempt(1).started()
    assert started is not None
    assert started.job_id == "79_3"


def test_attempts_are_numbered_by_themselves(script: Script) -> None:
    script.write("print('hello')")
    for _ in range(11):
        assert script.execute()[0] == 0
    assert [attempt.number for attempt in script.run.attempts()] == list(range(1, 12))
    assert script.run.log_file(11).read_text() == "hello\n"


@pytest.mark.parametrize("path", ["job.sh", "./job.sh", "../run-1/job.sh", "../../runs/./run-1/job.sh"])
def test_started_by_hand_it_knows_its_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "runs").mkdir()
    script = Script(tmp_path / "runs")
    script.write("import os; print(os.environ['MTF_RUN_DIR'])")
    subprocess.run(["bash", path], cwd=script.run.path, timeout=60, check=True)
    assert script.run.log_file(1).read_text() == f"{script.run.path}\n"


def test_a_taken_attempt_is_left_alone(script: Script) -> None:
    script.write("open('ran', 'a').write('x')")
    assert script.execute(MTF_FIRST_ATTEMPT="1")[0] == 0
    status, said = script.execute(MTF_FIRST_ATTEMPT="1")
    assert (status, said) == (0, "mtf: run-1: attempt 1 is taken, nothing to do\n")
    assert (script.root / "ran").read_text() == "x"


def test_of_many_at_once_one_runs(script: Script) -> None:
    script.write("open('ran', 'a').write('x')")
    processes = [script.start(MTF_FIRST_ATTEMPT="1") for _ in range(12)]
    assert [process.wait(60) for process in processes] == [0] * 12
    for process in processes:
        assert process.stderr is not None
        process.stderr.close()
    assert (script.root / "ran").read_text() == "x"


def test_by_hand_it_does_not_run_beside_itself(script: Script, wait_until: Callable[..., Any]) -> None:
    script.write("import time; open('up', 'w'); time.sleep(60)")
    process = script.start()
    wait_until((script.root / "up").exists)
    status, said = script.execute()
    process.terminate()
    process.communicate(timeout=60)
    assert status == 1
    assert f"attempt 1 seems to be running (process {process.pid})" in said
    assert len(script.run.attempts()) == 1


@pytest.mark.parametrize(("sent", "received"), [("SIGTERM", 15), ("SIGUSR1", 10), ("SIGINT", 15), ("SIGHUP", 15)])
def test_signals_are_passed_on_and_the_end_awaited(
    script: Script, sent: str, received: int, wait_until: Callable[..., Any]
) -> None:
    script.write(
        "import signal, sys, time\n"
        "def handle(number, frame):\n"
        "    time.sleep(0.2)\n"  # job.sh must not be content with the interruption of its wait
        "    open('got', 'w').write(str(number)); sys.exit(75)\n"
        "signal.signal(15, handle); signal.signal(10, handle)\n"
        "open('up', 'w'); time.sleep(60)"
    )
    process = script.start()
    wait_until((script.root / "up").exists)
    process.send_signal(signal.Signals[sent])
    process.communicate(timeout=60)
    assert process.returncode == EXIT_PREEMPTED
    assert (script.root / "got").read_text() == str(received)
    assert script.receipt().exit_status == 75


def test_a_signal_just_when_the_command_starts_is_not_lost(script: Script) -> None:
    """Between its fork and its first line the new process is still a copy of the script, handlers included."""
    script.write("import time; time.sleep(60)")
    for number in range(1, 31):
        process = script.start()
        while not script.run.log_file(number).exists():
            assert process.poll() is None
        for _ in range(1000 * number):  # the command starts some milliseconds from now
            pass
        process.send_signal(signal.SIGUSR1)
        process.communicate(timeout=30)
        assert script.receipt(number).outcome == "preempted"


def test_a_signal_to_all_processes_at_once_is_a_preemption(script: Script, wait_until: Callable[..., Any]) -> None:
    """As from Slurm: the command ends while the script is about to pass the signal on."""
    script.write("import time; open('up', 'w'); time.sleep(60)")
    for number in range(1, 31):
        process = script.start()
        wait_until((script.root / "up").exists)
        (script.root / "up").unlink()
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)
        receipt = script.receipt(number)
        assert receipt.outcome == "preempted"
        assert receipt.exit_status in (143, None)


def test_many_signals_in_a_row_do_not_confuse_the_wait(script: Script, wait_until: Callable[..., Any]) -> None:
    script.write(
        "import signal, time\n"
        "signal.signal(10, lambda *a: open('count', 'a').write('x'))\n"
        "open('up', 'w')\n"
        "while not __import__('os').path.exists('go'): time.sleep(0.01)\n"
        "raise SystemExit(0)"
    )
    process = script.start()
    wait_until((script.root / "up").exists)
    for count in range(1, 6):
        process.send_signal(signal.SIGUSR1)
        wait_until(lambda n=count: len(text_of(script.root / "count")) >= n)
    (script.root / "go").touch()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert script.receipt().outcome == "finished"


def test_a_configured_signal_is_passed_on_too(script: Script, wait_until: Callable[..., Any]) -> None:
    script.write("import time; open('up', 'w'); time.sleep(60)", signals=("SIGUSR2",))
    process = script.start()
    wait_until((script.root / "up").exists)
    process.send_signal(signal.SIGUSR2)
    process.communicate(timeout=60)
    assert script.receipt().outcome == "preempted"


def test_a_signal_before_the_command_keeps_it_from_starting(script: Script, wait_until: Callable[..., Any]) -> None:
    script.write("open('ran', 'w')", setup=("touch up", "while [ ! -e go ]; do sleep 0.01; done"))
    process = subprocess.Popen(["bash", str(script.run.job_script)], cwd=script.root, stderr=subprocess.DEVNULL)
    wait_until((script.root / "up").exists)
    process.send_signal(signal.SIGTERM)
    (script.root / "go").touch()
    assert process.wait(60) == EXIT_PREEMPTED
    assert not (script.root / "ran").exists()
    assert script.receipt().reason == "told to stop (SIGTERM) before the command ran"


def test_a_command_that_is_killed_has_the_last_word(script: Script) -> None:
    """Not bash, which says in which line of job.sh it noticed."""
    for number, name in enumerate(("SIGKILL", "SIGTERM", "SIGSEGV"), 1):
        script.write(f"import os, signal; print('step 3', flush=True); os.kill(os.getpid(), signal.{name})")
        script.execute()
        assert script.run.log_file(number).read_text() == "step 3\n"
        assert script.receipt(number).reason.startswith(("killed by SIGKILL", "ended by " + name))


def test_the_command_reads_nothing(script: Script) -> None:
    script.write("import sys; print(repr(sys.stdin.read()))")
    process = subprocess.Popen(["bash", str(script.run.job_script)], stdin=subprocess.PIPE, text=True)
    process.communicate("something", timeout=60)
    assert script.run.log_file(1).read_text() == "''\n"


def test_nothing_is_left_behind(script: Script) -> None:
    """What wakes the script once ends with it, not seconds later: a job is over when its last process is."""
    script.write("pass")
    process = subprocess.Popen(["bash", str(script.run.job_script)], start_new_session=True)
    assert process.wait(60) == 0
    tries = 0
    with contextlib.suppress(ProcessLookupError):
        while tries < 50_000:  # far less than the two seconds until it would end by itself
            os.killpg(process.pid, 0)
            tries += 1
    assert tries < 50_000


@pytest.mark.parametrize(
    "variables",
    [{"MTF_FIRST_ATTEMPT": "x"}, {"MTF_FIRST_ATTEMPT": "0"}, {"SLURM_RESTART_COUNT": "-1"}, {"MTF_TOKEN": 'a"b'}],
)
def test_nonsense_in_the_environment_is_refused(script: Script, variables: dict[str, str]) -> None:
    script.write("pass")
    status, said = script.execute(**variables)
    assert status == 1
    assert next(iter(variables)) in said
    assert script.run.attempts() == []


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("descriptors", range(4, 12))
def test_where_descriptors_are_missing_there_is_a_receipt_or_an_error(
    script: Script, descriptors: int, by_hand: bool
) -> None:
    """The last that a script needs is that of what wakes it, without which it waits all the same."""
    script.write("print('step')")
    words = ["bash", "-c", f'ulimit -n {descriptors}; exec bash "$0"', str(script.run.job_script)]
    environ = os.environ | ({} if by_hand else {"MTF_FIRST_ATTEMPT": "1"})
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60, check=False)
    attempts = script.run.attempts()
    if attempts and attempts[-1].started() is not None:
        assert (done.returncode, script.receipt().outcome) == (0, Outcome.FINISHED)
        assert "step" in script.run.log_file(1).read_text()
    else:
        assert done.returncode == 1
        assert "mtf: run-1: cannot " in done.stderr
        assert descriptors < 6


def test_no_space_is_one_clear_line(small_disk) -> None:
    with small_disk() as disk:
        script = Script(disk.path)
        script.write("pass")
        disk.fill()
        status, said = script.execute()
        assert status == 1
        assert "No space left on device" in said
        assert "mtf: run-1: cannot write the start receipt of attempt 1" in said
