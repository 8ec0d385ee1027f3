"""What `fit` is given, made usable or refused before anything is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mtf_trainer.errors import TrainerError

__all__ = ["check_sharded", "device", "optimizer", "scheduler"]


def device(name: str | None, *, local_rank: int = 0) -> torch.device:
    """The device of that name; None is the accelerator if there is one, else the CPU.

    Args:
        name: as the configuration has it.
        local_rank: number of this process among those on the machine, each of which takes the next accelerator.

    Raises:
        TrainerError: this machine has no such device.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    chosen = (accelerator or torch.device("cpu")) if name is None else torch.device(name)
    if local_rank and chosen.index is None and chosen.type not in ("cpu", "meta"):
        chosen = torch.device(chosen.type, local_rank % max(1, torch.accelerator.device_count()))
    if chosen.type not in ("cpu", "meta") and (accelerator is None or accelerator.type != chosen.type):
        found = "no accelerator" if accelerator is None else f"only {accelerator.type}"
        raise TrainerError(f"device={name!r}: torch finds {found} here; leave device unset to take what there is")
    return chosen


def optimizer(given: Any, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer, or the one that a callable makes from the model's parameters.

    Raises:
        TypeError: it is neither.
        TrainerError: it cannot train this model.
    """
    made = given
    if not isinstance(given, torch.optim.Optimizer):
        if not callable(given):
            raise TypeError(
                f"optimizer: expected a torch optimizer or a callable that makes one from the model's parameters, "
                f"found {given!r}"
            )
        made = given(model.parameters())
    if not isinstance(made, torch.optim.Optimizer):
        raise TypeError(f"optimizer: the callable made a {type(made).__name__}, expected a torch optimizer")
    if isinstance(made, torch.optim.LBFGS):
        raise TrainerError("LBFGS evaluates the loss several times per step, which the training loop does not do")
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in own for group in made.param_groups for parameter in group["params"]):
        raise TrainerError("the optimizer has no parameter of this model: make it from model.parameters()")
    return made


def check_sharded(optimizer: Any, scheduler: Any | None, precision: str) -> None:
    """Refuse what a model that is divided among the ranks cannot be trained with.

    Raises:
        TrainerError: naming what takes its place.
    """
    if isinstance(optimizer, torch.optim.Optimizer):
        raise TrainerError(
            "the optimizer was made before the model was divided among the ranks, and would update nothing: give fit() "
            "a callable, such as lambda parameters: AdamW(parameters, lr=0.001)"
        )
    if scheduler is not None and not callable(scheduler):
        raise TrainerError("the scheduler belongs to another optimizer: give fit() a callable that makes it from one")
    if precision == "fp16":
        raise TrainerError("precision='fp16' scales gradients, which strategy='fsdp' does not support: use bf16")


def scheduler(given: Any | None, optimizer: torch.optim.Optimizer, *, interval: str) -> Any | None:
    """The scheduler, or the one that a callable makes from the optimizer.

    Raises:
        TrainerError: it cannot be stepped as configured, or cannot be saved.
    """
    if given is None:
        return None
    makes_one = callable(given) and (isinstance(given, type) or not hasattr(given, "step"))
    made = given(optimizer) if makes_one else given
    for method in ("step", "state_dict", "load_state_dict"):
        if not hasattr(made, method):
            raise TrainerError(f"scheduler: a {type(made).__name__} has no {method}(), so it cannot be used or saved")
    if getattr(made, "optimizer", optimizer) is not optimizer:
        raise TrainerError("the scheduler was made for another optimizer than the one given to fit()")
    if isinstance(made, torch.optim.lr_scheduler.ReduceLROnPlateau) and interval != "metric":
        raise TrainerError(
            f"ReduceLROnPlateau needs the monitored metric, but scheduler_interval is {interval!r}: set it to 'metric'"
        )
    return made
