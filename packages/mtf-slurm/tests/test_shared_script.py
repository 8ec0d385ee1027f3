"""The script of a task that runs share, without Slurm: whatever it is told and when, every run is done once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mtf_slurm.cluster.script import task_line
from mtf_slurm.cluster.sharing import Shared, render_shared, shared_jobs
from mtf_slurm.render import JobScript, render_job
from mtf_slurm.submissions import JobPlan
from mtf_utils.exits import EXIT_PREEMPTED
from mtf_utils.rundir import RunDirectory, SweepDirectory

TOKEN = "0a1b"

# Saves when it is told to stop and at the end, and goes on from there; each step is taken once over all attempts.
STEPS = """
step=$(cat step 2>/dev/null || echo 0)
trap 'stop=1' TERM USR1
while ((step < 4)); do
  if [[ $stop ]]; then echo $step >step; exit 75; fi
  step=$((step + 1))
  echo $step >>steps
  sleep 0.03
done
echo $step >step
"""


class Task:
    """A task of several runs, of which a test says what they do."""

    def __init__(self, folder: Path, commands: dict[str, str], **pack: int) -> None:
        self.directory = SweepDirectory(folder / "it's a 'sweep' $HOME")
        self.folder = self.directory.path / "submissions" / TOKEN
        self.folder.mkdir(parents=True)
        self.names = list(commands)
        for name, code in commands.items():
            self._add(name, code)
        job = JobPlan(start=0, count=len(commands), job_name="job", runs_per_task=len(commands) + 1, **pack)
        (self.folder / "0.task.sh").write_text(render_shared(job, 0, ["SIGUSR2"]))
        (self.folder / "0.tasks").write_text("".join(task_line(1, name) for name in self.names))
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.answer("squeue", "echo 'RUNNING None'")
        self.answer("scontrol", "echo requeued")

    def _add(self, name: str, code: str) -> None:
        run = self.run(name)
        run.path.mkdir(parents=True)
        script = JobScript(name=name, project_root=run.path, python="python", command=("bash", "-c", code))
        run.job_script.write_text(render_job(script))

    def answer(self, program: str, code: str) -> None:
        path = self.programs / program
        path.write_text(f'#!/bin/bash\necho {program} "$@" >>"{self.programs}/asked"\n{code}\n')
        path.chmod(0o755)

    def asked(self) -> list[str]:
        file = self.programs / "asked"
        return file.read_text().splitlines() if file.exists() else []

    def run(self, name: str) -> RunDirectory:
        return self.directory.run(name)

    def cancel(self, name: str) -> None:
        (self.folder / "cancelled").mkdir(exist_ok=True)
        (self.folder / "cancelled" / name).touch()

    def start(self, restart: int = 0) -> subprocess.Popen[str]:
        variables = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "MTF_TOKEN": TOKEN,
            "MTF_SWEEP_DIR": str(self.directory.path),
            "SLURM_JOB_ID": "80",
            "SLURM_ARRAY_JOB_ID": "79",
            "SLURM_ARRAY_TASK_ID": "0",
            "SLURM_RESTART_COUNT": str(restart),
        }
        words = ["bash", str(self.folder / "0.task.sh"), "0"]
        return subprocess.Popen(
            words, env=os.environ | variables, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def execute(self, restart: int = 0) -> tuple[int, str]:
        process = self.start(restart)
        _, said = process.communicate(timeout=60)
        return process.returncode, said

    def outcomes(self, name: str) -> dict[int, str]:
        return {a.number: receipt.outcome.value for a in self.run(name).attempts() if (receipt := a.finished())}


def test_each_run_ends_in_its_own_way(tmp_path: Path) -> None:
    task = Task(tmp_path, {"good": ":", "bad": "exit 3", "killed": "kill -9 $$", "last": "echo said"})
    status, said = task.execute()
    assert (status, said) == (1, "")
    assert [task.outcomes(name) for name in task.names] == [
        {1: o} for o in ("finished", "failed", "failed", "finished")
    ]
    assert task.run("last").log_file(1).read_text() == "said\n"
    assert task.asked() == []
    status, said = task.execute(restart=1)  # by a controller that does not know that it was over
    assert status == 1
    assert sorted(said.splitlines()) == sorted(
        f"mtf: {name}: {how} before, nothing to do"
        for name, how in (("good", "finished"), ("bad", "failed"), ("killed", "failed"), ("last", "finished"))
    )


def test_all_good_is_good(tmp_path: Path) -> None:
    task = Task(tmp_path, {"a": ":", "b": ":"})
    assert task.execute() == (0, "")


def test_a_run_that_stops_by_itself_is_continued_when_the_others_are_done(tmp_path: Path) -> None:
    task = Task(tmp_path, {"a": "[[ $MTF_ATTEMPT -gt 1 ]] || exit 75", "b": "touch done"})
    assert task.execute()[0] == EXIT_PREEMPTED
    assert task.asked() == ["squeue --noheader --jobs=79_0 --format=%T %r %L", "scontrol requeue 79_0"]
    assert (task.run("b").path / "done").exists()
    assert task.execute(restart=1)[0] == 0
    assert task.outcomes("a") == {1: "preempted", 2: "finished"}


def test_what_is_refused_is_said_in_each_receipt(tmp_path: Path, wait_until) -> None:
    task = Task(tmp_path, dict.fromkeys("abc", "touch up; trap 'exit 75' TERM; while :; do sleep 0.02; done"))
    task.answer("scontrol", "echo 'it is \"forbidden\"' >&2; exit 1")
    process = task.start()
    wait_until(lambda: (task.run("a").path / "up").exists())
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == EXIT_PREEMPTED
    assert 'does not requeue the job: it is "forbidden"' in said
    receipt = task.run("a").attempt(1).finished()
    assert receipt is not None
    assert (receipt.outcome, receipt.reason) == (
        "wants-requeue",
        'the state is saved, but Slurm does not requeue the job: it is "forbidden"',
    )
    assert task.run("b").attempts() == []


def test_cancelled_runs_stop_and_the_others_do_not(tmp_path: Path, wait_until) -> None:
    wait = "touch up; trap 'echo told >>told; exit 75' TERM; while [[ ! -e go ]]; do sleep 0.02; done"
    task = Task(tmp_path, dict.fromkeys("abcd", wait), runs_at_once=2)
    process = task.start()
    wait_until(lambda: all((task.run(name).path / "up").exists() for name in "ab"))
    task.cancel("b")
    task.cancel("c")  # its turn has not come
    process.send_signal(signal.SIGURG)
    wait_until(lambda: (task.run("d").path / "up").exists())
    process.send_signal(signal.SIGURG)
    for name in "ad":
        (task.run(name).path / "go").touch()
    assert process.wait(timeout=60) == 0
    assert [task.outcomes(name) for name in "abcd"] == [{1: "finished"}, {1: "preempted"}, {}, {1: "finished"}]
    assert (task.run("b").path / "told").read_text() == "told\n"
    assert task.asked() == []


def test_a_run_whose_script_is_broken_is_not_tried_for_ever(tmp_path: Path) -> None:
    task = Task(tmp_path, {"a": ":", "b": ":"})
    task.run("a").job_script.write_text("exit 1\n")
    assert task.execute()[0] == 1
    assert task.outcomes("b") == {1: "finished"}
    assert task.asked() == []


def test_a_task_without_runs_says_so(tmp_path: Path) -> None:
    task = Task(tmp_path, {"a": ":"})
    (task.folder / "0.tasks").write_text("")
    status, said = task.execute()
    assert status == 1
    assert "0.tasks has no lines for it" in said


@pytest.mark.parametrize("seed", range(6))
def test_signals_at_any_moment_lose_nothing_and_do_nothing_twice(tmp_path: Path, seed: int) -> None:
    """Preemptions and looks for cancellations rain on it, and it is queued again as long as it asks for that."""
    rng = random.Random(seed)
    task = Task(tmp_path, dict.fromkeys("abcdef", STEPS), runs_at_once=rng.randint(1, 3))
    for restart in range(40):
        for name in task.names:  # progress, or three such attempts would be enough
            (task.run(name).checkpoints_dir / str(restart)).mkdir(parents=True)
        process = task.start(restart)
        end = time.monotonic() + rng.uniform(0, 1)
        while restart < 12 and process.poll() is None and time.monotonic() < end:
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(rng.choice([signal.SIGURG, signal.SIGURG, signal.SIGUSR1, signal.SIGTERM]))
        if process.wait(timeout=60) == 0:
            break
        # one that is told before it has let go of the shell's defaults ends by the signal, and Slurm queues it again
        assert process.returncode in (EXIT_PREEMPTED, -signal.SIGTERM, -signal.SIGUSR1)
    assert all(task.outcomes(name)[max(task.outcomes(name))] == "finished" for name in task.names)
    assert [(task.run(name).path / "steps").read_text().split() for name in task.names] == [["1", "2", "3", "4"]] * 6


def test_what_a_plan_says(make_config) -> None:
    slurm = {"runs_per_job": 8, "time_limit": "4:00:00"}
    configs = {f"a{n}": make_config(f"a{n}", slurm=slurm) for n in range(20)}
    configs |= {f"b{n}": make_config(f"b{n}", slurm={"runs_per_job": 4, "runs_at_once": 2}) for n in range(4)}
    configs |= {"c": make_config("c"), "d": make_config("d", slurm=slurm | {"additional_args": ["--array=1"]})}
    first, second = shared_jobs(configs)
    assert first == Shared(runs=20, jobs=3, runs_per_job=8, runs_at_once=1, time_limit="4:00:00")
    assert str(first) == (
        "in Slurm 20 runs share 3 jobs, 8 in each, one after the other; its time_limit of 4:00:00 is for all runs of a "
        "job, and max_concurrent_jobs counts jobs"
    )
    assert "4 runs share 1 job, 4 in each, 2 at a time; the partition's time limit is for all" in str(second)
