"""Processes that die while they save, and processes that want the same directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtf_trainer.checkpoint import CheckpointStore
from mtf_trainer.errors import CheckpointError
from mtf_utils.sections import CheckpointConfig

SCRIPT = Path(__file__).with_name("checkpoint_processes.py")


def start(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def reports(*arguments):
    process = start(*arguments)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


def test_killed_at_random_moments_a_valid_checkpoint_always_exists(tmp_path):
    found = reports("kill_at_random", tmp_path, 40, 1)
    assert len(found) == 40
    for report in found:
        assert report["signal"] == 9
        assert report["whole"]
        assert report["durable"] == 0 or report["step"] >= report["durable"]
        assert all(name.startswith("ckpt-") and not name.endswith(".damaged") for name in report["names"])
    assert found[-1]["step"] > 10
    # Every kill may leave one whose removal was cut off; the next save that gets through removes them all.
    [saved] = reports("save_once_more", tmp_path)
    assert saved["step"] == found[-1]["step"] + 1
    assert len(saved["names"]) <= 2
    assert saved["names"][-1].endswith(f"-step-{saved['step']:08d}")


def test_killed_before_every_call_of_a_save_a_valid_checkpoint_always_exists(tmp_path):
    found = reports("kill_at_every_call", tmp_path)
    assert len(found) > 30
    steps = [report["step"] for report in found]
    assert steps == sorted(steps)
    assert set(steps) == {1, 2}
    for report in found:
        assert report["whole"]
        assert all(name.startswith("ckpt-") and not name.endswith(".damaged") for name in report["names"])
    assert [report["killed"] for report in found] == [True] * (len(found) - 1) + [False]
    assert found[-1]["status"] == 0


def test_another_process_is_refused_and_told_who_is_there(tmp_path):
    process = start("hold", tmp_path)
    try:
        holder = json.loads(process.stdout.readline())
        host = os.uname().nodename
        with pytest.raises(CheckpointError, match=rf"in use by process {holder['pid']} on {host} \(run holder, since"):
            CheckpointStore(tmp_path, CheckpointConfig(), run_id="run")
    finally:
        process.kill()
        process.communicate()
    CheckpointStore(tmp_path, CheckpointConfig(), run_id="run").close()


def test_a_child_that_outlives_the_holder_does_not_keep_the_lock(tmp_path):
    process = start("hold_in_a_parent", tmp_path)
    try:
        child = json.loads(process.stdout.readline())["child"]
        process.kill()
        process.wait()
        os.kill(child, 0)  # still alive: it waits for its input
        CheckpointStore(tmp_path, CheckpointConfig(), run_id="run").close()
    finally:
        process.kill()
        process.communicate()
