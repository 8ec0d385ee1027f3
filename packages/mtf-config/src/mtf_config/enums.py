"""How experiments are executed and named."""

from __future__ import annotations

import enum

__all__ = ["ExecutionMode", "NamingStrategy"]


class ExecutionMode(enum.StrEnum):
    """Where the runs of a sweep are executed."""

    SLURM = "slurm"
    """Submitted to the cluster."""
    LOCAL = "local"
    """On this machine, until the last has ended."""
    DRY_RUN = "dry_run"
    """Nowhere: everything is written, nothing is started."""


class NamingStrategy(enum.StrEnum):
    """How the runs of a sweep are named."""

    HASH_BASED = "hash_based"
    """By a hash of what makes the run another run than others."""
    DESCRIPTIVE = "descriptive"
    """By its parameters and their values, abbreviated."""
    SEQUENTIAL = "sequential"
    """By its number in the sweep."""
