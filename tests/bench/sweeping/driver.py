"""One call of the facade: `python driver.py PROJECT FOLDER RUNS PACE_S` runs the sweep here, two runs at a time."""

from __future__ import annotations

import sys
from pathlib import Path

from model_training_framework import ModelTrainingFramework
from mtf_config import ExecutionMode

sys.path.append(str(Path(__file__).resolve().parents[1]))
from sweeping.project import base, grid


def main() -> int:
    """Make the call; 1 if a run has not finished."""
    root, folder, runs, pace_s = sys.argv[1:]
    result = ModelTrainingFramework(root).run_grid_search(
        [grid(int(runs))],
        base(pace_s=float(pace_s)),
        execution_mode=ExecutionMode.LOCAL,
        output_dir=folder,
        max_concurrent_jobs=2,
    )
    return 0 if result.is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
