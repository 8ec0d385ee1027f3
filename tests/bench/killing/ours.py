"""The trainer under fire: the task of the exact-resume tests, saying where it stands at every boundary."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the first optimizer that is made imports it, which takes longer than the whole training

from exact_training import load_task
from killing.whereabouts import Activity, Whereabouts
from mtf_trainer import CheckpointConfig, preemption
from mtf_trainer.loop import Loop
from mtf_trainer.phases import TrainerPhase
from mtf_trainer.state import ResumeState

task = load_task()


def run(request: dict[str, Any]) -> None:
    """Train until training is complete or the process is stopped; then write the digest of everything.

    Args:
        request: `folder`, `whereabouts` (a file to map, or None), `workers`, `persistent`, `async_save`.
    """
    if request["whereabouts"]:
        observe(Whereabouts(Path(request["whereabouts"])))
    folder = Path(request["folder"])
    torch.set_num_threads(1)
    saving = CheckpointConfig(
        checkpoint_dir=str(folder / "checkpoints"), save_every_n_steps=2, async_save=request["async_save"]
    )
    trainer, train = task.prepare(
        folder, workers=request["workers"], persistent=request["persistent"], checkpoint=saving
    )
    train()
    (folder / "digest.json").write_text(json.dumps(task.digest(trainer)))


def observe(whereabouts: Whereabouts) -> None:
    """Make the loop say where it stands before each phase, and `fit` when its handlers are in place."""
    boundaries: Callable[[Loop], Iterator[TrainerPhase]] = Loop.boundaries
    listening = preemption.listening

    def watched(self: Loop) -> Iterator[TrainerPhase]:
        for phase in boundaries(self):
            whereabouts.move(activity(self.state), place(self.state))
            yield phase

    @contextlib.contextmanager
    def announced(flag: preemption.StopFlag, names: Sequence[str]) -> Iterator[None]:
        with listening(flag, names):
            whereabouts.listening = True
            try:
                yield
            finally:
                whereabouts.listening = False

    Loop.boundaries = watched  # type: ignore[method-assign]
    preemption.listening = announced


def activity(state: ResumeState) -> Activity:
    """What the loop is about to do, in the terms that all trainers share."""
    if state.phase is TrainerPhase.TRAINING_COMPLETE:
        return Activity.FINISHED
    if state.val is not None:
        return Activity.VALIDATION
    return Activity.ACCUMULATION if state.train is not None and state.train.micro_step else Activity.TRAINING


def place(state: ResumeState) -> dict[str, Any]:
    """Everything about the state that says what is done and what comes next."""
    train, val = state.train, state.val
    return {
        "phase": state.phase.value,
        "epoch": state.epoch,
        "step": state.global_step,
        "event": state.event_index,
        "validations": state.validations,
        "train": train and [train.batch_idx, train.micro_step, train.step_done, train.exhausted],
        "val": val and val.batch_idx,
    }


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
