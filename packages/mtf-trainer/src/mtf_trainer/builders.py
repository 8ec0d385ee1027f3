"""Optimizer, scheduler and loaders out of a run's configuration; model and dataset are the user's own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final, Literal, TypeVar

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.run_config import Experiment, RunConfig
from mtf_utils.envref import hiding_env_values
from mtf_utils.sections import PerformanceConfig
from mtf_utils.settings import Problem, Settings, SettingsError, about, describe, nearest

__all__ = ["DEFAULTS", "build_optimizer", "build_scheduler", "make_loader", "optimizer_steps"]

Run = Experiment | Mapping[str, Any]
"""A `RunConfig`, an `ExperimentConfig`, or the plain data of one."""

CLOSURE_ONLY: Final = "lbfgs"

Section = TypeVar("Section", bound=Settings)


@dataclass(kw_only=True)
class _Training(Settings):
    """The keys of `training` that are read here."""

    batch_size: int = field(default=32, metadata=about("Samples per batch and rank.", minimum=1))
    learning_rate: float = field(default=0.001, metadata=about("Peak learning rate of the optimizer.", minimum=0))


@dataclass(kw_only=True)
class _Schedule(Settings):
    """The section `scheduler` as the schedules of this module need it."""

    name: Literal["constant", "linear", "cosine"] = field(metadata=about("How the learning rate falls."))
    warmup_steps: int = field(default=0, metadata=about("Length of the rise.", minimum=0, unit="optimizer steps"))
    min_lr: float = field(default=0.0, metadata=about("What the learning rate falls to.", minimum=0))


def _defaults(section: type[Settings]) -> dict[str, Any]:
    return {each.name: each.default for each in fields(section) if each.default is not MISSING}


DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {"training": _defaults(_Training), "scheduler": _defaults(_Schedule)}
"""What the builders take a key of a section to be that the configuration does not have."""


def build_optimizer(params: nn.Module | Iterable[Any], run: Run) -> torch.optim.Optimizer:
    """Make the optimizer that the run declares.

    `optimizer.name` is the name of a class of `torch.optim` in any case, `training.learning_rate` its learning rate,
    and every other key of `optimizer` one of its arguments; one that is null keeps its default.

    Args:
        params: a module, its parameters, or parameter groups as `torch.optim` takes them; a group's own values win.
        run: the configuration.

    Raises:
        SettingsError: the section names no optimizer, an argument that it does not take, or a value that it refuses.
    """
    run = _run(run)
    with hiding_env_values(run.to_dict()):
        return _built_optimizer(params, run)


def _built_optimizer(params: nn.Module | Iterable[Any], run: RunConfig) -> torch.optim.Optimizer:
    section = run.get("optimizer")
    if not isinstance(section, RunConfig):
        raise _refused(("optimizer",), f"expected a mapping, found {describe(section)}", section)
    name, kind = _optimizer_class(section.get("name"))
    arguments = _arguments(section, name, kind)
    parameters = params.parameters() if isinstance(params, nn.Module) else params
    try:
        return kind(parameters, lr=_training(run).learning_rate, **arguments)
    except (TypeError, ValueError) as error:
        message = f"{name} cannot be built with {_shown(section)}: {error}"
        raise _refused(("optimizer",), message) from error


def _optimizer_class(name: object) -> tuple[str, Callable[..., torch.optim.Optimizer]]:
    by_name = {
        item.__name__.lower(): item
        for item in vars(torch.optim).values()
        if isinstance(item, type) and issubclass(item, torch.optim.Optimizer) and item is not torch.optim.Optimizer
    }
    usable = sorted(by_name.keys() - {CLOSURE_ONLY})
    wanted = name.lower() if isinstance(name, str) else ""
    if wanted in usable:
        return by_name[wanted].__name__, by_name[wanted]
    if wanted == CLOSURE_ONLY:
        message = f"{name} evaluates the loss several times per step, which the training loop does not do"
        raise _refused(("optimizer", "name"), f"{message}; use one of {', '.join(usable)}", name)
    message = f"expected one of {', '.join(usable)}, found {describe(name)}"
    raise _refused(("optimizer", "name"), message, name, suggestion=nearest(wanted, usable) if wanted else None)


def _arguments(section: RunConfig, name: str, kind: Callable[..., object]) -> dict[str, Any]:
    accepted = [key for key in inspect.signature(kind).parameters if key not in ("params", "lr")]
    problems = []
    for key, value in section.items():
        message, guess = f"{name} has no such argument; it has {', '.join(accepted)}", nearest(key, accepted)
        if key in ("lr", "learning_rate"):
            message, guess = "the learning rate belongs to training.learning_rate", None
        if key != "name" and key not in accepted:
            problems.append(Problem(("optimizer", key), message, value, guess, about_key=True))
    if problems:
        raise SettingsError(problems, subject=SUBJECT)
    return {key: _tuples(value) for key, value in section.items() if key != "name" and value is not None}


def _tuples(value: Any) -> Any:
    """A list as the tuple that constructors expect: JSON has none."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _shown(section: RunConfig) -> str:
    values = {key: value for key, value in section.to_dict().items() if key != "name"}
    return ", ".join(f"{key}={value!r}" for key, value in values.items()) or "its defaults"


