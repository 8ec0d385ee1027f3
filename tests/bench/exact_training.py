"""The training task of the exact-resume tests, which lies outside every package, for campaigns of whole processes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["load_task"]

TASK = Path(__file__).resolve().parents[2] / "packages" / "mtf-trainer" / "tests" / "exact_task.py"


def load_task() -> ModuleType:
    """The module of the task."""
    spec = importlib.util.spec_from_file_location("exact_task", TASK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["exact_task"] = module
    spec.loader.exec_module(module)
    return module
