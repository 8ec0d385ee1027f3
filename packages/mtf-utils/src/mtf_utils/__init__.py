"""What the packages of the Model Training Framework share; needs the standard library only.

Beside the names below, the modules `mtf_utils.atomic` (files whole or not at all), `mtf_utils.rundir` (the run
directory) and `mtf_utils.cli` (the `mtf` command) are public.
"""

from __future__ import annotations

import typing

from mtf_utils.envref import EnvReference, EnvReferenceError, find_env_references, resolve_env
from mtf_utils.exits import EXIT_DO_NOT_REQUEUE, EXIT_PREEMPTED
from mtf_utils.paths import (
    ProjectRootError,
    ensure_directory_exists,
    get_project_root,
    project_structure_problems,
    validate_project_structure,
)
from mtf_utils.result import Error, Result, Success, UnwrapError
from mtf_utils.sections import CheckpointConfig, DistributedConfig, LoggingConfig, PerformanceConfig, PreemptionConfig
from mtf_utils.settings import Problem, Settings, SettingsError, about
from mtf_utils.stateful import Stateful

if typing.TYPE_CHECKING:
    from mtf_utils.logs import get_logger, setup_logging

__all__ = [
    "EXIT_DO_NOT_REQUEUE",
    "EXIT_PREEMPTED",
    "CheckpointConfig",
    "DistributedConfig",
    "EnvReference",
    "EnvReferenceError",
    "Error",
    "LoggingConfig",
    "PerformanceConfig",
    "PreemptionConfig",
    "Problem",
    "ProjectRootError",
    "Result",
    "Settings",
    "SettingsError",
    "Stateful",
    "Success",
    "UnwrapError",
    "about",
    "ensure_directory_exists",
    "find_env_references",
    "get_logger",
    "get_project_root",
    "project_structure_problems",
    "resolve_env",
    "setup_logging",
    "validate_project_structure",
]


def __getattr__(name: str) -> object:
    """Load logging when it is asked for: a tenth of what importing costs, and reading a configuration logs nothing."""
    if name not in ("get_logger", "setup_logging"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mtf_utils import logs

    globals().update(get_logger=logs.get_logger, setup_logging=logs.setup_logging)
    return globals()[name]
