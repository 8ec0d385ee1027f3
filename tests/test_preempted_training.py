"""Real trainings that a real Slurm stops, for other jobs or for want of time; skipped where Slurm is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mtf_slurm.testing import is_available
from repository import ROOT

pytestmark = [pytest.mark.skipif(is_available() is not None, reason=is_available() or ""), pytest.mark.slow]


def campaign(*arguments: str) -> str:
    """What the campaign says."""
    command = [sys.executable, str(ROOT / "tests" / "bench" / "preemptions.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "settings", [(), ("--grace", "5", "--user-signal")], ids=["at once, default signals", "grace, user signal"]
)
def test_preempted_trainings_end_bit_identical(settings: tuple[str, ...]) -> None:
    said = campaign("--runs", "2", "--stops", "2", "--seed", "5", *settings)
    assert "bit-identical after 2 or more stops each: 2 of 2 runs" in said


@pytest.mark.parametrize("settings", [(), ("--until-limit",)], ids=["at the warning", "at the limit itself"])
def test_trainings_whose_time_is_up_end_bit_identical(settings: tuple[str, ...]) -> None:
    said = campaign("--runs", "2", "--stops", "1", "--seed", "5", "--time-limit", "1", *settings)
    assert "bit-identical after 1 or more stops each: 2 of 2 runs" in said
