"""`GenericTrainerConfig`: what the trainer is told, and how it comes out of an experiment's configuration."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

import torch

from mtf_trainer.compiling import check_compilation
from mtf_trainer.identity import training_identity
from mtf_trainer.run_config import Experiment, read_config
from mtf_utils.envref import hiding_env_values, resolve_env
from mtf_utils.sections import CheckpointConfig, DistributedConfig, LoggingConfig, PerformanceConfig, PreemptionConfig
from mtf_utils.settings import Problem, Settings, SettingsError, about, describe, nearest

__all__ = ["GenericTrainerConfig"]

TRAINING_KEYS: Final[tuple[str, ...]] = (
    "epochs",
    "max_steps",
    "gradient_accumulation_steps",
    "max_grad_norm",
    "max_grad_value",
    "precision",
    "float32_matmul_precision",
    "validate_every_n_epochs",
    "validate_every_n_steps",
    "non_finite_loss",
)
"""Keys of `training` that the trainer reads."""

BUILDER_KEYS: Final = ("batch_size", "learning_rate")
"""Keys of `training` that `make_loader` and `build_optimizer` read."""

TOP_LEVEL_KEYS: Final[tuple[str, ...]] = (
    "seed",
    "deterministic",
    "benchmark",
    "checkpoint",
    "preemption",
    "performance",
    "distributed",
    "logging",
)
"""Keys of an experiment that the trainer has under the same name."""

OTHER_KEYS: Final = (
    "experiment_name",
    "model",
    "training",
    "data",
    "optimizer",
    "scheduler",
    "slurm",
    "description",
    "tags",
    "created_by",
    "created_at",
    "version",
    "custom_params",
)
"""Keys of an experiment that the trainer only carries, or that are others' to read."""


def _device(name: str) -> str | None:
    try:
        torch.device(name)
    except RuntimeError:
        return "a device such as cpu, cuda or cuda:1"
    return None


@dataclass(kw_only=True)
class GenericTrainerConfig(Settings):
    """How to train. Every field has a default."""

    epochs: int = field(default=100, metadata=about("How often the training data is gone through.", minimum=1))
    max_steps: int | None = field(
        default=None,
        metadata=about(
            "Training ends after so many, if before `epochs`; null: no limit.", minimum=1, unit="optimizer steps"
        ),
    )
    gradient_accumulation_steps: int = field(
        default=1, metadata=about("Micro-batches whose gradients make one optimizer step.", minimum=1)
    )
    max_grad_norm: float | None = field(
        default=None, metadata=about("Gradients are scaled down to this norm over all; null: not.", above=0)
    )
    max_grad_value: float | None = field(
        default=None, metadata=about("Every gradient element is clipped to this magnitude; null: not.", above=0)
    )
    precision: Literal["fp32", "bf16", "fp16"] = field(
        default="fp32", metadata=about("fp32, or the type of automatic mixed precision.")
    )
    float32_matmul_precision: Literal["highest", "high", "medium"] | None = field(
        default=None,
        metadata=about(
            "How exactly fp32 matrices are multiplied where the hardware has faster ways: high allows TF32, medium "
            "bf16; null: as torch is set."
        ),
    )
    validate_every_n_epochs: int | None = field(
        default=1, metadata=about("Epochs between validations; null: none by epoch.", minimum=1)
    )
    validate_every_n_steps: int | None = field(
        default=None, metadata=about("Optimizer steps between validations; null: none by step.", minimum=1)
    )
    scheduler_interval: Literal["step", "epoch", "metric"] = field(
        default="step",
        metadata=about(
            "When the scheduler given to `fit` advances: after every optimizer step, after every epoch, or after "
            "every validation with the value of `checkpoint.monitor`."
        ),
    )
    non_finite_loss: Literal["raise", "skip"] = field(
        default="raise", metadata=about("What a NaN or infinite loss does: end training, or leave out its batch.")
    )
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
    device: str | None = field(
        default=None,
        metadata=about("Where to train; null: the accelerator if there is one, else the CPU.", check=_device),
    )
    checkpoint: CheckpointConfig = field(
        default_factory=CheckpointConfig, metadata=about("When to save, what to keep, how to resume.")
    )
    preemption: PreemptionConfig = field(
        default_factory=PreemptionConfig, metadata=about("How to answer to being told to go.")
    )
    performance: PerformanceConfig = field(
        default_factory=PerformanceConfig, metadata=about("How data is loaded, and how the model is run.")
    )
    distributed: DistributedConfig = field(
        default_factory=DistributedConfig, metadata=about("How several processes train together.")
    )
    logging: LoggingConfig = field(default_factory=LoggingConfig, metadata=about("What to say, and where."))
    experiment_name: str | None = field(default=None, metadata=about("The run's name in logs; null: none."))
    tags: list[str] = field(default_factory=list, metadata=about("The run's tags in logs."))
    run: dict[str, Any] = field(
        default_factory=dict,
        metadata=about("The whole configuration for the loggers, references to the environment as written."),
    )
    identity: str | None = field(
        default=None,
        metadata=about("Which training this is: a checkpoint of another one is not continued; null: unknown."),
    )

    def cross_checks(self) -> Iterable[Problem]:
        """Determinism excludes what is chosen by timing; a metric needs a validation."""
        if self.deterministic and self.benchmark:
            message = "true together with deterministic: benchmarking may choose another algorithm at every start, "
            message += "so results could not be repeated; set one of the two to false"
            yield Problem(("benchmark",), message, True)
        if self.deterministic and PerformanceConfig.is_tuned_by_timing(self.performance.compile):
            message = f"{self.performance.compile!r} together with deterministic: kernels are chosen by timing them at "
            message += "every start, so results could not be repeated; take another mode, or set deterministic to false"
            yield Problem(("performance", "compile"), message, self.performance.compile)
        yield from check_compilation(self.performance)
        never_validates = self.validate_every_n_epochs is None and self.validate_every_n_steps is None
        if self.scheduler_interval == "metric" and never_validates:
            message = "'metric' needs validations: set validate_every_n_epochs or validate_every_n_steps"
            yield Problem(("scheduler_interval",), message, self.scheduler_interval)

    @classmethod
    def from_experiment(cls, experiment: Experiment | Mapping[str, Any] | str | Path) -> Self:
        """Take from an experiment's configuration what concerns the trainer.

        References `${env:NAME}` are resolved, except in what goes to the loggers: `run`, name and tags.

        Args:
            experiment: an `ExperimentConfig`, the plain data of one, or the path of a run's `config.json`.

        Raises:
            RunConfigError: the file cannot be read or is not JSON.
            SettingsError: a key is unknown, or a value is not acceptable; every problem is listed with its key path.
        """
        written, subject = _plain_data(experiment)
        with hiding_env_values(written):
            values, problems = _select(written)
            instance, wrong = cls.decode(values, ())
            problems += [_as_written(problem) for problem in wrong]
            if problems or instance is None:
                raise cls.error(problems, subject=subject)
        return instance


