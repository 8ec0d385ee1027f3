"""`ExperimentConfig`: everything that defines one experiment."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Self

from mtf_config.base import Section
from mtf_config.errors import ConfigurationError
from mtf_config.formats import RUN_NAME
from mtf_config.plain import plain_problems
from mtf_config.references import resolve_references
from mtf_config.sections import DataConfig, ModelConfig, OptimizerConfig, SchedulerConfig, TrainingConfig
from mtf_config.slurm import SLURMConfig
from mtf_utils.problems import KeyPath, describe
from mtf_utils.sections import CheckpointConfig, DistributedConfig, LoggingConfig, PerformanceConfig, PreemptionConfig
from mtf_utils.settings import Problem, Settings, about

__all__ = ["SCHEMA_MAJOR", "ExperimentConfig", "schema_defaults"]

SCHEMA_MAJOR: Final = 1
"""The major version of the schema that this package reads."""


def _known_version(version: str) -> str | None:
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        return f'the version of the schema, such as "{SCHEMA_MAJOR}.0"'
    if int(version.split(".")[0][:9]) != SCHEMA_MAJOR:
        return f'a version "{SCHEMA_MAJOR}.x" of the schema, the only one that this release reads'
    return None


@dataclass
class ExperimentConfig(Section):
    """Everything that defines one experiment.

    Sections may be given as objects or as plain mappings. `model`, `data`, `optimizer` and `scheduler` keep further
    keys of the user's own; all others are closed.

    Raises:
        ValidationError: something is not acceptable; every problem is listed.
    """

    experiment_name: str = field(
        metadata=about("Name of the experiment; serves as file, branch and job name.", check=RUN_NAME)
    )
    model: ModelConfig = field(metadata=about("The model."))
    training: TrainingConfig = field(metadata=about("How long and how fast to train."))
    data: DataConfig = field(metadata=about("The data."))
    optimizer: OptimizerConfig = field(metadata=about("The optimizer."))
    scheduler: SchedulerConfig | None = field(
        default=None, metadata=about("How the learning rate changes; null: it is constant.")
    )
    slurm: SLURMConfig | None = field(
        default=None, metadata=about("What a job asks of the cluster; null: the cluster's defaults.")
    )
    logging: LoggingConfig = field(default_factory=LoggingConfig, metadata=about("What a run says, and where."))
    checkpoint: CheckpointConfig = field(
        default_factory=CheckpointConfig, metadata=about("When to save, what to keep, how to resume.")
    )
    preemption: PreemptionConfig = field(
        default_factory=PreemptionConfig, metadata=about("How to answer to being told to go.")
    )
    performance: PerformanceConfig = field(
        default_factory=PerformanceConfig, metadata=about("How data is loaded, and how the model is run.")
    )
    description: str | None = field(default=None, metadata=about("What it is about, for people."))
    tags: list[str] = field(default_factory=list, metadata=about("Words to find it by."))
    created_by: str | None = field(default=None, metadata=about("Who made it."))
    created_at: str | None = field(default=None, metadata=about("When it was made."))
    version: str = field(default=f"{SCHEMA_MAJOR}.0", metadata=about("Version of this schema.", check=_known_version))
    seed: int | None = field(
        default=None,
        metadata=about("Seeds every random stream; null draws a seed and records it.", minimum=0, below=2**63),
    )
    deterministic: bool = field(
        default=True, metadata=about("Use deterministic algorithms only, which exact resuming needs.")
    )
    benchmark: bool = field(
        default=False, metadata=about("Let cuDNN try algorithms and take the fastest; excludes `deterministic`.")
    )
    custom_params: dict[str, Any] = field(
        default_factory=dict, metadata=about("Anything else, as the training script reads it.")
    )
    distributed: DistributedConfig = field(
        default_factory=DistributedConfig, metadata=about("How several processes train together.")
    )

    @classmethod
    def data_problems(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """Determinism excludes benchmarking; custom parameters hold what a file can hold."""
        if data.get("deterministic", True) is True and data.get("benchmark") is True:
            message = "true together with deterministic: benchmarking may choose another algorithm at every start, "
            message += "so results could not be repeated; set one of the two to false"
            yield Problem(("benchmark",), message, True)
        section = data.get("performance")
        asked = section.get("compile") if isinstance(section, Mapping) else getattr(section, "compile", None)
        if data.get("deterministic", True) is True and PerformanceConfig.is_tuned_by_timing(asked):
            message = f"{asked!r} together with deterministic: kernels are chosen by timing them at every start, "
            message += "so results could not be repeated; take another mode, or set deterministic to false"
            yield Problem(("performance", "compile"), message, asked)
        yield from plain_problems(data.get("custom_params"), ("custom_params",))

    @classmethod
    def decode(cls, data: Any, path: KeyPath) -> tuple[Self | None, list[Problem]]:
        """Build the experiment, or say everything that is wrong; `${section.key}` is resolved first.

        All keys of `training` have defaults, so the section may be absent; a version may be written as a number.
        """
        if not isinstance(data, Mapping):
            return None, [Problem(path, f"expected a mapping, found {describe(data)}", data)]
        try:
            resolved, dangling = resolve_references(data, schema_defaults)
        except ConfigurationError as error:
            return None, list(error.problems)
        resolved.setdefault("training", {})
        version = resolved.get("version")
        if isinstance(version, int | float) and not isinstance(version, bool):
            resolved["version"] = str(float(version))
        instance, problems = super().decode(resolved, path)
        broken = [problem.path for problem in dangling]
        problems = [*dangling, *(problem for problem in problems if problem.path not in broken)]
        return (None if problems else instance), problems


@cache
def schema_defaults() -> Mapping[str, Any]:
    """The value of every key that an experiment may leave out, as plain data."""
    return _defaults_of(ExperimentConfig) | {
        "training": TrainingConfig().to_dict(),
        "slurm": SLURMConfig().to_dict(),
        "data": _defaults_of(DataConfig),
        "optimizer": _defaults_of(OptimizerConfig),
        "scheduler": _defaults_of(SchedulerConfig),
    }


def _defaults_of(cls: type[Settings]) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        if item.default is not dataclasses.MISSING:
            defaults[item.name] = item.default
        elif item.default_factory is not dataclasses.MISSING and item.name != "extra":
            value = item.default_factory()
            defaults[item.name] = value.to_dict() if isinstance(value, Settings) else value
    return defaults
