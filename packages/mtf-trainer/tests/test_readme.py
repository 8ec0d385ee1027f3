from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mtf_utils.rundir import read_metrics

README = Path(__file__).parents[1] / "README.md"


EXAMPLE, FROM_CONFIGURATION = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def shorter_example() -> str:
    """The first example, as a reader would save it, but for its epochs."""
    assert "epochs=40" in EXAMPLE
    return EXAMPLE.replace("epochs=40", "epochs=15")


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MTF_RUN_DIR", "MTF_ATTEMPT", "MTF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads of several tests at once slow each other down
    for name in ("killed", "alone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.py").write_text(shorter_example(), "utf-8")
    return tmp_path


@pytest.mark.slow
def test_the_example_survives_a_kill_and_prints_the_same_number(folder: Path) -> None:
    alone = run(folder / "alone")
    assert alone.returncode == 0, alone.stderr
    assert "sum of the weights" in alone.stdout

    process = subprocess.Popen([sys.executable, "train.py"], cwd=folder / "killed", stderr=subprocess.DEVNULL)
    journal, deadline = folder / "killed/checkpoints/metrics.jsonl", time.monotonic() + 60
    while process.poll() is None and not (journal.exists() and journal.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the example is over before it can be killed: give it more to do"

    continued = run(folder / "killed")
    assert continued.returncode == 0, continued.stderr
    assert "continuing at" in continued.stdout + continued.stderr
    again = run(folder / "killed")
    assert continued.stdout.splitlines()[-1] == again.stdout.splitlines()[-1] == alone.stdout.splitlines()[-1]


def test_a_training_comes_out_of_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = {
        "model": {"name": "linear", "hidden_size": 3},
        "training": {"epochs": 3, "batch_size": 5, "learning_rate": 0.1, "gradient_accumulation_steps": 2},
        "data": {"dataset_name": "sums", "samples": 24},
        "optimizer": {"name": "sgd", "momentum": 0.5},
        "scheduler": {"name": "linear", "warmup_steps": 2},
        "seed": 3,
    }
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    monkeypatch.setenv("MTF_CONFIG", str(tmp_path / "config.json"))
    for name in ("MTF_RUN_DIR", "MTF_ATTEMPT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)  # the block draws its data
    exec(compile(FROM_CONFIGURATION, "README.md", "exec"), {})

    epochs = [record for record in read_metrics(tmp_path / "checkpoints/metrics.jsonl") if record["event"] == "epoch"]
    assert [record["step"] for record in epochs] == [3, 6, 9]
    assert [record["lr"] for record in epochs] == pytest.approx([0.1 * 6 / 7, 0.1 * 3 / 7, 0.0])
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
