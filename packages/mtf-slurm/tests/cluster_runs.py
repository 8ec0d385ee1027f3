"""Runs for the tests on a real cluster: their folders, their jobs, and a trainer that keeps to the contract."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtf_config import SLURMConfig
from mtf_slurm.cluster.options import node_count, sbatch_options, task_count
from mtf_slurm.cluster.script import JobScriptSpec, SubmissionTemplate, slurm_job_name, task_line
from mtf_slurm.render import JobScript, render_job
from mtf_slurm.testing import LocalCluster
from mtf_utils.rundir import RunDirectory, SweepDirectory
from mtf_utils.sections import PreemptionConfig

TOKEN = "0123abcd"
DEADLINE_S = 150.0

# Takes one step after the other, each of them once over all attempts, and waits at step `hold` for a signal or a file.
TRAINER = r"""
import os, pathlib, signal, sys, time
stop, seen = [], []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda n, frame: (stop.append(n), seen.append(signal.Signals(n).name)))
run, rank = pathlib.Path(os.environ["MTF_RUN_DIR"]), os.environ.get("SLURM_PROCID", "0")
hold, steps, mode = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
shelf = run / "checkpoints"
shelf.mkdir(exist_ok=True)
first = os.environ["MTF_ATTEMPT"] == "1"
step = max([int(p.name) for p in shelf.iterdir()], default=0)
while step < steps:
    if step == hold and (first or mode == "always"):
        (run / f"held-{os.environ['MTF_ATTEMPT']}-{rank}").touch()
        while not stop and not (run / "go").exists():
            time.sleep(0.02)
    if stop:
        if rank == "0":
            time.sleep(float(os.environ.get("SAVE_S", "0")))
            (shelf / str(step)).touch()
        print(f"rank {rank} told by {seen[0]}, saved {step}", flush=True)
        sys.exit(75)
    step += 1
    if rank == "0":
        with (run / "metrics.jsonl").open("a") as file:
            file.write(f"{step}\n")
"""


def wait_for(condition: Callable[[], Any], what: str = "a condition", timeout_s: float = DEADLINE_S) -> Any:
    """What the condition returns, once it is true."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return value


def keep_state(cluster: LocalCluster, kept: Path) -> None:
    """Copy what the controller has saved, once it has saved all that it was told so far."""
    cluster.run(["sbatch", "--hold", "--job-name=last-of-all", "--output=/dev/null"], text_in="#!/bin/sh\n")

    def copy() -> bool:
        cluster.freeze_controller()  # it moves its files about
        try:
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(cluster.folder / "state", kept)
        finally:
            cluster.thaw_controller()
        saved = kept / "job_state"
        return saved.exists() and b"last-of-all" in saved.read_bytes()

    wait_for(copy, "the controller to save its state", 60)


def crash_back(cluster: LocalCluster, kept: Path) -> None:
    """Kill the controller, and start it again as if it had not saved anything since the copy was made."""
    cluster.kill_controller()
    shutil.copytree(kept, cluster.folder / "state", dirs_exist_ok=True)
    cluster.start_controller()


class Runs:
    """A sweep's folder on a cluster, without a launcher."""

    def __init__(self, cluster: LocalCluster, path: Path) -> None:
        self.cluster = cluster
        self.directory = SweepDirectory(path)
        self.folder = path / "submissions" / TOKEN
        self.folder.mkdir(parents=True)
        (path / "trainer.py").write_text(TRAINER)
        self._count = 0

    def add(
        self,
        name: str,
        *,
        hold: int = 2,
        steps: int = 5,
        mode: str = "once",
        slurm: SLURMConfig | None = None,
        **values: Any,
    ) -> RunDirectory:
        """The folder of a run that waits at one step."""
        run = self.directory.run(name)
        run.path.mkdir(parents=True)
        job = JobScript(
            name=name,
            project_root=self.directory.path,
            python=sys.executable,
            command=("{python}", "trainer.py", str(hold), str(steps), mode),
            nodes=node_count(slurm),
            tasks=task_count(slurm),
            **values,
        )
        run.job_script.write_text(render_job(job))
        return run

    def submit(
        self,
        *runs: RunDirectory,
        slurm: SLURMConfig | None = None,
        first_attempt: int = 1,
        array: bool = False,
        environ: dict[str, str] | None = None,
        preemption: PreemptionConfig | None = None,
        throttle: int | None = None,
    ) -> str:
        """The job id of one job for all of them."""
        config = slurm or SLURMConfig()
        spec = JobScriptSpec(
            job_name=slurm_job_name("test", TOKEN, self._count),
            options=sbatch_options(config, preemption or PreemptionConfig()),
            config=config,
            sweep_dir=self.directory.path,
            token=TOKEN,
            number=self._count,
            tasks=len(runs) if array else None,
            throttle=throttle,
        )
        lines = "".join(task_line(first_attempt, run.name) for run in runs)
        (self.folder / f"{self._count}.tasks").write_text(lines)
        self._count += 1
        text = SubmissionTemplate.built_in().render(spec)
        return self.send(text, *spec.words(), environ=environ)

    def send(self, text: str, *words: str, environ: dict[str, str] | None = None) -> str:
        """The job id of a script."""
        done = self.cluster.run(["sbatch", "--parsable", *words], text_in=text, environ=environ)
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """What Slurm says of a job; empty when it has none of that id."""
        words = ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"]
        return self.cluster.run(words, check=False).stdout.strip()

    def wait_held(self, run: RunDirectory, attempt: int = 1, ranks: int = 1) -> None:
        """Until the run waits for a signal."""
        files = [run.path / f"held-{attempt}-{rank}" for rank in range(ranks)]
        wait_for(lambda: all(file.exists() for file in files), f"{run.name} at its hold")

    def wait_over(self, job: str) -> str:
        """The state in which the job ended."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
        return str(wait_for(lambda: (state := self.state(job)) in over and state, f"the end of job {job}"))


def outcomes(run: RunDirectory) -> list[str | None]:
    """How each attempt ended."""
    receipts = [attempt.finished() for attempt in run.attempts()]
    return [receipt.outcome.value if receipt else None for receipt in receipts]


def steps_taken(run: RunDirectory) -> list[int]:
    """Every step that was ever taken, in order."""
    return [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
