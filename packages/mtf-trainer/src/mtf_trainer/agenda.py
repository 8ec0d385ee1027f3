"""What comes next: every decision of the loop, made from the configuration and the state alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf_trainer.phases import TrainerPhase as Phase
from mtf_trainer.state import ResumeState, TrainMicroState, ValMicroState

if TYPE_CHECKING:
    from mtf_trainer.config import GenericTrainerConfig

__all__ = ["Agenda"]


@dataclass(slots=True, kw_only=True)
class Agenda:
    """Routes a run from phase to phase.

    Attributes:
        num_batches: batches of a training epoch; None when only the loader's end tells.
        validates: whether there is a validation loader.
        schedules: whether there is a scheduler.
        time_to_save: whether the clock asks for a checkpoint; None if it never does.
    """

    config: GenericTrainerConfig
    state: ResumeState
    num_batches: int | None
    validates: bool
    schedules: bool
    time_to_save: Callable[[], bool] | None

    def next_epoch(self) -> Phase:
        """The next epoch, or the end."""
        return Phase.TRAINING_END if self.is_over() else Phase.TRAIN_START_EPOCH

    def is_over(self) -> bool:
        """Whether no epoch is left, or the run was cut short."""
        return self.state.epoch >= self.config.epochs or self.is_cut_short()

    def is_cut_short(self) -> bool:
        """Whether the run ends before its epochs do: `max_steps` reached, or a stop asked for."""
        limit = self.config.max_steps
        return self.state.stop_requested or (limit is not None and self.state.global_step >= limit)

    def next_batch(self) -> Phase:
        """A batch is announced before its load, unless only the load can tell whether there is one."""
        return Phase.TRAIN_BATCH_LOAD if self.num_batches is None else Phase.TRAIN_BATCH_START

    def window(self, batch_idx: int) -> int:
        """How many micro-batches the accumulation window of a batch has: fewer at the end of an epoch."""
        size, total = self.config.gradient_accumulation_steps, self.num_batches
        return size if total is None or size == 1 else max(1, min(size, total - batch_idx // size * size))

    def completes_window(self) -> bool:
        """Whether the optimizer's step follows the current batch, whose backward pass is still to come."""
        train = self.state.train
        return train is not None and self._is_complete(train, train.micro_step + 1)

    def correction(self, train: TrainMicroState) -> float:
        """Factor for gradients that were divided by the wrong window size, as the loader's end came as a surprise."""
        return self.window(train.batch_idx - train.micro_step) / train.micro_step if train.exhausted else 1.0

    def after_backward(self, train: TrainMicroState) -> Phase:
        """The optimizer's step at the end of a window, else the next micro-batch."""
        return Phase.TRAIN_BATCH_OPTIM_STEP if self._is_complete(train, train.micro_step) else Phase.TRAIN_BATCH_END

    def _is_complete(self, train: TrainMicroState, count: int) -> bool:
        return count >= self.config.gradient_accumulation_steps or train.batch_idx + 1 == self.num_batches

    def after_optimizer(self, train: TrainMicroState) -> Phase:
        """The scheduler's step, if it counts optimizer steps."""
        if self.schedules and self.config.scheduler_interval == "step":
            return Phase.TRAIN_BATCH_SCHED_STEP
        return self.after_step(train)

    def after_step(self, train: TrainMicroState) -> Phase:
        """The end of the batch; there is none when the loader's end completed the window."""
        return self.after_data() if train.exhausted else Phase.TRAIN_BATCH_END

    def after_batch(self, train: TrainMicroState) -> Phase:
        """What a step makes due first: validation, then what follows one."""
        every = self.config.validate_every_n_steps
        if every is not None and self.validates and train.step_done and self.state.global_step % every == 0:
            self.state.val = ValMicroState(at_epoch_end=False)
            return Phase.VAL_START_EPOCH
        return self.after_validated_batch(train)

    def after_validated_batch(self, train: TrainMicroState) -> Phase:
        """The periodic checkpoint, if it is due, then what follows one."""
        every = self.config.checkpoint.save_every_n_steps
        if train.step_done and (
            (every is not None and self.state.global_step % every == 0)
            or (self.time_to_save is not None and self.time_to_save())
        ):
            return Phase.CHECKPOINTING
        return self.after_saved_batch(train)

    def after_saved_batch(self, train: TrainMicroState) -> Phase:
        """The next batch, or the end of the epoch."""
        return self.after_data() if train.exhausted else self.next_batch()

    def after_data(self) -> Phase:
        """The epoch's validation, if it is due and not just done; the last epoch always has one."""
        every = self.config.validate_every_n_epochs
        done = self.state.epoch + 1
        last = done >= self.config.epochs or self.is_cut_short()
        seen = self.state.validated_step == self.state.global_step
        if self.validates and not seen and every is not None and (done % every == 0 or last):
            self.state.val = ValMicroState(at_epoch_end=True)
            return Phase.VAL_START_EPOCH
        return self.after_validated_epoch()

    def after_validation(self, *, at_epoch_end: bool) -> Phase:
        """Back to where the validation came from."""
        if at_epoch_end or self.state.train is None:
            return self.after_validated_epoch()
        return self.after_validated_batch(self.state.train)

    def after_validated_epoch(self) -> Phase:
        """The scheduler's step, if it counts epochs."""
        per_epoch = self.schedules and self.config.scheduler_interval == "epoch"
        return Phase.EPOCH_SCHED_STEP if per_epoch else Phase.EPOCH_END

    def after_epoch(self) -> Phase:
        """The periodic checkpoint, if it is due; the end of training has one of its own."""
        every = self.config.checkpoint.save_every_n_epochs
        due = every is not None and self.state.epoch % every == 0 and not self.is_over()
        return Phase.CHECKPOINTING if due else self.next_epoch()

    def after_checkpoint(self) -> Phase:
        """Back to where the checkpoint was made."""
        return self.next_epoch() if self.state.train is None else self.after_saved_batch(self.state.train)
