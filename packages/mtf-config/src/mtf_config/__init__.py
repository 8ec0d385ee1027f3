"""Experiment schemas, composition and lazy parameter grids with errors that point at file, line and column."""

from __future__ import annotations

from mtf_config.enums import ExecutionMode, NamingStrategy
from mtf_config.errors import ConfigurationError, LocatedProblem, Position, ValidationError
from mtf_config.grid import ParameterGrid
from mtf_config.identity import run_identity
from mtf_config.manager import ConfigurationManager
from mtf_config.sampling import Range
from mtf_config.schema import ExperimentConfig
from mtf_config.search import ParameterGridSearch, SweepPoint
from mtf_config.sections import DataConfig, ModelConfig, OptimizerConfig, SchedulerConfig, TrainingConfig
from mtf_config.slurm import RetryConfig, SLURMConfig
from mtf_config.sweep import Sweep, SweepSpec, load_sweep
from mtf_utils.sections import CheckpointConfig, DistributedConfig, LoggingConfig, PerformanceConfig, PreemptionConfig

__all__ = [
    "CheckpointConfig",
    "ConfigurationError",
    "ConfigurationManager",
    "DataConfig",
    "DistributedConfig",
    "ExecutionMode",
    "ExperimentConfig",
    "LocatedProblem",
    "LoggingConfig",
    "ModelConfig",
    "NamingStrategy",
    "OptimizerConfig",
    "ParameterGrid",
    "ParameterGridSearch",
    "PerformanceConfig",
    "Position",
    "PreemptionConfig",
    "Range",
    "RetryConfig",
    "SLURMConfig",
    "SchedulerConfig",
    "Sweep",
    "SweepPoint",
    "SweepSpec",
    "TrainingConfig",
    "ValidationError",
    "load_sweep",
    "run_identity",
]
