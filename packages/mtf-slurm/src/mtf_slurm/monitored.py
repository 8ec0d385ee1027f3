"""The metric that a sweep's own checkpoints are ranked by."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

from mtf_config import ExperimentConfig
from mtf_slurm.configurations import read_experiment
from mtf_slurm.errors import SLURMError
from mtf_utils.rundir import SweepDirectory

if TYPE_CHECKING:
    from mtf_slurm.results import GridSearchResult

__all__ = ["monitored"]


def monitored(result: GridSearchResult) -> tuple[str | None, Literal["min", "max"]]:
    """The metric, and whether its smallest or largest value is the best; None if nothing readable tells.

    Raises:
        SLURMError: the sweep has no runs.
    """
    if not result.runs:
        raise SLURMError(f"{result.output_dir}: the sweep has no runs")
    directory = SweepDirectory(result.output_dir)
    for run in result:
        # one bad file is no reason to say nothing of the others
        with contextlib.suppress(OSError, ValueError):
            checkpoint = read_experiment(directory.run(run.name)).checkpoint
            return checkpoint.monitor, checkpoint.mode
    sweep = directory.sweep()
    with contextlib.suppress(ValueError):  # a base may be no whole experiment without its grids
        checkpoint = ExperimentConfig.from_dict(sweep.base if sweep else {}).checkpoint
        return checkpoint.monitor, checkpoint.mode
    return None, "min"