def optimizer_steps(num_batches: int, config: GenericTrainerConfig) -> int:
    """How many optimizer steps the whole training takes: the `total_steps` of `build_scheduler`.

    An epoch ends its last accumulation window early, so it has `ceil(num_batches / gradient_accumulation_steps)`.

    Args:
        num_batches: length of the training loader.
        config: the trainer's configuration, for epochs, accumulation and `max_steps`.

    Raises:
        ValueError: there is not one batch.
    """
    if num_batches < 1:
        raise ValueError(f"expected a training loader of at least one batch, found {num_batches}")
    steps = config.epochs * -(-num_batches // config.gradient_accumulation_steps)
    return steps if config.max_steps is None else min(steps, config.max_steps)


def build_scheduler(optimizer: torch.optim.Optimizer, run: Run, total_steps: int) -> LambdaLR | None:
    """Make the learning rate schedule that the run declares, to be advanced after every optimizer step.

    With T = `total_steps` and W = `warmup_steps`, a parameter group of learning rate `lr` has after s optimizer steps

        lr * (s + 1) / (W + 1)                              while s < W
        min_lr + (lr - min_lr) * decay((s - W) / (T - W))   while W <= s < T
        min_lr + (lr - min_lr) * decay(1)                   from then on

    where decay(p) is 1 for `constant`, 1 - p for `linear`, and (1 + cos(pi * p)) / 2 for `cosine`. The schedule's
    state is s alone: a run that goes on for more epochs than planned follows the longer schedule from where it is.

    Args:
        optimizer: the learning rate of each of its groups is the peak of that group.
        run: the configuration; `scheduler` has `name`, and may have `warmup_steps` and `min_lr`.
        total_steps: length of the whole training, see `optimizer_steps`.

    Returns:
        The schedule, or None when the run declares none.

    Raises:
        SettingsError: a key is unknown, or a value does not fit the others.
        ValueError: `total_steps` is not positive.
    """
    run = _run(run)
    section = run.get("scheduler")
    if section is None:
        return None
    schedule = _decoded(_Schedule, section, "scheduler", run)
    if total_steps < 1:
        raise ValueError(f"total_steps: expected at least one optimizer step, found {total_steps}")
    if schedule.warmup_steps > total_steps:
        message = f"{schedule.warmup_steps} is longer than the whole training of {total_steps} optimizer steps"
        raise _refused(("scheduler", "warmup_steps"), message, schedule.warmup_steps)
    floors = _floors(optimizer.param_groups, schedule.min_lr)
    return LambdaLR(optimizer, [_factor(schedule, total_steps, floor) for floor in floors])


def _floors(groups: list[dict[str, Any]], min_lr: float) -> Iterator[float]:
    """`min_lr` as a fraction of each group's learning rate."""
    for index, group in enumerate(groups):
        peak = float(group.get("initial_lr", group["lr"]))
        if min_lr > peak:
            whose = f"of parameter group {index}" if len(groups) > 1 else "(training.learning_rate)"
            raise _refused(("scheduler", "min_lr"), f"{min_lr} is above the learning rate {peak} {whose}", min_lr)
        yield min_lr / peak if peak else 0.0


def _factor(schedule: _Schedule, total: int, floor: float) -> Callable[[int], float]:
    # A plain function: of any other callable, LambdaLR puts the attributes into its state, and a run that goes on for
    # more epochs would get the old total back from its checkpoint.
    decay, warmup = DECAYS[schedule.name], schedule.warmup_steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = (step - warmup) / (total - warmup) if step < total else 1.0
        return floor + (1.0 - floor) * decay(progress)

    return factor


DECAYS: Final[Mapping[str, Callable[[float], float]]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: (1.0 + math.cos(math.pi * progress)) / 2.0,
}


def make_loader(dataset: Dataset[Any], run: Run, *, train: bool, **overrides: Any) -> DataLoader[Any]:
    """Make a loader of `training.batch_size` samples per rank, with workers as `performance` says.

    Training data with an index is shuffled, and the last, smaller batch is kept. The options of workers are left out
    when there are no workers, and memory is pinned only where there is an accelerator.

    Args:
        dataset: the samples.
        run: the configuration.
        train: whether the loader is for training rather than for validation.
        overrides: arguments of `DataLoader` that win, such as `collate_fn`, `sampler`, `drop_last` or `num_workers`.

    Raises:
        SettingsError: a value of the configuration is not acceptable.
    """
    run = _run(run)
    performance = _decoded(PerformanceConfig, run.get("performance", {}), "performance", run)
    options: dict[str, Any] = {
        "num_workers": performance.num_workers,
        "pin_memory": performance.pin_memory and torch.accelerator.is_available(),
    }
    if overrides.get("num_workers", performance.num_workers):
        options["prefetch_factor"] = performance.prefetch_factor
        options["persistent_workers"] = performance.persistent_workers
    if overrides.get("batch_sampler") is None:
        options["batch_size"] = _training(run).batch_size
        if overrides.get("sampler") is None and not isinstance(dataset, IterableDataset):
            options["shuffle"] = train
    return DataLoader(dataset, **(options | overrides))


SUBJECT: Final = "the run's configuration"


def _run(run: Run) -> RunConfig:
    if isinstance(run, RunConfig):
        return run
    return RunConfig(run.to_dict() if isinstance(run, Experiment) else run)


def _training(run: RunConfig) -> _Training:
    section = run.get("training", {})
    if isinstance(section, Mapping):
        section = {key: section[key] for key in ("batch_size", "learning_rate") if key in section}
    return _decoded(_Training, section, "training", run)


def _decoded(cls: type[Section], data: Any, name: str, run: RunConfig) -> Section:
    with hiding_env_values(run.to_dict()):
        section, problems = cls.decode(data, (name,))
        if section is None:
            raise SettingsError(problems, subject=SUBJECT)
    return section


def _refused(
    path: tuple[str, ...], message: str, value: object = None, *, suggestion: str | None = None
) -> SettingsError:
    return SettingsError([Problem(path, message, value, suggestion)], subject=SUBJECT)
