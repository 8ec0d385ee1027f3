"""100 trivial runs on a throw-away Slurm, submitted and collected: ours, submitit, hydra-submitit, and a bare array.

`hatch run peers:run trivial_tasks.py`, or `python tests/bench/trivial_tasks.py` where submitit and hydra-submitit are
installed; those that are not are left out. The bare array runs `python -c pass` and is asked for every 0.2 s. Beside
the times stands what else the machine did, and how many programs one run of ours takes beside the command.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mtf_config import ExecutionMode, ExperimentConfig
from mtf_slurm import GridSearchResult, JobStatus, SLURMLauncher
from mtf_slurm.testing import ClusterSettings, LocalCluster

APP = """
import hydra
from omegaconf import DictConfig


@hydra.main(version_base=None)
def nothing(config: DictConfig) -> None:
    pass


nothing()
"""


class PeerFailedError(Exception):
    """Another's launcher did not collect its tasks; the message is its last line."""


def bare(folder: Path, tasks: int) -> None:
    """An array of `python -c pass`, and nobody who keeps account of it."""
    script = f"#!/bin/sh\nexec {sys.executable} -c pass\n"
    words = ["sbatch", "--parsable", f"--array=0-{tasks - 1}", f"--output={folder}/%a.log"]
    job_id = subprocess.run(words, input=script, capture_output=True, text=True, check=True).stdout.strip()
    queue = ["squeue", "--noheader", f"--jobs={job_id}"]
    while subprocess.run(queue, capture_output=True, text=True, check=False).stdout.strip():
        time.sleep(0.2)


def ours(folder: Path, tasks: int) -> None:
    """A batch of experiments; over when the receipt of each has been read."""
    launcher = SLURMLauncher(None, folder / "out", project_root=folder, command=["{python}", "-c", "pass"])
    sections = {key: {"name": "none"} for key in ("model", "optimizer")}
    data = {"dataset_name": "none"}
    experiments = [
        ExperimentConfig.from_dict(
            sections | {"experiment_name": f"run-{number}", "training": {}, "data": data, "seed": number}
        )
        for number in range(tasks)
    ]
    launcher.submit_experiment_batch(experiments, ExecutionMode.SLURM)
    result = GridSearchResult(folder / "out" / "single").wait()
    assert result.counts == {JobStatus.COMPLETED: tasks}, result.counts


def submitit(folder: Path, tasks: int) -> None:
    """`map_array` of the identity."""
    from submitit import AutoExecutor

    executor = AutoExecutor(folder=folder, cluster="slurm")
    executor.update_parameters(timeout_min=5, slurm_array_parallelism=tasks)
    jobs = executor.map_array(int, range(tasks))
    assert [job.result() for job in jobs] == list(range(tasks))


def hydra(folder: Path, tasks: int) -> None:
    """A multirun with the submitit launcher, which waits for its jobs."""
    (folder / "app.py").write_text(APP)
    settings = [f"+x=range(0,{tasks})", "hydra/launcher=submitit_slurm", f"hydra.launcher.array_parallelism={tasks}"]
    command = [sys.executable, "app.py", "-m", *settings]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise PeerFailedError(done.stderr.strip().rpartition("\n")[2] or f"status {done.returncode}")


def programs(job_script: Path, folder: Path) -> list[str]:
    """What a run of ours calls beside its command, which is given by its path."""
    sys.path.append(str(Path(__file__).parents[2] / "packages" / "mtf-slurm" / "tests"))
    from job_folders import Counter  # type: ignore[import-not-found]

    counter = Counter(folder)
    environ = os.environ | {"PATH": str(counter.programs), "MTF_FIRST_ATTEMPT": "2"}
    subprocess.run(["bash", job_script], env=environ, check=True)
    seen: list[str] = counter.seen()
    return seen


def contestants() -> dict[str, Callable[[Path, int], None]]:
    """Everyone who can take part here."""
    found: dict[str, Callable[[Path, int], None]] = {"bare array": bare, "mtf-slurm": ours}
    if importlib.util.find_spec("submitit"):
        found["submitit"] = submitit
    if importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec("hydra"):
        found["hydra-submitit"] = hydra
    return found


def main() -> None:
    """Take turns, and print each one's times beside the bare array of the same round."""
    parser = argparse.ArgumentParser(prog="trivial_tasks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, help="each contestant's turns (default: 3)")
    arguments = parser.parse_args()
    logging.getLogger("submitit").setLevel(logging.ERROR)
    print(f"load before: {os.getloadavg()[0]:.2f}")
    times: dict[str, dict[int, float]] = {}
    settings = ClusterSettings(cpus=64, memory_mb=200_000, gpus=0, accounting=True)
    with LocalCluster(settings) as cluster, tempfile.TemporaryDirectory(prefix="trivial-") as temporary:
        os.environ.update(cluster.environment())
        for turn in range(arguments.rounds):
            for name, collect in contestants().items():
                folder = Path(temporary, f"{name.replace(' ', '-')}-{turn}")
                folder.mkdir()
                began = time.perf_counter()
                try:
                    collect(folder, arguments.tasks)
                except PeerFailedError as error:
                    print(f"{name} failed in round {turn + 1}: {error}")
                else:
                    times.setdefault(name, {})[turn] = time.perf_counter() - began
        job_script = next(Path(temporary, "mtf-slurm-0").glob("out/single/runs/*/job.sh"))
        called = programs(job_script, Path(temporary))
    for name, seconds in times.items():
        ratio = statistics.median(own / times["bare array"][turn] for turn, own in seconds.items())
        print(f"{name:<16} {statistics.median(seconds.values()):>7.2f} s  {ratio:>6.2f} x bare array")
    print(f"a run of ours is {len(called)} programs beside its command: {' '.join(called)}")


if __name__ == "__main__":
    main()
