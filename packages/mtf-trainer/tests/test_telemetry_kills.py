"""What a run told, after it was killed many times: the same as if it never had been, and nothing twice."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtf_utils.rundir import WALL_CLOCK_FIELDS, read_metrics

SCRIPT = Path(__file__).with_name("telemetry_kills.py")


def is_installed(name: str) -> bool:
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None


def kill_often(place: Path, kills: int, *loggers: str) -> None:
    command = [sys.executable, str(SCRIPT), str(place), str(kills), *loggers]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome == {"whole": 0, "statuses": [-9, 75] * (kills // 2) + [0], "equal": True}, done.stderr


def records(folder: Path) -> list[dict[str, Any]]:
    """The records of a run, without the clock."""
    every = read_metrics(folder / "checkpoints" / "metrics.jsonl")
    return [{key: value for key, value in record.items() if key not in WALL_CLOCK_FIELDS} for record in every]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_leave_every_record_once(tmp_path: Path) -> None:
    has_tensorboard = is_installed("tensorboard")
    kill_often(tmp_path, 20, "use_csv", *(["use_tensorboard"] if has_tensorboard else []))
    told = records(tmp_path / "killed")
    assert told == records(tmp_path / "whole")
    assert {record["event"] for record in told} == {"train", "validation", "epoch", "log", "image"}
    check_table(tmp_path / "killed")
    if has_tensorboard:
        check_event_file(tmp_path / "killed", told)


def check_table(folder: Path) -> None:
    with (folder / "checkpoints" / "metrics.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    journal = list(read_metrics(folder / "checkpoints" / "metrics.jsonl"))
    assert rows == [{key: str(value) for key, value in record.items()} for record in journal]


def check_event_file(folder: Path, told: list[dict[str, Any]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (path,) = (file for file in (folder / "checkpoints" / "tensorboard").iterdir() if file.stat().st_size)
    seen = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 0}, purge_orphaned_data=False).Reload()
    for tag in seen.Tags()["scalars"]:
        steps = [event.step for event in seen.Scalars(tag)]
        assert steps == sorted(set(steps)), tag
    losses = [(event.step, event.value) for event in seen.Scalars("train_loss")]
    expected = [(record["step"], record["train_loss"]) for record in told if record["event"] == "train"]
    assert losses == [(step, pytest.approx(value)) for step, value in expected]
    images = [(event.step, event.encoded_image_string) for event in seen.Images("weights")]
    files = [(item["step"], folder / "checkpoints" / item["file"]) for item in told if item["event"] == "image"]
    assert images == [(step, file.read_bytes()) for step, file in files]
