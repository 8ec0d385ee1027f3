"""What the ranks run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["TASK"]

TASK: Final = Path(__file__).resolve().parents[3] / "packages" / "mtf-trainer" / "tests" / "ranks_task.py"
