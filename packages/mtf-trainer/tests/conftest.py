"""What several tests of the trainer share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

settings.register_profile("mtf", deadline=None)  # a busy machine is no failure
settings.load_profile("mtf")


def load(name: str) -> ModuleType:
    """A module of this folder that is no test."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # loader workers started by spawn would look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def task() -> ModuleType:
    """The module `exact_task`, which is a script too."""
    return load("exact_task")


@pytest.fixture(scope="session")
def ranks() -> ModuleType:
    """The module `rank_processes`."""
    return load("rank_processes")
