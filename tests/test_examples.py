"""The examples run as they stand, and end in the same state when they were killed on the way."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mtf_trainer import CheckpointConfig, CheckpointStore, attestation
from mtf_utils.rundir import WALL_CLOCK_FIELDS, read_metrics
from repository import ROOT

EXAMPLES = {"custom_trainer": ("sklearn",), "huggingface_model": ("sklearn", "transformers")}
"""What each one needs beside the packages."""

PATIENCE_S = 240.0


def needs(name: str) -> Any:
    lacking = [module for module in EXAMPLES[name] if importlib.util.find_spec(module) is None]
    reason = f"{name}.py needs {', '.join(lacking)}: hatch run examples:test has it"
    return pytest.param(name, marks=pytest.mark.skipif(bool(lacking), reason=reason))


def start(name: str, folder: Path) -> subprocess.Popen[str]:
    """One epoch of the example, with the state in `folder`."""
    command = [sys.executable, ROOT / "examples" / f"{name}.py", "--epochs", "1", "--checkpoints", folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "log").open("a") as log:
        return subprocess.Popen(command, cwd=folder.parent, env=environment, stdout=log, stderr=log, text=True)


def wait_for_records(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Until the run has so many records, or is over."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and len(records(folder)) < count:
        assert time.monotonic() < deadline, (folder.parent / "log").read_text()
        time.sleep(0.01)


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
@pytest.mark.parametrize("name", [needs(name) for name in EXAMPLES])
def test_a_killed_example_ends_bit_identical(name: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole" / "state", tmp_path / "killed" / "state"
    undisturbed = start(name, whole)
    assert undisturbed.wait(PATIENCE_S) == 0, (whole.parent / "log").read_text()
    statuses = []
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        before = len(records(killed))
        process = start(name, killed)
        wait_for_records(process, killed, before + 1)
        process.send_signal(number)
        statuses.append(process.wait(PATIENCE_S))
    said = (killed.parent / "log").read_text()
    assert statuses == [-signal.SIGKILL, 75, -signal.SIGKILL], said
    assert start(name, killed).wait(PATIENCE_S) == 0, said
    assert records(killed) == records(whole)
    assert state(killed) == state(whole)
