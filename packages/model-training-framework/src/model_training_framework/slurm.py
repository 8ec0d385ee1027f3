"""The launcher, results and git: the objects of `mtf_slurm`."""

from __future__ import annotations

from mtf_slurm import (
    BatchSubmissionResult,
    ClusterUnreachableError,
    ExecutionMode,
    GitManager,
    GitOperationError,
    GridSearchResult,
    JobStatus,
    JobSubmissionError,
    LaunchInterrupted,
    RunResult,
    SLURMError,
    SLURMLauncher,
    SweepLockedError,
    sweep_name,
)

__all__ = [
    "BatchSubmissionResult",
    "ClusterUnreachableError",
    "ExecutionMode",
    "GitManager",
    "GitOperationError",
    "GridSearchResult",
    "JobStatus",
    "JobSubmissionError",
    "LaunchInterrupted",
    "RunResult",
    "SLURMError",
    "SLURMLauncher",
    "SweepLockedError",
    "sweep_name",
]
