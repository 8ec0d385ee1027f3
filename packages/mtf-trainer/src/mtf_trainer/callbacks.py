"""What users hook into the loop, and how its events are dispatched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mtf_trainer.errors import TrainerError
from mtf_trainer.metrics import to_numbers
from mtf_trainer.state import ResumeState
from mtf_utils.names import nearest

if TYPE_CHECKING:
    from mtf_trainer.trainer import GenericTrainer

__all__ = ["EVENTS", "Events", "TrainingCallback", "check_addition"]

logger = logging.getLogger(__name__)


class TrainingCallback:
    """Base class of callbacks: override what you need.

    An event is called once in the history of a run, however often the run is killed and continued; `setup` and
    `teardown` are called once per process. What a callback keeps between events belongs into `state_dict`, which is a
    part of every checkpoint.

    With several ranks every event is called on each of them, with the same metrics, except those of a single batch.
    """

    @property
    def is_replicated(self) -> bool:
        """Whether the state is the same on all ranks, so that one of them saves it for all; asked at every save."""
        return False

    def setup(self, trainer: GenericTrainer) -> None:
        """Called in every process before anything else, to open resources."""

    def teardown(self, trainer: GenericTrainer) -> None:
        """Called in every process when `fit` ends, however it ends, to close resources."""

    def on_training_start(self, trainer: GenericTrainer) -> None:
        """Called at the start of training."""

    def on_training_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
        """Called at the end of training with the last epoch's metrics."""

    def on_epoch_start(self, trainer: GenericTrainer, epoch: int) -> None:
        """Called before the first batch of an epoch; epochs count from 0."""

    def on_epoch_end(self, trainer: GenericTrainer, epoch: int, logs: dict[str, Any]) -> None:
        """Called after an epoch and its validation with the metrics of both."""

    def on_batch_start(self, trainer: GenericTrainer, batch_idx: int) -> None:
        """Called before a batch; batches count from 0 in every epoch."""

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        """Called after a batch with what `training_step` returned, as numbers."""

    def on_before_optimizer_step(self, trainer: GenericTrainer) -> None:
        """Called before an optimizer step with all gradients in place: unscaled, not clipped. Nothing can be saved."""

    def train_metrics(self, trainer: GenericTrainer) -> Mapping[str, float]:
        """What the callback adds to the training record that is about to be written, before `on_batch_end`."""
        return {}

    def on_validation_start(self, trainer: GenericTrainer) -> None:
        """Called before the first batch of a validation."""

    def on_validation_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
        """Called after a validation with its metrics."""

    def on_checkpoint(self, trainer: GenericTrainer) -> None:
        """Called before a periodic checkpoint; what it changes is a part of that checkpoint."""

    def on_preemption(self, trainer: GenericTrainer, signal_name: str) -> None:
        """Called when the run was told to go, before the emergency checkpoint. Every second counts here."""

    def on_exception(self, trainer: GenericTrainer, error: BaseException) -> None:
        """Called when training ends with an error, which is raised afterwards."""

    def state_dict(self) -> dict[str, Any]:
        """What the callback must remember: plain data and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""


EVENTS: Final = (
    "on_training_start",
    "on_training_end",
    "on_epoch_start",
    "on_epoch_end",
    "on_batch_start",
    "on_batch_end",
    "on_validation_start",
    "on_validation_end",
    "on_checkpoint",
)
"""The events of a run's history, each of which happens once in it, with a boundary between two callbacks."""

WITHIN_A_PHASE: Final = ("on_before_optimizer_step", "train_metrics")
"""What else happens once: in the middle of a phase, for all callbacks at once."""


def check_addition(callback: TrainingCallback, present: Sequence[TrainingCallback]) -> None:
    """Refuse what is no callback, or is there already.

    Warns of methods that look like an event and are none, as other trainers have them.

    Raises:
        TypeError: it is no callback.
        TrainerError: it was added already.
    """
    if not isinstance(callback, TrainingCallback):
        raise TypeError(f"expected an object of a class derived from TrainingCallback, found {callback!r:.80}")
    if any(each is callback for each in present):
        raise TrainerError(f"this {type(callback).__qualname__} was added already: every event would reach it twice")
    for name in dir(callback):
        if name.startswith("on_") and not hasattr(TrainingCallback, name):
            known = nearest(name, EVENTS)
            logger.warning(
                "%s.%s is never called: there is no such event%s",
                type(callback).__qualname__,
                name,
                f"; did you mean {known}?" if known else "",
            )


class Events:
    """Calls one callback at a time, so that a run can be stopped between two of them.

    Args:
        callbacks: in the order in which they are called.
        state: where the run stands.
        trainer: what the callbacks are given.
        before_update: called before a callback is, because it may change anything.
    """

    def __init__(
        self,
        callbacks: Sequence[TrainingCallback],
        state: ResumeState,
        trainer: GenericTrainer,
        before_update: Callable[[], None],
    ) -> None:
        self._before_update = before_update
        self._state = state
        self._trainer = trainer
        self._callbacks = tuple(callbacks)
        self._handlers: dict[str, list[Callable[..., Any]]] = {
            event: [getattr(callback, event) for callback in callbacks if _overrides(callback, event)]
            for event in (*EVENTS, *WITHIN_A_PHASE)
        }

        self._monitors = [(each, f"{_owner(each)}.train_metrics") for each in self._handlers["train_metrics"]]

    def has(self, event: str) -> bool:
        """Whether any callback waits for the event."""
        return bool(self._handlers[event])

    def call_all(self, event: str) -> None:
        """Call every callback of an event within a phase.

        Raises:
            TrainerError: as `fire`.
        """
        for handler in self._handlers[event]:
            _call(handler, event, self._trainer)

    def collect(self) -> dict[str, float]:
        """What the callbacks add to a training record.

        Raises:
            TrainerError: as `fire`.
        """
        added: dict[str, float] = {}
        for handler, step in self._monitors:
            added |= to_numbers(_call(handler, "train_metrics", self._trainer), step=step)
        return added

    def tell(self, event: str, *arguments: Any) -> None:
        """Call every callback of an event that is no part of the history; what one raises is logged."""
        for callback in self._callbacks:
            try:
                getattr(callback, event)(self._trainer, *arguments)
            except Exception:
                logger.exception("%s.%s failed", type(callback).__qualname__, event)

    def fire(self, event: str, *arguments: Any) -> bool:
        """Call the next callback of the event; True once all of them have been called.

        `event_index` moves on before the call: a checkpoint that the callback itself saves counts it as called.

        Raises:
            TrainerError: the callback raised; the cause is chained.
        """
        handlers, state = self._handlers[event], self._state
        index = state.event_index
        if index < len(handlers):
            self._before_update()
            state.event_index = index + 1
            _call(handlers[index], event, self._trainer, *arguments)
            if state.event_index < len(handlers):
                return False
        state.event_index = 0
        return True


def _call(handler: Callable[..., Any], event: str, *arguments: Any) -> Any:
    try:
        return handler(*arguments)
    except TrainerError:
        raise
    except Exception as error:
        raise TrainerError(f"{_owner(handler)}.{event} raised {type(error).__name__}: {error}") from error


def _owner(handler: Callable[..., Any]) -> str:
    return type(handler.__self__).__qualname__  # type: ignore[attr-defined]


def _overrides(callback: TrainingCallback, event: str) -> bool:
    own = getattr(callback, event)
    return getattr(own, "__func__", own) is not getattr(TrainingCallback, event)
