"""A sweep launcher for Slurm and the local machine that never says something about a job that it does not know."""

from __future__ import annotations

from mtf_config import ExecutionMode
from mtf_slurm.errors import (
    ClusterUnreachableError,
    GitOperationError,
    JobSubmissionError,
    LaunchInterrupted,
    SLURMError,
    SweepLockedError,
)
from mtf_slurm.git import GitManager
from mtf_slurm.launcher import BatchSubmissionResult, SLURMLauncher
from mtf_slurm.results import GridSearchResult, RunResult
from mtf_slurm.status import JobStatus
from mtf_slurm.sweep import sweep_name

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
