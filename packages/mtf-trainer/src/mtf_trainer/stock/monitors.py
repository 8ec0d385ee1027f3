"""What a training record can say beside the metrics of the steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mtf_trainer.callbacks import TrainingCallback

if TYPE_CHECKING:
    from mtf_trainer.trainer import GenericTrainer

__all__ = ["GradientNorm", "LearningRateMonitor", "Throughput"]


class LearningRateMonitor(TrainingCallback):
    """Adds what the scheduler set for every parameter group: `lr_<group>`, the group's `name` or its number.

    The first group's learning rate is in every record as `lr` without this.

    Args:
        momentum: also `momentum_<group>`: the momentum, or the first of Adam's betas.
        weight_decay: also `weight_decay_<group>`.
    """

    def __init__(self, *, momentum: bool = False, weight_decay: bool = False) -> None:
        self.momentum = momentum
        self.weight_decay = weight_decay

    def train_metrics(self, trainer: GenericTrainer) -> Mapping[str, float]:
        """The values of all groups."""
        values: dict[str, float] = {}
        for number, group in enumerate(trainer.optimizer.param_groups):
            name = group.get("name", number)
            values[f"lr_{name}"] = float(group["lr"])
            if self.momentum and ("momentum" in group or "betas" in group):
                values[f"momentum_{name}"] = float(group["betas"][0] if "betas" in group else group["momentum"])
            if self.weight_decay and "weight_decay" in group:
                values[f"weight_decay_{name}"] = float(group["weight_decay"])
        return values


class GradientNorm(TrainingCallback):
    """Adds the norm of all gradients before clipping, of the step that the record is about: `grad_norm`.

    It is computed for steps that are recorded, and for no other.

    Args:
        norm_type: the order of the norm; `inf` for the largest element.
    """

    def __init__(self, *, norm_type: float = 2.0) -> None:
        self.norm_type = norm_type
        self._norm: torch.Tensor | None = None

    def on_before_optimizer_step(self, trainer: GenericTrainer) -> None:
        """Compute the norm, without waiting for an accelerator."""
        if (trainer.global_step + 1) % trainer.config.logging.log_every_n_steps:
            return
        gradients = [
            parameter.grad
            for group in trainer.optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        self._norm = nn.utils.get_total_norm(gradients, self.norm_type)

    def train_metrics(self, trainer: GenericTrainer) -> Mapping[str, float]:
        """The norm; nothing when all batches of the step were left out."""
        norm, self._norm = self._norm, None
        return {} if norm is None else {"grad_norm": float(norm)}

    def state_dict(self) -> dict[str, Any]:
        """The norm of a step that is not yet recorded."""
        return {"norm": self._norm}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self._norm = state["norm"]


class Throughput(TrainingCallback):
    """Adds how fast training went since the record before: `samples_per_s` and `steps_per_s`.

    Only time in training counts: neither validations nor the time between two processes.

    Args:
        clock: in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._elapsed = 0.0
        self._since: float | None = None
        self._samples = 0.0
        self._steps = 0

    def setup(self, trainer: GenericTrainer) -> None:
        """No clock is running at first."""
        self._elapsed, self._since, self._samples, self._steps = 0.0, None, 0.0, 0

    def on_batch_start(self, trainer: GenericTrainer, batch_idx: int) -> None:
        """Let the clock run."""
        if self._since is None:
            self._since = self._clock()

    def on_validation_start(self, trainer: GenericTrainer) -> None:
        """Stop the clock."""
        self._stop()

    def train_metrics(self, trainer: GenericTrainer) -> Mapping[str, float]:
        """The rates since the last call."""
        running = self._since is not None
        self._stop()
        if running:
            self._since = self._clock()
        state, elapsed = trainer.state, self._elapsed
        samples, steps = state.samples - self._samples, state.global_step - self._steps
        self._elapsed, self._samples, self._steps = 0.0, state.samples, state.global_step
        if elapsed <= 0.0:  # the clock could not see any
            return {"samples_per_s": float("nan"), "steps_per_s": float("nan")}
        return {"samples_per_s": samples / elapsed, "steps_per_s": steps / elapsed}

    def _stop(self) -> None:
        if self._since is not None:
            self._elapsed += self._clock() - self._since
            self._since = None

    def state_dict(self) -> dict[str, Any]:
        """The time since the last record, and where that was."""
        running = 0.0 if self._since is None else self._clock() - self._since
        return {"elapsed": self._elapsed + running, "samples": self._samples, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back; the clock runs from the next batch on."""
        self._elapsed, self._samples, self._steps = state["elapsed"], state["samples"], state["steps"]
