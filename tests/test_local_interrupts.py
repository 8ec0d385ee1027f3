"""Real trainings under the facade, told to stop in the middle: all save and end, and the same call goes on exactly."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.sweeping.project import make_project, outcome_of
from cluster_bench import wait_until
from model_training_framework.slurm import GridSearchResult, JobStatus
from mtf_utils.rundir import SweepDirectory
from repository import ROOT

pytestmark = pytest.mark.slow

DRIVER = ROOT / "tests" / "bench" / "sweeping" / "driver.py"
RUNS = 3


def call(project: Path, folder: Path) -> subprocess.Popen[str]:
    """The sweep, two runs at a time."""
    words = [sys.executable, DRIVER, project, folder, str(RUNS), "0.1"]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)


def outcomes(folder: Path) -> dict[str, Any]:
    return {run.name: outcome_of(run) for run in SweepDirectory(folder).runs()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("interrupts") / "project")


@pytest.fixture(scope="module")
def undisturbed(project: Path) -> dict[str, Any]:
    with call(project, project / "undisturbed") as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return outcomes(project / "undisturbed")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_told_to_stop_all_save_and_the_same_call_goes_on_exactly(
    project: Path, undisturbed: dict[str, Any], name: str
) -> None:
    folder = project / name
    with call(project, folder) as process:
        wait_until(
            lambda: sum(file.stat().st_size > 0 for file in folder.glob("runs/*/metrics.jsonl")) == 2,
            "two runs in the middle of their trainings",
        )
        process.send_signal(signal.Signals[name])
        _, said = process.communicate(timeout=240)
    assert process.returncode == 130
    assert f"stopped by {name}: 3 of 3 runs unfinished; repeat the same call" in said
    result = GridSearchResult.load(folder)
    assert result.counts == {JobStatus.PREEMPTED: 2, JobStatus.NOT_SUBMITTED: 1}
    stopped = [run for run in result if run.status is JobStatus.PREEMPTED]
    assert all(0 < run.global_step < 24 for run in stopped)
    assert all(list((run.path / "checkpoints").glob("ckpt-*")) for run in stopped)
    with call(project, folder) as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert sorted(run.attempts for run in result.refresh()) == [1, 2, 2]
    assert outcomes(folder) == undisturbed
