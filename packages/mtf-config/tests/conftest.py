"""Settings and fixtures of this package's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import settings

from mtf_config import ConfigurationManager

sys.path.insert(0, str(Path(__file__).parent))  # for config_support

settings.register_profile("mtf", deadline=None)  # a busy machine is no failure
settings.load_profile("mtf")


@pytest.fixture
def manager(tmp_path: Path) -> ConfigurationManager:
    """The manager of an empty project."""
    (tmp_path / "configs").mkdir()
    return ConfigurationManager(tmp_path)
