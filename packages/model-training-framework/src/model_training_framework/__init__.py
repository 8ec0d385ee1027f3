"""Describe, sweep, submit and resume PyTorch experiments: one face for the packages of the framework.

The modules `config`, `trainer`, `slurm` and `utils` hold the identical objects of `mtf_config`, `mtf_trainer`,
`mtf_slurm` and `mtf_utils`. Nothing is loaded before it is used: without `trainer`, no torch.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model_training_framework.framework import ModelTrainingFramework

__all__ = ["ModelTrainingFramework"]

__version__ = metadata.version("model-training-framework")


def __getattr__(name: str) -> Any:
    if name == "ModelTrainingFramework":
        return importlib.import_module("model_training_framework.framework").ModelTrainingFramework
    if name in ("config", "slurm", "trainer", "utils"):
        return importlib.import_module(f"model_training_framework.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "config", "slurm", "trainer", "utils"])
