"""How a call of `fit` ends before training does, and what it says then."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from mtf_trainer import receipts
from mtf_trainer.distributed.team import Team
from mtf_trainer.errors import PreemptionTimeoutError, TrainingPreempted, TrainingStopped
from mtf_trainer.guard import Place
from mtf_trainer.state import ResumeState
from mtf_utils.rundir import Outcome

__all__ = ["go", "release", "standing", "stop_for_good", "telling_late_saves"]

logger = logging.getLogger(__name__)


def go(team: Team, signal_name: str, place: str, checkpoint: Path) -> NoReturn:
    """Say that the run was told to go, and is to be started again.

    Raises:
        TrainingPreempted: always.
    """
    message = f"stopped by {signal_name} at {place}; saved {checkpoint}; the same command continues from there"
    if team.is_first:
        logger.warning("%s", message)
        receipts.write_receipt(Outcome.PREEMPTED, message)
    raise TrainingPreempted(message, checkpoint=checkpoint)


@contextlib.contextmanager
def telling_late_saves(team: Team, signal_name: str) -> Iterator[None]:
    """Say that the run was told to go even if its state does not become durable in time: nothing speaks against it."""
    try:
        yield
    except PreemptionTimeoutError as error:
        if team.is_first:
            receipts.write_receipt(Outcome.PREEMPTED, f"stopped by {signal_name}, and not saved in time: {error}")
        raise


def stop_for_good(team: Team, message: str, cause: Exception | None = None) -> NoReturn:
    """Say that the run must not be started again, and end it.

    Raises:
        TrainingStopped: always.
    """
    if team.is_first:
        # Python says nothing of an exception that carries a status
        logger.error("%s", message, exc_info=cause)
        receipts.write_receipt(Outcome.DO_NOT_REQUEUE, message)
    raise TrainingStopped(message) from cause


def release(stack: contextlib.ExitStack, close: Callable[..., None], *arguments: Any) -> None:
    """Have something closed at the end of the stack, without a failure of that hiding how training ended."""

    def leave(kind: Any, error: BaseException | None, traceback: Any) -> None:
        try:
            close(*arguments)
        except Exception:
            if error is None:
                raise
            name = getattr(close, "__qualname__", close)
            logger.exception("%s failed while fit() ended, which changes nothing about how it ends", name)

    stack.push(leave)


def standing(state: ResumeState) -> tuple[Any, ...]:
    """Where the run stands, to the boundary."""
    train = state.train
    return Place.of(state), state.phase, state.event_index, train and (train.micro_step, train.exhausted)
