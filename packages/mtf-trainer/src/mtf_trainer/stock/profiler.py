"""A trace of a few steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mtf_trainer.callbacks import TrainingCallback

if TYPE_CHECKING:
    from mtf_trainer.trainer import GenericTrainer

__all__ = ["Profiler"]

logger = logging.getLogger(__name__)


class Profiler(TrainingCallback):
    """Writes a trace of torch.profiler for a window of optimizer steps into the folder `profile` of the run.

    The file, `steps-<first>-<last>.json`, is read by Perfetto and by chrome://tracing. There is one for a run: a window
    that a stop cuts short is begun anew by the next process, where that one starts.

    Args:
        start_step: optimizer steps before the window.
        num_steps: optimizer steps in it.
        record_shapes: of the inputs of every operation.
        profile_memory: what was allocated.
        with_stack: which source lines called.
    """

    def __init__(
        self,
        start_step: int = 10,
        *,
        num_steps: int = 5,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
    ) -> None:
        if start_step < 0 or num_steps < 1:
            raise ValueError(f"start_step={start_step}, num_steps={num_steps}: expected at least 0 and at least 1")
        self.start_step = start_step
        self.num_steps = num_steps
        self.record_shapes = record_shapes
        self.profile_memory = profile_memory
        self.with_stack = with_stack
        self._done = False
        self._profile: torch.profiler.profile | None = None
        self._first = 0

    def on_training_start(self, trainer: GenericTrainer) -> None:
        """A new run has no trace yet."""
        self._done = False

    def on_batch_start(self, trainer: GenericTrainer, batch_idx: int) -> None:
        """Begin when the window does."""
        if self._done or self._profile is not None or trainer.global_step < self.start_step:
            return
        self._first = trainer.global_step
        self._profile = torch.profiler.profile(
            record_shapes=self.record_shapes, profile_memory=self.profile_memory, with_stack=self.with_stack
        )
        self._profile.start()

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        """End when the window does."""
        if self._profile is not None and trainer.global_step >= self._first + self.num_steps:
            self._write(trainer)

    def on_training_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
        """Write what there is of a window that training ended in."""
        if self._profile is not None:
            self._write(trainer)

    def teardown(self, trainer: GenericTrainer) -> None:
        """Give up a window that is not complete."""
        profile, self._profile = self._profile, None
        if profile is not None:
            profile.stop()

    def _write(self, trainer: GenericTrainer) -> None:
        profile, self._profile = self._profile, None
        assert profile is not None
        profile.stop()
        path = trainer.directory / "profile" / f"steps-{self._first}-{trainer.global_step}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        for older in path.parent.glob("steps-*.json"):  # of a process whose work was lost
            older.unlink()
        temporary = Path(f"{path}.tmp")
        profile.export_chrome_trace(str(temporary))
        temporary.replace(path)
        self._done = True
        logger.info("trace of %d steps: %s", trainer.global_step - self._first, path)

    def state_dict(self) -> dict[str, Any]:
        """Whether the trace is written."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self._done = state["done"]
