"""Places, GPUs, threads, and who is alive."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_slurm.processes import host_name, is_alive, visible_gpus
from mtf_slurm.slots import Slots
from mtf_utils.rundir import RunDirectory, StartReceipt


@given(count=st.integers(1, 6), gpus=st.integers(0, 4), actions=st.lists(st.booleans(), max_size=40))
def test_places_are_dealt_fairly(count: int, gpus: int, actions: list[bool]) -> None:
    slots = Slots(count, [f"g{i}" for i in range(gpus)], cores=8, environ={})
    running: dict[str, str] = {}
    for number, starts in enumerate(actions):
        if starts and slots.free:
            variables = slots.environment(slots.take(str(number)))
            running[str(number)] = variables.get("CUDA_VISIBLE_DEVICES", "")
            assert variables["OMP_NUM_THREADS"] == str(max(1, 8 // count))
        elif running:
            name = next(iter(running))
            slots.give_back(name)
            del running[name]
        assert len(running) <= count
        if gpus >= count:
            assert len(set(running.values())) == len(running)


def test_an_adopted_run_keeps_its_gpu_and_may_exceed_the_places() -> None:
    slots = Slots(1, ["0", "1"], environ={})
    assert slots.take("a", gpu="1") == 1
    assert slots.take("b", gpu="0") == 0
    assert slots.take("c", gpu="7") == 2
    assert not slots.free
    for name in "abc":
        slots.give_back(name)
    assert slots.free


@pytest.mark.parametrize(
    ("value", "gpus"),
    [
        ("", []),
        ("-1", []),
        ("0", ["0"]),
        ("2, 0", ["2", "0"]),
        ("1,-1,2", ["1"]),
        ("GPU-ab,MIG-cd", ["GPU-ab", "MIG-cd"]),
    ],
)
def test_gpus_of_the_environment(value: str, gpus: list[str]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": value}) == gpus


def test_gpus_are_counted_by_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    program.chmod(0o755)
    assert visible_gpus({}) == ["0", "1"]
    program.write_text("#!/bin/sh\necho 'No devices were found'; exit 6\n")
    assert visible_gpus({}) == []
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus({}) == []


def receipt(pid: int, **changes: object) -> StartReceipt:
    values = {"attempt": 1, "token": "t", "host": host_name(), "pid": pid, "started_at": "x"} | changes
    return StartReceipt(**values)  # type: ignore[arg-type]


def test_alive_is_only_who_runs_that_very_script(tmp_path: Path) -> None:
    run, other = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "other")
    for folder in (run, other):
        folder.path.mkdir()
        folder.job_script.write_text("echo at work; read line\n")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(["bash", str(run.job_script)], **pipes)
    by_hand = subprocess.Popen(["bash", "job.sh"], cwd=run.path, **pipes)
    try:
        for child in (process, by_hand):  # a receipt is written by a script that is at work
            assert child.stdout is not None
            assert child.stdout.readline() == b"at work\n"
        assert is_alive(run, receipt(process.pid)) is True
        assert is_alive(run, receipt(by_hand.pid)) is True
        assert is_alive(other, receipt(process.pid)) is False
        assert is_alive(run, receipt(os.getpid())) is False
        assert is_alive(run, receipt(process.pid, host="elsewhere")) is None
        assert is_alive(run, receipt(process.pid, job_id="5")) is None
    finally:
        for child in (process, by_hand):
            child.communicate(b"\n", timeout=60)
    assert is_alive(run, receipt(process.pid)) is False
