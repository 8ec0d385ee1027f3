"""Where a training run can stand: the phases of the loop and what may follow what."""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["BETWEEN_EPOCHS", "CONSUMED", "FOLLOWERS", "TrainerPhase"]


class TrainerPhase(enum.StrEnum):
    """What comes next. A boundary, at which a run can be told to stop, lies before every phase."""

    INIT = "init"
    """Nothing has happened yet."""
    TRAINING_START = "training_start"
    """The callbacks' `on_training_start`."""
    TRAIN_START_EPOCH = "train_start_epoch"
    """The callbacks' `on_epoch_start`."""
    TRAIN_BATCH_START = "train_batch_start"
    """The callbacks' `on_batch_start`."""
    TRAIN_BATCH_LOAD = "train_batch_load"
    """Fetching the batch."""
    TRAIN_BATCH_FORWARD = "train_batch_forward"
    """`training_step`."""
    TRAIN_BATCH_BACKWARD = "train_batch_backward"
    """Backward pass of the micro-batch; gradients accumulate."""
    TRAIN_BATCH_OPTIM_STEP = "train_batch_optim_step"
    """Clipping and the optimizer's step, at the end of an accumulation window."""
    TRAIN_BATCH_SCHED_STEP = "train_batch_sched_step"
    """Step of a scheduler that counts optimizer steps."""
    TRAIN_BATCH_END = "train_batch_end"
    """The training record, then the callbacks' `on_batch_end`."""
    VAL_START_EPOCH = "val_start_epoch"
    """The callbacks' `on_validation_start`."""
    VAL_BATCH_LOAD = "val_batch_load"
    """Fetching a validation batch."""
    VAL_BATCH_FORWARD = "val_batch_forward"
    """`validation_step`."""
    VAL_BATCH_END = "val_batch_end"
    """Going on to the next validation batch."""
    VAL_END_EPOCH = "val_end_epoch"
    """The validation record, then the callbacks' `on_validation_end`."""
    EPOCH_SCHED_STEP = "epoch_sched_step"
    """Step of a scheduler that counts epochs."""
    EPOCH_END = "epoch_end"
    """The epoch's record, then the callbacks' `on_epoch_end`."""
    CHECKPOINTING = "checkpointing"
    """The callbacks' `on_checkpoint`, then a periodic save."""
    TRAINING_END = "training_end"
    """The callbacks' `on_training_end`."""
    TRAINING_COMPLETE = "training_complete"
    """Nothing is left to do."""


_P = TrainerPhase

BETWEEN_EPOCHS: Final = frozenset(
    {_P.INIT, _P.TRAINING_START, _P.TRAIN_START_EPOCH, _P.CHECKPOINTING, _P.TRAINING_END, _P.TRAINING_COMPLETE}
)
"""Phases that need no position inside an epoch."""

CONSUMED: Final = frozenset({_P.TRAIN_BATCH_OPTIM_STEP, _P.TRAIN_BATCH_SCHED_STEP, _P.TRAIN_BATCH_END})
"""Phases in which the current batch has been read already."""

FOLLOWERS: Final[dict[TrainerPhase, frozenset[TrainerPhase]]] = {
    _P.INIT: frozenset({_P.TRAINING_START}),
    _P.TRAINING_START: frozenset({_P.TRAIN_START_EPOCH, _P.TRAINING_END}),
    _P.TRAIN_START_EPOCH: frozenset({_P.TRAIN_BATCH_START, _P.TRAIN_BATCH_LOAD}),
    # Of a loader without a length, the load says whether there is a batch to start.
    _P.TRAIN_BATCH_START: frozenset({_P.TRAIN_BATCH_LOAD, _P.TRAIN_BATCH_FORWARD}),
    _P.TRAIN_BATCH_LOAD: frozenset(
        {
            _P.TRAIN_BATCH_START,
            _P.TRAIN_BATCH_FORWARD,
            _P.TRAIN_BATCH_OPTIM_STEP,
            _P.VAL_START_EPOCH,
            _P.EPOCH_SCHED_STEP,
            _P.EPOCH_END,
        }
    ),
    _P.TRAIN_BATCH_FORWARD: frozenset({_P.TRAIN_BATCH_BACKWARD}),
    _P.TRAIN_BATCH_BACKWARD: frozenset({_P.TRAIN_BATCH_OPTIM_STEP, _P.TRAIN_BATCH_END}),
    _P.TRAIN_BATCH_OPTIM_STEP: frozenset(
        {
            _P.TRAIN_BATCH_SCHED_STEP,
            _P.TRAIN_BATCH_END,
            _P.VAL_START_EPOCH,
            _P.EPOCH_SCHED_STEP,
            _P.EPOCH_END,
        }
    ),
    _P.TRAIN_BATCH_SCHED_STEP: frozenset({_P.TRAIN_BATCH_END, _P.VAL_START_EPOCH, _P.EPOCH_SCHED_STEP, _P.EPOCH_END}),
    _P.TRAIN_BATCH_END: frozenset(
        {
            _P.TRAIN_BATCH_START,
            _P.TRAIN_BATCH_LOAD,
            _P.VAL_START_EPOCH,
            _P.CHECKPOINTING,
            _P.EPOCH_SCHED_STEP,
            _P.EPOCH_END,
        }
    ),
    _P.VAL_START_EPOCH: frozenset({_P.VAL_BATCH_LOAD}),
    _P.VAL_BATCH_LOAD: frozenset({_P.VAL_BATCH_FORWARD, _P.VAL_END_EPOCH}),
    _P.VAL_BATCH_FORWARD: frozenset({_P.VAL_BATCH_END}),
    _P.VAL_BATCH_END: frozenset({_P.VAL_BATCH_LOAD}),
    _P.VAL_END_EPOCH: frozenset(
        {
            _P.TRAIN_BATCH_START,
            _P.TRAIN_BATCH_LOAD,
            _P.VAL_START_EPOCH,
            _P.CHECKPOINTING,
            _P.EPOCH_SCHED_STEP,
            _P.EPOCH_END,
        }
    ),
    _P.EPOCH_SCHED_STEP: frozenset({_P.EPOCH_END}),
    _P.EPOCH_END: frozenset({_P.CHECKPOINTING, _P.TRAIN_START_EPOCH, _P.TRAINING_END}),
    _P.CHECKPOINTING: frozenset(
        {
            _P.TRAIN_BATCH_START,
            _P.TRAIN_BATCH_LOAD,
            _P.VAL_START_EPOCH,
            _P.EPOCH_SCHED_STEP,
            _P.EPOCH_END,
            _P.TRAIN_START_EPOCH,
            _P.TRAINING_END,
        }
    ),
    _P.TRAINING_END: frozenset({_P.TRAINING_COMPLETE}),
    _P.TRAINING_COMPLETE: frozenset(),
}
"""The legal transitions. Every phase may also follow itself, while callbacks of its event are left to call."""
