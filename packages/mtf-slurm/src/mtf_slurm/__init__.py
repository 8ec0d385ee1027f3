"""A sweep launcher for Slurm and the local machine that never says something about a job that it does not know.

What launches or reads a sweep is loaded when it is asked for: who looks at one needs no git.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from mtf_config import ExecutionMode
from mtf_slurm.errors import (
    ClusterUnreachableError,
    GitOperationError,
    JobSubmissionError,
    LaunchInterrupted,
    SLURMError,
    SweepLockedError,
)
from mtf_slurm.status import JobStatus

if TYPE_CHECKING:
    from mtf_slurm.git import GitManager
    from mtf_slurm.launcher import BatchSubmissionResult, SLURMLauncher
    from mtf_slurm.results import GridSearchResult, RunResult
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

_HOMES: Final = {
    "BatchSubmissionResult": "launcher",
    "GitManager": "git",
    "GridSearchResult": "results",
    "RunResult": "results",
    "SLURMLauncher": "launcher",
    "sweep_name": "sweep",
}
"""In which module those names are that are loaded when they are asked for."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
