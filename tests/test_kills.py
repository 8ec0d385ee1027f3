"""A short campaign of kills, and the proof that a campaign notices what it is there to notice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from repository import ROOT

BENCH = ROOT / "tests" / "bench"

# Trains as our trainer does, but starts every continued process with random streams of its own.
FORGETFUL = """
import json, sys
from killing import ours
from mtf_trainer import rng

rng.restore = lambda state: rng.seed_everything(sum(json.dumps(str(state)).encode()))
run = ours.run

if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
"""


def campaign(*arguments: str, script: str = "kills.py", path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command; `path` is where further modules are found."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    command = [sys.executable, str(BENCH / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=environment)


@pytest.mark.slow
def test_killed_runs_end_bit_identical() -> None:
    done = campaign("--kills", "12", "--seed", "7", "--setups", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.partition(" kills in ")[0]) >= 12, done.stdout
    same, runs = re.findall(r"bit-identical: (\d+) of (\d+) runs", done.stdout)[0]
    assert int(same) == int(runs) > 3
    assert "faults: none" in done.stdout


@pytest.mark.slow
def test_a_campaign_notices_that_random_streams_are_lost(tmp_path: Path) -> None:
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    done = campaign("--kills", "2", "--seed", "7", "--setups", "1", "--module", "forgetful", path=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "differs in" in done.stdout


def test_impossible_numbers_are_refused() -> None:
    done = campaign("--kills", "0")
    assert done.returncode == 2
    assert "--kills" in done.stderr


@pytest.mark.slow
def test_the_scoreboard_has_a_row_for_each_signal_and_number_of_workers() -> None:
    done = campaign("--kills", "1", "--only", "mtf-trainer", script="kills_peers.py")
    assert done.returncode == 0, done.stdout + done.stderr
    _, *lines = done.stdout.splitlines()
    rows = [line.split() for line in lines if line.startswith("mtf-trainer")]
    assert [row[1:3] for row in rows] == [["KILL", "0"], ["KILL", "2"], ["TERM", "0"], ["TERM", "2"]]
    assert all(kills == identical for _, _, _, kills, identical, *_ in rows), done.stdout
