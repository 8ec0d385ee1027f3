from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def example() -> str:
    """The first example, as a reader would save it."""
    found = re.search(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MTF_RUN_DIR", "MTF_ATTEMPT", "MTF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("killed", "alone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.py").write_text(example(), "utf-8")
    return tmp_path


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
