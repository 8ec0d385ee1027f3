"""Finds out what an exception is about: the batch, and the sample in it."""

from __future__ import annotations

import re
from typing import Final

from mtf_trainer.data import DataSource, named_sample
from mtf_trainer.guard import Fault
from mtf_trainer.phases import TrainerPhase as Phase
from mtf_trainer.state import ResumeState

__all__ = ["fault_of"]

_WORKER_DIED: Final = re.compile(r"DataLoader worker \(pid")


def fault_of(error: BaseException, state: ResumeState, train: DataSource, val: DataSource | None) -> Fault:
    """What was under way, and which sample the exception is about, as far as it can be told.

    To be asked before the sources are closed.
    """
    fault = Fault.at(state)
    source = val if fault.stage == "val" and val is not None else train
    # Of a worker's death the process hears wherever it is, or only that a connection is gone.
    died = isinstance(error, ConnectionError | EOFError) or _WORKER_DIED.search(str(error))
    if died and (lost := source.lost_batch()) is not None:
        load = Phase.VAL_BATCH_LOAD if source is val else Phase.TRAIN_BATCH_LOAD
        fault.batch, fault.phase = lost, load.value
    fault.samples = source.samples(fault.epoch, fault.batch)
    fault.sample = named_sample(error)
    return fault
