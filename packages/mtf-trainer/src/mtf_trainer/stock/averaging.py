"""An exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from mtf_trainer.callbacks import TrainingCallback
from mtf_trainer.errors import TrainerError
from mtf_trainer.preparation import plain_state

if TYPE_CHECKING:
    from mtf_trainer.trainer import GenericTrainer

__all__ = ["EMA"]


class EMA(TrainingCallback):
    """Averages the weights over the optimizer steps, and validates with the average.

    Raw and averaged weights are both in every checkpoint: the raw ones are the model's, the others this callback's. A
    checkpoint of mid-validation, when the model has the average, holds the raw ones here too. Averaged are the
    floating-point entries of the model's state: parameters, and buffers such as running statistics. Averages of 16-bit
    entries have 32 bits.

    After training, `with ema.averaged():` lends the average to the model, and `ema.weights` has it by name.

    Args:
        decay: weight of the past at every update.
        every_n_steps: optimizer steps between two updates.
        warm_up: let the decay of update n be at most (1 + n) / (10 + n), so that the first weights are soon forgotten.
        validate: whether validations see the average, which only one of several can have; callbacks added before this
            one see the raw weights at `on_validation_start`, and the average at `on_validation_end`.

    Attributes:
        updates: how often the average was updated.
    """

    def __init__(
        self, decay: float = 0.999, *, every_n_steps: int = 1, warm_up: bool = True, validate: bool = True
    ) -> None:
        if not 0.0 < decay < 1.0 or every_n_steps < 1:
            raise ValueError(f"decay={decay}, every_n_steps={every_n_steps}: expected 0 < decay < 1, and at least 1")
        self.decay = decay
        self.every_n_steps = every_n_steps
        self.warm_up = warm_up
        self.validate = validate
        self.updates = 0
        self._seen_step = 0
        self._names: list[str] = []
        self._live: list[torch.Tensor] = []
        self._averages: list[torch.Tensor] = []
        self._raw: list[torch.Tensor] | None = None

    @property
    def is_replicated(self) -> bool:
        """See `TrainingCallback.is_replicated`; the raw weights of a validation contain each rank's own buffers."""
        return self._raw is None

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The averaged weights by name; the tensors are the live ones."""
        return dict(zip(self._names, self._averages, strict=True))

    def setup(self, trainer: GenericTrainer) -> None:
        """Find what is to be averaged.

        Raises:
            TrainerError: another EMA lends its average to the same validations.
        """
        if self.validate and any(
            isinstance(each, EMA) and each.validate for each in trainer.callbacks if each is not self
        ):
            raise TrainerError("two EMA callbacks would both lend the model their average: give one validate=False")
        entries = {name: value for name, value in plain_state(trainer.model).items() if isinstance(value, torch.Tensor)}
        self._names = [name for name, value in entries.items() if value.is_floating_point()]
        self._live = [entries[name] for name in self._names]
        self._averages = [value.to(_wide(value.dtype), copy=True) for value in self._live]
        self.updates, self._seen_step, self._raw = 0, 0, None

    @torch.no_grad()
    def on_training_start(self, trainer: GenericTrainer) -> None:
        """Begin with the weights as they are."""
        torch._foreach_copy_(_local(self._averages), _local(self._live))

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        """Update the average after an optimizer step."""
        self._update(trainer)

    def on_epoch_end(self, trainer: GenericTrainer, epoch: int, logs: dict[str, Any]) -> None:
        """Do not miss a step that came with the end of the data rather than of a batch."""
        self._update(trainer)

    def on_validation_start(self, trainer: GenericTrainer) -> None:
        """Lend the average to the model."""
        if self.validate:  # or else the model may have that of another EMA by now
            self._update(trainer)
            self._lend()

    def on_validation_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
        """Give the model its own weights back."""
        self._give_back()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model have the averaged weights within this block."""
        if self._raw is not None or not self._live:
            raise TrainerError("the averaged weights are in use already, or there are none before fit()")
        self._lend()
        try:
            yield
        finally:
            self._give_back()

    @torch.no_grad()
    def _update(self, trainer: GenericTrainer) -> None:
        step = trainer.global_step
        if step - self._seen_step < self.every_n_steps:
            return
        self._seen_step = step
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warm_up else self.decay
        live = [value.to(average.dtype) for value, average in zip(self._live, self._averages, strict=True)]
        torch._foreach_lerp_(_local(self._averages), _local(live), 1.0 - decay)

    @torch.no_grad()
    def _lend(self) -> None:
        """Copy values, not tensors: the optimizer and compiled code hold on to the tensors."""
        self._raw = [value.clone() for value in self._live]
        torch._foreach_copy_(_local(self._live), _local(self._averages))

    @torch.no_grad()
    def _give_back(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            torch._foreach_copy_(_local(self._live), _local(raw))

    def _pairs(self) -> Iterator[tuple[str, torch.Tensor]]:
        return zip(self._names, self._live, strict=True)

    def state_dict(self) -> dict[str, Any]:
        """The average, and the raw weights while the model has the average."""
        return {
            "updates": self.updates,
            "seen_step": self._seen_step,
            "weights": self.weights,
            "raw": None if self._raw is None else dict(zip(self._names, self._raw, strict=True)),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put everything back; the model has its part already."""
        if state["weights"].keys() != set(self._names):
            differing = sorted(state["weights"].keys() ^ set(self._names))
            raise TrainerError(f"the checkpoint has averages of other weights: {', '.join(differing[:5])} differ")
        self.updates, self._seen_step = state["updates"], state["seen_step"]
        for name, average in zip(self._names, self._averages, strict=True):
            average.copy_(state["weights"][name])
        raw = state["raw"]
        self._raw = None if raw is None else [raw[name].to(live.device, copy=True) for name, live in self._pairs()]


def _local(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """What this rank has of them, if the model is divided among ranks."""
    return [each.to_local() if hasattr(each, "to_local") else each for each in tensors]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.itemsize < 4 else dtype
