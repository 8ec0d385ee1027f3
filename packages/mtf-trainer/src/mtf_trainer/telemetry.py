"""What a run tells while it goes on: the journal, the loggers that follow it, the images, and the progress."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import distributed

from mtf_trainer.builders import optimizer_steps
from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.errors import TrainerError
from mtf_trainer.journal import Journal
from mtf_trainer.loggers import MetricLogger, build_loggers
from mtf_trainer.media import to_png
from mtf_trainer.metrics import to_numbers
from mtf_trainer.places import checkpoint_directory, run_directory
from mtf_trainer.progress import Progress
from mtf_trainer.receipts import write_goal
from mtf_trainer.state import ResumeState
from mtf_utils.atomic import write_bytes
from mtf_utils.rundir import is_safe_name

__all__ = ["Telemetry", "build_telemetry", "is_main_process"]

OWN_FIELDS = frozenset({"event", "epoch", "step", "time"})


def is_main_process() -> bool:
    """Whether this process speaks for the run: of several ranks the first."""
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


class Telemetry:
    """Writes each record of a run once, however often the run is killed and continued.

    Everything lies in one folder: `metrics.jsonl`, `media`, and what loggers keep.

    Args:
        path: of the journal.
        loggers: follow the journal.
        progress: shows where the run stands.
        writes: whether this process writes at all.
    """

    def __init__(
        self, path: Path, loggers: Sequence[MetricLogger], progress: Progress, *, writes: bool | None = None
    ) -> None:
        self.journal = Journal(path)
        self.progress = progress
        self._loggers = tuple(loggers)
        self._writes = is_main_process() if writes is None else writes
        self._is_open = False
        self._offset = 0

    def open(self, offset: int | None) -> None:
        """Begin to write.

        Args:
            offset: what `flush` returned when the checkpoint was taken, or None for a new run.
        """
        self._offset = offset or 0
        if not self._writes:
            return
        self.journal.open(offset)
        self._is_open = True
        for each in self._loggers:
            each.open(self.journal.path, None if offset is None else self.journal.records)

    def assume(self, offset: int) -> None:
        """Take over the journal's size from a checkpoint that nothing is added to."""
        self._offset = offset

    def start_progress(self, state: ResumeState) -> None:
        """Show where the run stands from now on, and say how far it is to go."""
        if self._writes:
            write_goal(self.progress.epochs, self.progress.total_steps)
            self.progress.open(state)

    def record(self, state: ResumeState, event: str, metrics: Mapping[str, float]) -> None:
        """Write metrics to the journal and hand the record to every logger."""
        if self._is_open:
            self._write({"event": event, "epoch": state.epoch, "step": state.global_step, **metrics})
            self.progress.show(state, metrics)

    def record_of_user(self, state: ResumeState, metrics: Mapping[str, Any]) -> None:
        """The same for metrics that a user logs.

        Raises:
            TrainerError: a name is one that every record has, or a value is not a number.
        """
        if taken := OWN_FIELDS & metrics.keys():
            raise TrainerError(
                f"{', '.join(sorted(taken))} cannot name a metric: every record has a field of that name"
            )
        self.record(state, "log", to_numbers(metrics, step="log_metrics"))

    def add_image(self, state: ResumeState, name: str, image: Any) -> None:
        """Write an image into the folder `media` and a record of it.

        Raises:
            TrainerError: the name cannot be that of a file, or this is no image.
        """
        if not is_safe_name(name):
            raise TrainerError(f"image {name!r}: use letters, digits and ._=+-, since it names a file")
        if not self._is_open:
            return
        data = to_png(name, image)
        relative = f"media/{name}-{self.journal.records:08d}.png"  # the number of its record: a repetition replaces it
        path = self.journal.path.parent / relative
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, data)
        position = {"epoch": state.epoch, "step": state.global_step}
        self._write({"event": "image", **position, "name": name, "file": relative})

    def _write(self, record: Mapping[str, float | int | str | None]) -> None:
        written = self.journal.write(record)
        for each in self._loggers:
            each.log(written)

    def flush(self) -> int:
        """Hand on what waits for the journal, and return its size; once closed, nothing is added any more."""
        if self._is_open:
            self._offset = self.journal.flush()
        return self._offset

    def sync(self) -> None:
        """Make durable what was flushed; in any thread, also once all is closed."""
        if self._writes:
            self.journal.sync()

    def close_loggers(self) -> None:
        """Close every logger, also if one cannot be closed."""
        with contextlib.ExitStack() as stack:
            for each in self._loggers:
                stack.callback(each.close)

    def close(self) -> None:
        """Flush, make durable, and close the journal."""
        if not self._is_open:
            return
        try:
            self.flush()
            self.journal.sync()
        finally:
            self._is_open = False
            self.journal.close()


def build_telemetry(
    config: GenericTrainerConfig, loggers: Sequence[MetricLogger], *, num_batches: int | None
) -> Telemetry:
    """What a configuration asks for, in the folder of the run.

    Args:
        config: the trainer's configuration.
        loggers: further ones.
        num_batches: of a training epoch; None when nobody knows.

    Raises:
        TrainerError: a package that a logger needs is not installed.
    """
    total = optimizer_steps(num_batches, config) if num_batches else config.max_steps
    progress = Progress(config.logging.progress, epochs=config.epochs, total_steps=total)
    every = [*build_loggers(config, checkpoint_directory(config)), *loggers]
    return Telemetry(run_directory(config) / "metrics.jsonl", every, progress)
