"""Where a training keeps its files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mtf_utils import rundir

if TYPE_CHECKING:
    from mtf_trainer.config import GenericTrainerConfig

__all__ = ["checkpoint_directory", "run_directory"]


def checkpoint_directory(config: GenericTrainerConfig) -> Path:
    """Where the checkpoints are: relative to the run directory if there is one, else to the working directory."""
    base = os.environ.get(rundir.ENV_RUN_DIR) or Path.cwd()
    return Path(base, config.checkpoint.checkpoint_dir)


def run_directory(config: GenericTrainerConfig) -> Path:
    """Where the files go that a run writes for people: the run directory, or where its checkpoints are."""
    run = rundir.current_run()
    return run[0].path if run else checkpoint_directory(config)
