"""The training loop: one phase at a time, with a boundary before each.

`ResumeState.phase` names what comes next. Whatever happens between two boundaries either is finished when the next
one is reached, or leaves a batch in hand, and then nothing can be saved. So at every boundary without a batch in
hand the state, together with the model and the optimizer, is all there is to know.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch

from mtf_trainer.agenda import Agenda
from mtf_trainer.callbacks import Events
from mtf_trainer.data import DataWaitInterrupted
from mtf_trainer.distributed.meeting import Meeting
from mtf_trainer.distributed.team import Team
from mtf_trainer.errors import TrainerError
from mtf_trainer.metric_objects import MetricObjects
from mtf_trainer.metrics import Means, count_samples, named
from mtf_trainer.monitor import compare_with_best
from mtf_trainer.phases import BETWEEN_EPOCHS, CONSUMED
from mtf_trainer.phases import TrainerPhase as Phase
from mtf_trainer.reader import Reader
from mtf_trainer.state import ResumeState, TrainMicroState, ValMicroState
from mtf_trainer.steps import Engine, Place, at, is_finite, modes_of, restore_modes

if TYPE_CHECKING:
    from mtf_trainer.config import GenericTrainerConfig

logger = logging.getLogger(__name__)

__all__ = ["Loop", "Recorder", "Step"]

Step = Callable[[Any, int], Mapping[str, Any]]

EPOCH: Final = 0
RECORD: Final = 1
"""The periods over which training metrics are averaged: the epoch, and the steps since the last record."""


class Recorder(Protocol):
    """Takes the metrics of an event: `train`, `validation`, `epoch`, or `log` for those of a user."""

    def __call__(self, event: str, metrics: Mapping[str, float]) -> None:
        """Record them; the epoch and the step are those of the state."""


@dataclass(slots=True, kw_only=True)
class Loop:
    """The phases of a run. See the module's text.

    Attributes:
        metrics: the objects that compute metrics of their own.
        record: takes the metrics.
        save: makes the periodic checkpoint; called when the state already says what comes after it.
        before_update: called before anything changes parameters or the optimizer's state: a checkpoint may still be
            copying them.
        before_validation: called before the first batch of a validation.
        team: the ranks that train together; all go through the same phases.
    """

    config: GenericTrainerConfig
    state: ResumeState
    engine: Engine
    events: Events
    train: Reader
    val: Reader | None
    training_step: Step
    validation_step: Step
    metrics: MetricObjects
    record: Recorder
    save: Callable[[], None]
    before_update: Callable[[], None]
    before_validation: Callable[[], None] = lambda: None
    team: Team = field(default_factory=Team)
    clock: Callable[[], float] = time.monotonic
    agenda: Agenda = field(init=False)
    meeting: Meeting = field(init=False)
    _train: TrainMicroState = field(init=False)
    _train_means: Means = field(init=False)
    _val_means: Means = field(init=False)
    _batch: Any = None
    _loss: torch.Tensor | None = None
    _in_hand: bool = False
    _alone: bool = field(init=False)

    def __post_init__(self) -> None:
        train, val = self.state.train, self.state.val
        if train is None and self.state.phase not in BETWEEN_EPOCHS:
            raise TrainerError(f"a state in phase {self.state.phase} needs a position inside an epoch")
        self._train = train or TrainMicroState()
        self._train_means = Means(train.epoch_sums if train else {}, train.record_sums if train else {})
        self._val_means = Means(val.sums if val else {})
        every = self.config.checkpoint.save_every_n_minutes
        self.meeting = Meeting(team=self.team, state=self.state, save_every_minutes=every, clock=self.clock)
        self._alone = self.team.size == 1
        self.agenda = Agenda(
            config=self.config,
            state=self.state,
            num_batches=self.train.source.batches_in(self.state.epoch),
            validates=self.val is not None,
            schedules=self.engine.scheduler is not None,
            time_to_save=self.meeting.time_to_save if every is not None else None,
        )

    def boundaries(self) -> Iterator[Phase]:
        """Run to the end, yielding the phase that comes next at every boundary."""
        phases, state, complete = self._phases(), self.state, Phase.TRAINING_COMPLETE
        while (phase := state.phase) is not complete:
            yield phase
            phases[phase]()
        yield complete

    def _phases(self) -> dict[Phase, Callable[[], None]]:
        return {
            Phase.INIT: self._init,
            Phase.TRAINING_START: self._training_start,
            Phase.TRAIN_START_EPOCH: self._start_epoch,
            Phase.TRAIN_BATCH_START: self._batch_start,
            Phase.TRAIN_BATCH_LOAD: self._load,
            Phase.TRAIN_BATCH_FORWARD: self._forward,
            Phase.TRAIN_BATCH_BACKWARD: self._backward,
            Phase.TRAIN_BATCH_OPTIM_STEP: self._optimizer_step,
            Phase.TRAIN_BATCH_SCHED_STEP: self._scheduler_step,
            Phase.TRAIN_BATCH_END: self._batch_end,
            Phase.VAL_START_EPOCH: self._start_validation,
            Phase.VAL_BATCH_LOAD: self._val_load,
            Phase.VAL_BATCH_FORWARD: self._val_forward,
            Phase.VAL_BATCH_END: self._val_batch_end,
            Phase.VAL_END_EPOCH: self._end_validation,
            Phase.EPOCH_SCHED_STEP: self._epoch_scheduler_step,
            Phase.EPOCH_END: self._end_epoch,
            Phase.CHECKPOINTING: self._checkpoint,
            Phase.TRAINING_END: self._training_end,
        }

    @property
    def can_save(self) -> bool:
        """Whether the state is all there is to know: no batch is in hand."""
        return not self._in_hand

    @property
    def upcoming(self) -> tuple[int, int] | None:
        """Epoch and number of the training batch that is read next; None where the epoch has no more."""
        train, total = self.state.train, self.agenda.num_batches
        if train is None or train.exhausted:
            return None
        consumed = self.state.phase in CONSUMED
        batch = train.batch_idx + 1 if consumed else train.batch_idx
        return None if total is not None and batch >= total else (self.state.epoch, batch)

    def settle(self) -> None:
        """Bring the running sums into the state, so that it can be saved."""
        train, val = self.state.train, self.state.val
        if train is not None:
            train.epoch_sums = self._train_means.copy_sums(EPOCH)
            train.record_sums = self._train_means.copy_sums(RECORD)
            train.last = {name: float(value) for name, value in train.last.items()}
        if val is not None:
            val.sums = self._val_means.copy_sums()

    def _init(self) -> None:
        self.engine.model.train()
        self.state.phase = Phase.TRAINING_START

    def _training_start(self) -> None:
        if self.events.fire("on_training_start"):
            self.state.phase = self.agenda.next_epoch()

    def _start_epoch(self) -> None:
        state = self.state
        if self.events.fire("on_epoch_start", state.epoch):
            state.train = self._train = TrainMicroState()
            state.val_metrics = {}
            self._train_means.clear(EPOCH)
            self._train_means.clear(RECORD)
            self.metrics.reset("train")
            self.agenda.num_batches = self.train.source.batches_in(state.epoch)
            state.phase = self.agenda.next_batch()

    def _batch_start(self) -> None:
        if self.events.fire("on_batch_start", self._train.batch_idx):
            self.state.phase = Phase.TRAIN_BATCH_FORWARD if self._in_hand else Phase.TRAIN_BATCH_LOAD

    def _load(self) -> None:
        state, train = self.state, self._train
        try:
            self._batch = self.train.read(state.epoch, train.batch_idx)
        except StopIteration:
            if train.batch_idx == 0:
                raise TrainerError(f"the training loader gave no batch in epoch {state.epoch + 1}") from None
            train.exhausted = True
            state.phase = Phase.TRAIN_BATCH_OPTIM_STEP if train.micro_step else self.agenda.after_data()
        except DataWaitInterrupted:
            pass  # told to stop while waiting: nothing was consumed, and the next boundary can save
        else:
            self._in_hand = True
            train.step_done = False
            announced = self.agenda.num_batches is not None
            state.phase = Phase.TRAIN_BATCH_FORWARD if announced else Phase.TRAIN_BATCH_START

    def _forward(self) -> None:
        state, train = self.state, self._train
        place = (state.epoch, train.batch_idx, state.global_step)
        outputs, scalars = self.engine.forward(self.training_step, "training_step", self._batch, train.batch_idx)
        self._loss = self.engine.check_loss(outputs, place)
        weight = samples = count_samples(outputs, self._batch)
        if not self._alone:
            weight, samples = self._weigh(weight)
        state.samples += samples
        loss = scalars["loss"]
        if (self._alone and type(loss) is float and isfinite(loss)) or self._is_acceptable(loss, place):
            self._train_means.add(scalars, weight)
        else:
            self._loss = None
            train.skipped += 1
            if self.team.is_first:
                logger.warning("left out: the loss at %s is not finite", at(place))
        train.last = scalars  # type: ignore[assignment]  # tensors of an accelerator become numbers in settle()
        state.phase = Phase.TRAIN_BATCH_BACKWARD

    def _weigh(self, weight: float) -> tuple[float, float]:
        """Let the loss count as much as this rank's part of the batch; returns its weight, and that of all parts."""
        factor = self.train.factor
        if factor != 1.0 and self._loss is not None:
            self._loss = self._loss * factor
        return (weight, weight * self.team.size / factor) if factor else (0.0, 0.0)

    def _is_acceptable(self, loss: float | torch.Tensor, place: Place) -> bool:
        """Apply the policy for a loss that is not finite."""
        if self.config.non_finite_loss == "skip":
            # On an accelerator this waits for the number; what one rank leaves out, all do.
            return is_finite(loss) if self.team.size == 1 else all(self.team.gather(is_finite(loss)))
        bad = self.engine.watch.see(loss, place)
        if bad is not None:
            raise TrainerError(f"the loss at {at(bad)} is not finite; non_finite_loss='skip' leaves such batches out")
        return True

    def _backward(self) -> None:
        train = self._train
        if self._loss is not None:
            self.engine.backward(self._loss, self.agenda.window(train.batch_idx))
        self._in_hand = False  # batch and loss stay until the next ones replace them, as in a loop written by hand
        train.micro_step += 1
        self.state.phase = self.agenda.after_backward(train)

    def _optimizer_step(self) -> None:
        state, train = self.state, self._train
        self.before_update()
        self.engine.optimizer_step(
            correction=self.agenda.correction(train),
            inspect=self._show_gradients if self.events.has("on_before_optimizer_step") else None,
        )
        state.global_step += 1
        state.metric = None
        train.micro_step = 0
        train.step_done = True
        state.phase = self.agenda.after_optimizer(train)

    def _show_gradients(self) -> None:
        self._in_hand = True  # in mid-step there is nothing that could be saved
        self.events.call_all("on_before_optimizer_step")
        self._in_hand = False

    def _scheduler_step(self) -> None:
        self.engine.scheduler_step()
        self.state.phase = self.agenda.after_step(self._train)

    def _batch_end(self) -> None:
        state, train = self.state, self._train
        recorded = train.step_done and state.global_step % self.config.logging.log_every_n_steps == 0
        if recorded and state.event_index == 0:
            means = named(self.meeting.merged(self._train_means, RECORD), "train_")
            self.record("train", means | {"lr": self._learning_rate()} | self.events.collect())
            self._train_means.clear(RECORD)
        events = self.events
        if not events.has("on_batch_end") or events.fire("on_batch_end", train.batch_idx, dict(train.last)):
            train.batch_idx += 1
            cut_short = train.micro_step == 0 and self.agenda.is_cut_short()
            train.exhausted = cut_short or train.batch_idx == self.agenda.num_batches
            state.phase = self.agenda.after_batch(train)

    def _start_validation(self) -> None:
        self.before_update()  # weights may be swapped for the validation, by its first step if by no callback
        if self.events.fire("on_validation_start"):
            self._val.modes = modes_of(self.engine.model)
            self.engine.model.eval()
            self._val_means.clear()
            self.metrics.reset("val")
            self.before_validation()
            self.state.validations += 1
            self.state.phase = Phase.VAL_BATCH_LOAD

    def _val_load(self) -> None:
        if self.val is None:
            raise TrainerError("the checkpoint was made in mid-validation: fit() needs the same val_loader")
        try:
            self._batch = self.val.read(self.state.validations - 1, self._val.batch_idx)
        except StopIteration:
            self.state.phase = Phase.VAL_END_EPOCH
        except DataWaitInterrupted:
            pass  # as in training
        else:
            self._in_hand = True
            self.state.phase = Phase.VAL_BATCH_FORWARD

    def _val_forward(self) -> None:
        with torch.no_grad():
            outputs, scalars = self.engine.forward(
                self.validation_step, "validation_step", self._batch, self._val.batch_idx
            )
        weight = count_samples(outputs, self._batch)
        if self.team.size > 1 and self.val is not None and not self.val.factor:
            weight = 0.0
        self._val_means.add(named(scalars, "val_"), weight)
        self._batch = None
        self._in_hand = False
        self.state.phase = Phase.VAL_BATCH_END

    def _val_batch_end(self) -> None:
        self._val.batch_idx += 1
        self.state.phase = Phase.VAL_BATCH_LOAD

    def _end_validation(self) -> None:
        state, val = self.state, self._val
        if state.event_index == 0:
            restore_modes(self.engine.model, val.modes)
            state.val_metrics = self.meeting.merged(self._val_means) | self.metrics.compute("val")
            state.validated_step = state.global_step
            compare_with_best(state, self.config.checkpoint)
            self.record("validation", state.val_metrics)
            if self.config.scheduler_interval == "metric":
                self.engine.scheduler_step(state.metric)
        if self.events.fire("on_validation_end", dict(state.val_metrics)):
            state.val = None
            self.meeting.hear_of_stop()
            if state.stop_requested and not val.at_epoch_end:  # no further batch is needed to notice
                self._train.exhausted = True
            state.phase = self.agenda.after_validation(at_epoch_end=val.at_epoch_end)

    def _epoch_scheduler_step(self) -> None:
        self.engine.scheduler_step()
        self.state.phase = Phase.EPOCH_END

    def _end_epoch(self) -> None:
        state = self.state
        if state.event_index == 0:
            skipped = self._train.skipped
            if skipped and not self._train_means.means(EPOCH):
                raise TrainerError(
                    f"nothing was trained in epoch {state.epoch + 1}: none of its {skipped} losses is finite"
                )
            means = named(self.meeting.merged(self._train_means, EPOCH), "train_")
            state.epoch_metrics = means | self.metrics.compute("train") | state.val_metrics
            if skipped:
                state.epoch_metrics["train_skipped"] = float(skipped)
            self.record("epoch", state.epoch_metrics | {"lr": self._learning_rate()})
        if self.events.fire("on_epoch_end", state.epoch, dict(state.epoch_metrics)):
            self.meeting.hear_of_stop()
            state.epoch += 1
            state.train = self._batch = self._loss = None
            state.phase = self.agenda.after_epoch()

    def _checkpoint(self) -> None:
        if self.events.fire("on_checkpoint"):
            self.state.phase = self.agenda.after_checkpoint()
            self.save()
            self.meeting.has_saved()

    def _training_end(self) -> None:
        if self.events.fire("on_training_end", dict(self.state.epoch_metrics)):
            self.state.phase = Phase.TRAINING_COMPLETE

    @property
    def _val(self) -> ValMicroState:
        if self.state.val is None:
            raise TrainerError(f"a state in phase {self.state.phase} needs a position inside a validation")
        return self.state.val

    def _learning_rate(self) -> float:
        return float(self.engine.optimizer.param_groups[0]["lr"])
