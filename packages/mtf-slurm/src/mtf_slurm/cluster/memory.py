"""How much memory a run asks for after it did not suffice. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Final

from mtf_config import ExperimentConfig, SLURMConfig
from mtf_slurm.policy import Budgets

__all__ = ["grown", "megabytes", "with_memory"]

_AMOUNT: Final = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
_FACTORS: Final = {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


def megabytes(amount: str) -> float:
    """An amount as sbatch reads it: without a unit it is megabytes. Source: sbatch(1), --mem."""
    found = _AMOUNT.fullmatch(amount)
    if found is None:
        raise ValueError(f"{amount!r} is no amount of memory")
    return int(found[1]) * _FACTORS[found[2].upper()]


def grown(amount: str, budgets: Budgets) -> str:
    """What is asked for after that amount did not suffice; never less than it."""
    before = megabytes(amount)
    wanted = before * budgets.memory_growth
    if budgets.max_memory is not None:
        wanted = min(wanted, megabytes(budgets.max_memory))
    return amount if wanted <= before else f"{math.ceil(wanted)}M"


def with_memory(config: ExperimentConfig, amount: str) -> ExperimentConfig:
    """The experiment, asking for that much."""
    return replace(config, slurm=replace(config.slurm or SLURMConfig(), mem=amount))
