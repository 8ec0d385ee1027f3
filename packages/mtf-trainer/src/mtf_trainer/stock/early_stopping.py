"""Ends training when a metric no longer improves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

from mtf_trainer.callbacks import TrainingCallback
from mtf_trainer.errors import TrainerError

if TYPE_CHECKING:
    from mtf_trainer.trainer import GenericTrainer

__all__ = ["EarlyStopping"]

logger = logging.getLogger(__name__)


class EarlyStopping(TrainingCallback):
    """Asks for a stop when a metric has not improved for `patience` looks in a row.

    A metric whose name begins with `train_` is looked at after every epoch, any other after every validation. NaN is no
    improvement.

    Args:
        monitor: the metric.
        patience: how many looks without an improvement are endured.
        mode: whether the smallest or the largest value is the best.
        min_delta: a smaller change is no improvement.

    Attributes:
        best: the best value so far; None before the first.
        waited: looks since then.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 3,
        mode: Literal["min", "max"] = "min",
        min_delta: float = 0.0,
    ) -> None:
        if patience < 1 or min_delta < 0 or mode not in ("min", "max"):
            raise ValueError(
                f"patience={patience}, min_delta={min_delta}, mode={mode!r}: "
                "expected at least 1, at least 0, and 'min' or 'max'"
            )
        self.monitor = monitor
        self.patience = patience
        self.mode = mode
        self.min_delta = min_delta
        self.best: float | None = None
        self.waited = 0

    def on_training_start(self, trainer: GenericTrainer) -> None:
        """Begin anew.

        Raises:
            TrainerError: there will be nothing to look at.
        """
        if not self.monitor.startswith("train_") and not trainer.validates:
            raise TrainerError(
                f"EarlyStopping monitors {self.monitor!r}, but there are no validations: give fit() a val_loader, or "
                "monitor a metric of the training, such as 'train_loss'"
            )
        self.best, self.waited = None, 0

    def on_validation_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
        """Look at a metric of the validation."""
        if not self.monitor.startswith("train_"):
            self._look(trainer, logs)

    def on_epoch_end(self, trainer: GenericTrainer, epoch: int, logs: dict[str, Any]) -> None:
        """Look at a metric of the epoch."""
        if self.monitor.startswith("train_"):
            self._look(trainer, logs)

    def _look(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
        if self.monitor not in logs:
            known = ", ".join(sorted(logs)) or "nothing"
            raise TrainerError(f"EarlyStopping monitors {self.monitor!r}, but there is: {known}")
        value = float(logs[self.monitor])
        if self._improves(value):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            logger.info(
                "stopping early: %s is %g, and was best, %s, %d looks ago",
                self.monitor,
                value,
                "never" if self.best is None else f"{self.best:g}",
                self.waited,
            )
            trainer.request_stop()

    def _improves(self, value: float) -> bool:
        gain = value if self.mode == "max" else -value
        before = float("-inf") if self.best is None else self.best if self.mode == "max" else -self.best
        return gain - before > self.min_delta  # false for NaN

    def state_dict(self) -> dict[str, Any]:
        """The best value, and the looks since."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put both back."""
        self.best, self.waited = state["best"], state["waited"]
