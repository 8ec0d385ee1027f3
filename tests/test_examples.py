"""The examples run as they stand, and end in the same state when they were killed on the way."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster_bench import wait_until
from mtf_slurm.testing import ClusterSettings, LocalCluster
from mtf_trainer import CheckpointConfig, CheckpointStore, attestation
from mtf_utils.rundir import WALL_CLOCK_FIELDS, read_metrics
from repository import ROOT

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]

pytestmark = pytest.mark.timeout(1800)  # a busy machine is no failure

EXAMPLES = ROOT / "examples"
EPOCHS = {"basic_training": 10, "custom_trainer": 1, "huggingface_model": 1, "ddp": 3}
"""The examples that train in their own process, and how long they need to be killed three times."""

PATIENCE_S = 600.0


def lacking(*modules: str) -> Any:
    """Skips a test where an example has not what it needs beside the packages."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: hatch run examples:test has it")


def killable(name: str) -> Any:
    also = ("transformers",) if name == "huggingface_model" else ()
    return pytest.param(name, marks=lacking("sklearn", *also))


def start(name: str, folder: Path) -> subprocess.Popen[str]:
    """The example, with the state in `folder`."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if name == "ddp" else []
    script = [EXAMPLES / f"{name}.py", "--epochs", str(EPOCHS[name]), "--checkpoints", folder]
    command = [sys.executable, *torchrun, *script]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "log").open("a") as log:
        return subprocess.Popen(command, cwd=folder.parent, env=environment, stdout=log, stderr=log, text=True)


def strike(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal; SIGKILL also to the ranks that torchrun has started, which it cannot take along."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for each in (process.pid, *map(int, children if number is signal.SIGKILL else ())):
        os.kill(each, number)


def wait_for_records(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Until the run has so many records, or is over."""
    wait_until(
        lambda: process.poll() is not None or len(records(folder)) >= count,
        (folder.parent / "log").read_text,
        PATIENCE_S,
    )


def records(folder: Path) -> list[dict[str, Any]]:
    """The records of a run, without the clock."""
    path = folder / "metrics.jsonl"
    every = read_metrics(path) if path.exists() else ()
    return [{key: value for key, value in record.items() if key not in WALL_CLOCK_FIELDS} for record in every]


def state(folder: Path) -> attestation.Digests:
    """Hashes of everything in the newest checkpoint."""
    with CheckpointStore(folder, CheckpointConfig(), run_id=None) as store:
        checkpoint = store.newest()
    assert checkpoint is not None
    return attestation.digests(checkpoint.sections)


@pytest.mark.slow
@pytest.mark.parametrize("name", [killable(name) for name in EPOCHS])
def test_a_killed_example_ends_bit_identical(name: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole" / "state", tmp_path / "killed" / "state"
    undisturbed = start(name, whole)
    assert undisturbed.wait(PATIENCE_S) == 0, (whole.parent / "log").read_text()
    statuses = []
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        before = len(records(killed))
        process = start(name, killed)
        wait_for_records(process, killed, before + 1)
        strike(process, number)
        statuses.append(process.wait(PATIENCE_S))
    said = (killed.parent / "log").read_text()
    preempted = 1 if name == "ddp" else 75  # torchrun has one status for whatever has ended its processes
    assert statuses == [-signal.SIGKILL, preempted, -signal.SIGKILL], said
    assert start(name, killed).wait(PATIENCE_S) == 0, said
    assert records(killed) == records(whole)
    assert state(killed) == state(whole)


def run_example(*words: str | Path, folder: Path, **environ: str) -> str:
    """Run an example to its end, which has to be a good one; what it printed."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@lacking("sklearn")
def test_preemption_makes_no_difference(tmp_path: Path) -> None:
    said = run_example(EXAMPLES / "preemption_handling.py", folder=tmp_path)
    assert "SIGTERM in epoch 1, batch 30: status 75: saved" in said
    assert "SIGKILL in epoch 2, batch 17: status -9" in said
    assert said.endswith("the weights are the same, bit for bit\n")


@pytest.mark.slow
@lacking("sklearn")
def test_a_grid_is_searched_and_not_searched_again(tmp_path: Path) -> None:
    first = run_example(EXAMPLES / "grid_search.py", folder=tmp_path)
    table = tmp_path / "experiments" / "digits" / "results.csv"
    assert len(table.read_text().splitlines()) == 1 + 9
    attempts = sorted(table.parent.glob("runs/*/attempts/*"))
    assert len(attempts) == 9
    assert run_example(EXAMPLES / "grid_search.py", folder=tmp_path).splitlines()[-6:] == first.splitlines()[-6:]
    assert sorted(table.parent.glob("runs/*/attempts/*")) == attempts


@pytest.mark.slow
@lacking("sklearn")
def test_a_batch_goes_through_slurm(slurm_cluster: Callable[..., LocalCluster], tmp_path: Path) -> None:
    with slurm_cluster(ClusterSettings(nodes=1)) as cluster:
        for _ in ("submits four", "submits none"):
            said = run_example(EXAMPLES / "slurm_batch.py", folder=tmp_path, **cluster.environment())
            assert said.count("COMPLETED after 1 attempt(s): val_accuracy 0.") == 4
    assert len(list(tmp_path.glob("experiments/single/runs/*/attempts/*"))) == 4


COMPUTE_NODE = """
import runpy, sys
sys.argv = ["train.py", "--config", "config.json"]
runpy.run_path("train.py", run_name="__main__")
print(*{name.partition(".")[0] for name in sys.modules})
"""


@pytest.mark.slow
@lacking("sklearn")
def test_a_compute_node_needs_the_trainer_alone(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLES / "compute_node_only", tmp_path / "job"))
    loaded = set(run_example("-c", COMPUTE_NODE, folder=folder).split())
    assert "mtf_trainer" in loaded
    assert not loaded & {"mtf_config", "mtf_slurm", "model_training_framework", "yaml", "jsonschema", "git", "support"}
    assert "final" in {json.loads(file.read_text())["kind"] for file in folder.glob("checkpoints/*/manifest.json")}


@pytest.mark.slow
@lacking("sklearn")
def test_a_job_without_a_launcher_queues_itself_again(
    slurm_cluster: Callable[..., LocalCluster], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(EXAMPLES / "compute_node_only", tmp_path / "job"))
    config = json.loads((folder / "config.json").read_text())
    config["training"]["epochs"] = 60
    (folder / "config.json").write_text(json.dumps(config))
    path = f"{Path(sys.executable).parent}{os.pathsep}"
    with slurm_cluster(ClusterSettings(nodes=1)) as cluster:
        environ = {"PATH": path + cluster.environment()["PATH"], "OMP_NUM_THREADS": "1"}
        job = cluster.run(["sbatch", "--parsable", "job.sh"], cwd=folder, environ=environ).stdout.strip()
        log = folder / f"digits-{job}.log"

        def told() -> str:
            return log.read_text() if log.exists() else ""

        wait_until(lambda: records(folder / "checkpoints"), told, PATIENCE_S)
        cluster.run(["scancel", "--signal=USR1", job])
        wait_until(lambda: "training is complete" in told(), told, PATIENCE_S)
    assert "continu" in told()
