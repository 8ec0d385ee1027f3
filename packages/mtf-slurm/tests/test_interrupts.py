"""The launcher itself is interrupted, killed, started twice: as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mtf_slurm import GridSearchResult, JobStatus

# Runs a sweep of `count` runs, `jobs` at a time, and says on standard output how it ended.
DRIVER = """
import json, sys
from mtf_config import ExecutionMode, NamingStrategy, ParameterGridSearch
from mtf_slurm import LaunchInterrupted, SLURMLauncher
root, base, count, jobs = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
search = ParameterGridSearch(base)
search.create_grid("grid").add_parameter("custom_params.x", [float(i) for i in range(1, count + 1)])
search.set_naming_strategy(NamingStrategy.DESCRIPTIVE)
launcher = SLURMLauncher(None, root + "/experiments", project_root=root)
try:
    result = launcher.submit_sweep(search, root + "/experiments/sweep", ExecutionMode.LOCAL, jobs)
except LaunchInterrupted as stop:
    assert isinstance(stop, KeyboardInterrupt) and not isinstance(stop, Exception)
    print(json.dumps({"unfinished": stop.unfinished, "by": stop.signal_name, "says": str(stop)}))
    sys.exit(130)
print(json.dumps({"counts": result.counts, "attempts": [run.attempts for run in result]}))
"""


class Driver:
    def __init__(self, project: Path) -> None:
        self.root = project
        self.folder = project / "experiments" / "sweep"
        self.gate = project / "gate"
        self.params = {"x": 1.0, "steps": 3, "hold_at": 2, "gate": str(self.gate)}

    def start(self, count: int = 2, jobs: int = 2) -> subprocess.Popen[str]:
        base = {
            "experiment_name": "tiny",
            "model": {"name": "counter"},
            "data": {"dataset_name": "none"},
            "optimizer": {"name": "none"},
            "custom_params": self.params,
        }
        words = [sys.executable, "-c", DRIVER, str(self.root), json.dumps(base), str(count), str(jobs)]
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def holds(self, *names: str) -> bool:
        return all((self.folder / "runs" / f"tiny-x={name}" / "held").exists() for name in names)

    def rearm(self) -> None:
        for file in self.folder.glob("runs/*/held"):
            file.unlink()


@pytest.fixture
def driver(project: Path) -> Driver:
    return Driver(project)


def ended(process: subprocess.Popen[str]) -> tuple[int, dict, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, json.loads(out) if out.strip() else {}, err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_told_to_stop_every_run_saves_and_a_repeated_call_continues(driver: Driver, wait_until, name: str) -> None:
    process = driver.start(count=3)
    wait_until(lambda: driver.holds("1.0", "2.0"))
    process.send_signal(signal.Signals[name])
    status, said, err = ended(process)
    assert status == 130, err
    assert said["by"] == name
    assert said["unfinished"] == ["tiny-x=1.0", "tiny-x=2.0", "tiny-x=3.0"]
    assert "3 of 3 runs unfinished" in said["says"]
    assert str(driver.folder) in said["says"]
    states = {run.name: (run.status, run.attempts) for run in GridSearchResult.load(driver.folder)}
    assert states["tiny-x=1.0"] == states["tiny-x=2.0"] == (JobStatus.PREEMPTED, 1)
    assert states["tiny-x=3.0"] == (JobStatus.NOT_SUBMITTED, 0)
    driver.gate.touch()
    status, said, err = ended(driver.start(count=3))
    assert (status, said["attempts"]) == (0, [2, 2, 1]), err


def test_a_second_ctrl_c_kills(driver: Driver, wait_until, project: Path) -> None:
    train = project / "train.py"
    stubborn = "signal.signal(signal.SIGTERM, lambda *a: (run.path / 'deaf').touch())\nif p.get('exit')"
    train.write_text(train.read_text().replace('if p.get("exit")', stubborn))
    process = driver.start(count=1)
    wait_until(lambda: driver.holds("1.0"))
    trainer = int(next(driver.folder.glob("runs/*/pid")).read_text())
    process.send_signal(signal.SIGINT)
    wait_until(lambda: list(driver.folder.glob("runs/*/deaf")))
    process.send_signal(signal.SIGTERM)  # only Ctrl-C means "at once"
    process.send_signal(signal.SIGINT)
    status, said, err = ended(process)
    assert (status, said["unfinished"]) == (130, ["tiny-x=1.0"]), err
    wait_until(lambda: not _runs(trainer))
    (run,) = GridSearchResult.load(driver.folder)
    assert run.status is JobStatus.LOST


def test_a_killed_launchers_runs_are_waited_for(driver: Driver, wait_until) -> None:
    process = driver.start(count=3)
    wait_until(lambda: driver.holds("1.0", "2.0"))
    process.kill()
    process.communicate(timeout=60)
    orphaned = GridSearchResult.load(driver.folder)
    assert [run.status for run in orphaned] == [JobStatus.RUNNING, JobStatus.RUNNING, JobStatus.NOT_SUBMITTED]
    again = driver.start(count=3)
    assert again.stderr is not None
    for _ in range(2):
        wait_until(lambda: "is still at work, waiting for it" in again.stderr.readline())
    driver.gate.touch()
    status, said, err = ended(again)
    assert (status, said["attempts"]) == (0, [1, 1, 1]), err


def test_what_a_killed_job_script_left_is_ended_before_the_next_attempt(driver: Driver, wait_until) -> None:
    process = driver.start(count=1)
    wait_until(lambda: driver.holds("1.0"))
    process.kill()
    process.communicate(timeout=60)
    (run,) = driver.folder.glob("runs/*")
    trainer = int((run / "pid").read_text())
    os.kill(json.loads((run / "attempts/1/started.json").read_text())["pid"], signal.SIGKILL)
    assert _runs(trainer)  # nobody is there to end it
    driver.rearm()
    again = driver.start(count=1)
    wait_until(lambda: driver.holds("1.0"))
    assert not _runs(trainer)
    driver.gate.touch()
    assert ended(again)[1]["attempts"] == [2]


def test_a_second_launcher_is_refused_and_disturbs_nothing(driver: Driver, wait_until) -> None:
    first = driver.start()
    wait_until(lambda: driver.holds("1.0", "2.0"))
    status, _, err = ended(driver.start())
    assert status == 1
    assert f"another launcher is at work here (process {first.pid} on {os.uname().nodename})" in err
    driver.gate.touch()
    assert ended(first)[1] == {"counts": {"COMPLETED": 2}, "attempts": [1, 1]}


@pytest.mark.slow
def test_killed_at_random_until_done_every_run_completes_once(driver: Driver, wait_until) -> None:
    """The launcher is killed; every other time all its runs with it, as when the machine goes down."""
    steps = 30
    driver.params = {"x": 1.0, "steps": steps, "pace_s": 0.005}
    chance = random.Random(1)
    kills = 0
    while not (driver.folder / "sweep.json").exists() or not GridSearchResult.load(driver.folder).is_complete:
        process = driver.start(count=4)
        target = _growth(driver.folder) + chance.randint(1, 14)
        wait_until(lambda p=process, n=target: p.poll() is not None or _growth(driver.folder) >= n)
        process.kill()
        process.communicate(timeout=60)
        kills += 1
        if kills % 2:
            for file in driver.folder.glob("runs/*/attempts/*/started.json"):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(json.loads(file.read_text())["pid"], signal.SIGKILL)
    assert kills >= 5
    status, said, err = ended(driver.start(count=4))
    assert (status, said["counts"]) == (0, {"COMPLETED": 4}), err
    for run in GridSearchResult.load(driver.folder):
        x = run.parameters["custom_params.x"]
        records = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        assert [record["global_step"] for record in records] == list(range(1, steps + 1))
        assert [record["loss"] for record in records] == [x / step for step in range(1, steps + 1)]
        finished = [json.loads(file.read_text())["outcome"] for file in run.path.glob("attempts/*/finished.json")]
        assert finished.count("finished") == 1


@pytest.mark.parametrize("how", ["script", "verb"])
def test_a_stop_that_nobody_catches_is_one_line_and_a_status(driver: Driver, wait_until, how: str) -> None:
    planned = DRIVER.replace("ExecutionMode.LOCAL", "ExecutionMode.DRY_RUN")
    base = {"experiment_name": "tiny", "model": {"name": "counter"}, "data": {"dataset_name": "none"}}
    base |= {"optimizer": {"name": "none"}, "custom_params": driver.params}
    subprocess.run([sys.executable, "-c", planned, driver.root, json.dumps(base), "1", "1"], check=True)
    script = "import sys; from mtf_slurm import SLURMLauncher; "
    script += "SLURMLauncher(None, sys.argv[1]).continue_sweep(sys.argv[1])"
    verb = "import sys; from mtf_utils.cli import main; sys.exit(main(['run', sys.argv[1]]))"
    words = [sys.executable, "-c", script if how == "script" else verb, str(driver.folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: driver.holds("1.0"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.count("stopped by SIGINT: 1 of 1 run unfinished") == 1
    assert "Traceback" not in err


def _growth(folder: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in folder.glob("runs/*/metrics.jsonl"))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
