"""Stop at every boundary of a run, go on, and compare everything bit for bit."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mtf_trainer import TrainingPreempted, preemption
from mtf_trainer.phases import FOLLOWERS, TrainerPhase

TASK = Path(__file__).with_name("exact_task.py")

EXHAUSTIVE = "MTF_EXHAUSTIVE" in os.environ
"""Whether to stop at every boundary in turn, which takes a quarter of an hour, rather than at every so many."""


class CountingFlag(preemption.StopFlag):
    """Asks for a stop at one boundary, and counts the boundaries."""

    stop_at: int | None = None
    boundaries = 0

    @property
    def requested(self) -> bool:  # type: ignore[override]
        kind = type(self)
        kind.boundaries += 1
        return kind.stop_at is not None and kind.boundaries >= kind.stop_at

    @requested.setter
    def requested(self, value: bool) -> None:
        """The constructor sets it."""

    def is_requested(self) -> bool:
        return False

    def elapsed_s(self) -> float:
        return 0.0


@pytest.fixture
def flag(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[CountingFlag]]:
    monkeypatch.setattr(preemption, "StopFlag", CountingFlag)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield CountingFlag
    torch.set_num_threads(threads)


def train(task: ModuleType, flag: type[CountingFlag], folder: Path, stop_at: int | None, **options: Any) -> Any:
    """Train in this process, to the end or to the boundary; returns the digest, or the exception."""
    flag.stop_at, flag.boundaries = stop_at, 0
    trainer, fit = task.prepare(folder, **options)
    try:
        fit()
    except TrainingPreempted as stop:
        return stop
    return task.digest(trainer)


@pytest.mark.parametrize(
    ("options", "stride"),
    [
        ({}, 4),
        ({"precision": "bf16"}, 7),
        ({"scheduler_interval": "epoch"}, 13),
        ({"workers": 2}, 23),
        ({"workers": 2, "persistent": True}, 41),
        ({"stock": True}, 17),
    ],
    ids=["fp32", "bf16", "scheduler-by-epoch", "2-workers", "2-persistent-workers", "stock"],
)
@pytest.mark.timeout(1800)
def test_a_stop_at_any_boundary_changes_nothing(
    task: ModuleType, flag: type[CountingFlag], tmp_path: Path, options: dict[str, Any], stride: int
) -> None:
    expected = train(task, flag, tmp_path / "undisturbed", None, **options)
    total = flag.boundaries
    assert total > 250
    for boundary in range(1, total, 1 if EXHAUSTIVE else stride):
        folder = tmp_path / str(boundary)
        stop = train(task, flag, folder, boundary, **options)
        assert isinstance(stop, TrainingPreempted), f"boundary {boundary}"
        assert train(task, flag, folder, None, **options) == expected, f"boundary {boundary}: {stop}"


def test_a_run_stopped_again_and_again_ends_the_same(
    task: ModuleType, flag: type[CountingFlag], tmp_path: Path
) -> None:
    expected = train(task, flag, tmp_path / "undisturbed", None)
    result, stops, draw = None, 0, random.Random(11)
    while not isinstance(result, dict):
        result = train(task, flag, tmp_path / "disturbed", draw.randint(2, 40))
        stops += 1
    assert stops > 10
    assert result == expected


def test_the_loop_takes_legal_transitions_only(
    task: ModuleType, flag: type[CountingFlag], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtf_trainer.loop import Loop

    seen: list[TrainerPhase] = []
    boundaries = Loop.boundaries

    def watched(self: Loop) -> Iterator[TrainerPhase]:
        for phase in boundaries(self):
            seen.append(phase)
            yield phase

    monkeypatch.setattr(Loop, "boundaries", watched)
    train(task, flag, tmp_path, None)
    steps = set(itertools.pairwise(seen))
    assert {(a, b) for a, b in steps if a is not b and b not in FOLLOWERS[a]} == set()
    assert set(seen) == set(TrainerPhase) - {TrainerPhase.EPOCH_SCHED_STEP}


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(TASK), str(folder), *options], stderr=subprocess.PIPE, start_new_session=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_processes_end_the_same(tmp_path: Path, workers: int) -> None:
    options = ("--workers", str(workers))
    undisturbed = start(tmp_path / "undisturbed", *options)
    began = time.monotonic()
    assert undisturbed.wait(120) == 0, undisturbed.stderr.read() if undisturbed.stderr else ""
    lifetime = time.monotonic() - began
    draw = random.Random(workers)
    folder, statuses = tmp_path / "disturbed", []
    for number in [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL, signal.SIGTERM, None]:
        process = start(folder, *options)
        try:
            process.wait(120 if number is None else draw.uniform(0.5, 1.0) * lifetime)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, number or signal.SIGKILL)
            process.wait(120)
        statuses.append(process.returncode)
        message = process.stderr.read().decode() if process.stderr else ""
        assert process.returncode in (0, 75, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGUSR1), message
    assert statuses[-1] == 0
    expected = json.loads((tmp_path / "undisturbed" / "digest.json").read_text())
    assert json.loads((folder / "digest.json").read_text()) == expected, statuses


def test_killed_around_a_save_in_the_background_they_end_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TASK.with_name("background_kills.py")), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(cases) == 12
    for case in cases:
        assert case["statuses"] == [-signal.SIGKILL, 0], (case, done.stderr)
        assert case["equal"], case
