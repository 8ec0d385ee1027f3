"""Parts of taking up a saved state: what an optimizer, callbacks and a prolonged run need beyond being loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mtf_trainer.callbacks import TrainingCallback
from mtf_trainer.errors import CheckpointError
from mtf_trainer.phases import TrainerPhase as Phase
from mtf_trainer.state import ResumeState
from mtf_utils.stateful import Stateful

if TYPE_CHECKING:
    from mtf_trainer.config import GenericTrainerConfig

__all__ = ["keeps_state", "load_optimizer", "load_stateful", "prolong"]


def load_stateful(
    training: Mapping[str, Any],
    callbacks: Sequence[TrainingCallback],
    registered: Mapping[str, Stateful],
    *,
    source: str,
) -> None:
    """Load the states of callbacks and registered objects from a checkpoint's section `training`.

    Raises:
        CheckpointError: it was made with other ones.
    """
    saved, current = training["callbacks"], [callback for callback in callbacks if keeps_state(callback)]
    then, now = ([item["type"] for item in saved], [type(callback).__qualname__ for callback in current])
    if then != now:
        raise CheckpointError(
            f"{source} holds the states of the callbacks {_listed(then)}; those with a state in this run are "
            f"{_listed(now)}: add the same ones in the same order, or use a new checkpoint_dir for a new run"
        )
    for callback, item in zip(current, saved, strict=True):
        callback.load_state_dict(item["state"])
    if training["registered"].keys() != registered.keys():
        then, now = sorted(training["registered"]), sorted(registered)
        raise CheckpointError(
            f"{source} holds the registered states {_listed(then)}; this run registered {_listed(now)}: register the "
            "same names, or use a new checkpoint_dir for a new run"
        )
    for name, stateful in registered.items():
        stateful.load_state_dict(training["registered"][name])


def keeps_state(callback: TrainingCallback) -> bool:
    """Whether a callback has a state to save: it has a `state_dict` of its own."""
    return type(callback).state_dict is not TrainingCallback.state_dict


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def prolong(state: ResumeState, config: GenericTrainerConfig) -> bool:
    """Let a finished run go on when its limits were raised; whether it does."""
    ended = state.phase in (Phase.TRAINING_END, Phase.TRAINING_COMPLETE)
    reached = config.max_steps is not None and state.global_step >= config.max_steps
    goes_on = ended and state.epoch < config.epochs and not reached and not state.stop_requested
    if goes_on:
        state.phase, state.event_index = Phase.TRAIN_START_EPOCH, 0
    return goes_on


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any], *, source: str) -> None:
    """Load an optimizer's state and keep the type of every tensor, which `load_state_dict` may change.

    Raises:
        CheckpointError: the optimizer has other parameters or groups.
    """
    try:
        optimizer.load_state_dict(saved)
    except ValueError as error:
        raise CheckpointError(
            f"{source} was made with other parameters in the optimizer ({error}): build it as before, or use a new "
            "checkpoint_dir for a new run"
        ) from error
    # Schedulers warn when they step before the optimizer did; a run may well continue between the two.
    optimizer._opt_called = True  # type: ignore[attr-defined]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = [index for group in saved["param_groups"] for index in group["params"]]
    for parameter, index in zip(parameters, indices, strict=True):
        for key, value in saved["state"].get(index, {}).items():
            loaded = optimizer.state[parameter].get(key)
            if isinstance(value, torch.Tensor) and isinstance(loaded, torch.Tensor) and loaded.dtype != value.dtype:
                optimizer.state[parameter][key] = value.to(loaded.device)