def _plain_data(experiment: Experiment | Mapping[str, Any] | str | Path) -> tuple[dict[str, Any], str]:
    if isinstance(experiment, str | Path):
        return read_config(experiment), str(experiment)
    if isinstance(experiment, Experiment):
        return experiment.to_dict(), "the experiment"
    if isinstance(experiment, Mapping):
        return copy.deepcopy(dict(experiment)), "the experiment"
    raise SettingsError(
        [Problem((), f"expected an experiment, a mapping or a path, found {describe(experiment)}")],
        subject="from_experiment",
    )


def _select(written: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The trainer's fields out of an experiment's data, and the keys that nobody knows."""
    problems = list(_unknown_keys(written, (*TOP_LEVEL_KEYS, *OTHER_KEYS), ()))
    read: dict[str, Any] = resolve_env({key: written[key] for key in (*TOP_LEVEL_KEYS, "training") if key in written})
    training = read.pop("training", {})
    if isinstance(training, Mapping):
        problems += _unknown_keys(training, (*TRAINING_KEYS, *BUILDER_KEYS), ("training",))
        read |= {key: training[key] for key in TRAINING_KEYS if key in training}
    else:
        problems.append(Problem(("training",), f"expected a mapping, found {describe(training)}", training))
    read |= {key: written[key] for key in ("experiment_name", "tags") if key in written}
    return read | {"run": written, "identity": training_identity(written, _defaults())}, problems


def _defaults() -> dict[str, Any]:
    """What the trainer assumes when an experiment does not say, in the layout of an experiment."""
    fields = GenericTrainerConfig().to_dict()
    return fields | {"training": {key: fields[key] for key in TRAINING_KEYS}}


def _as_written(problem: Problem) -> Problem:
    """The problem with the path that the key has in an experiment."""
    if problem.path and problem.path[0] in TRAINING_KEYS:
        return dataclasses.replace(problem, path=("training", *problem.path))
    return problem


def _unknown_keys(data: Mapping[str, Any], known: tuple[str, ...], path: tuple[str, ...]) -> Iterator[Problem]:
    for key, value in data.items():
        if key not in known:
            guess = nearest(str(key), known)
            message = f"unknown key {key!r}" + ("" if guess else f"; known are: {', '.join(known)}")
            yield Problem((*path, str(key)), message, value, suggestion=guess, about_key=True)
