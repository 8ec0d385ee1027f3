"""A short campaign of kills of the local runner, and the proof that it notices what it is there to notice."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from repository import ROOT

BENCH = ROOT / "tests" / "bench"

# Leaves what a training leaves, but goes on with other numbers than it would have come to.
FORGETFUL = """
import json, os, time
from mtf_utils.rundir import RunResultFile, current_run, now

run, attempt = current_run()
time.sleep(1.0)
run.metrics_file.write_text(json.dumps({"event": "epoch", "epoch": 0, "step": 1, "loss": attempt.number}) + "\\n")
(run.path / "checkpoints").mkdir(exist_ok=True)
RunResultFile(epoch=1, global_step=1, metrics={}, checkpoint="checkpoints", seed=0, finished_at=now()).write(
    run.result_file
)
"""


def campaign(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCH / "local_kills.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.slow
def test_a_killed_runner_called_again_completes_every_run_once() -> None:
    done = campaign("--kills", "4", "--runs", "2", "--seed", "2", "--longest", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    runner, everything = map(int, re.findall(r"4 kills \(runner: (\d), everything: (\d)\)", done.stdout)[0])
    assert runner >= 1
    assert everything >= 1
    assert "faults: none" in done.stdout


@pytest.mark.slow
def test_a_campaign_notices_a_run_that_comes_to_something_else(tmp_path: Path) -> None:
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    done = campaign(
        "--kills", "5", "--runs", "2", "--longest", "3", "--seed", "1", "--script", tmp_path / "forgetful.py"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "differs in journal" in done.stdout


def test_impossible_numbers_are_refused() -> None:
    done = campaign("--kills", "0")
    assert done.returncode == 2
    assert "--kills" in done.stderr
