"""The trainer's errors."""

from __future__ import annotations

from pathlib import Path

from mtf_utils.exits import EXIT_DO_NOT_REQUEUE, EXIT_PREEMPTED

__all__ = [
    "CheckpointError",
    "CheckpointTimeoutError",
    "PreemptionTimeoutError",
    "TrainerError",
    "TrainingPreempted",
    "TrainingStopped",
]


class TrainerError(RuntimeError):
    """Base of everything that the trainer raises on its own account.

    Attributes:
        exit_status: what a command ends with when it shows the error.
    """

    exit_status = 1


class CheckpointError(TrainerError):
    """A checkpoint cannot be written, is damaged, or does not belong to this run.

    Attributes:
        path: the checkpoint or file concerned, when there is one.
    """

    def __init__(self, message: str, *, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class CheckpointTimeoutError(CheckpointError, TimeoutError):
    """A save did not become durable within `preemption.timeout_minutes`; the last durable one is intact."""


class PreemptionTimeoutError(CheckpointError, TimeoutError):
    """An emergency save did not become durable within the grace period; the last durable one is intact."""


class TrainingPreempted(TrainerError, SystemExit):  # noqa: N818 - not a fault
    """Training was told to stop and its state is durable: run the same command again to continue.

    Left uncaught, it ends the process with status 75.

    Attributes:
        checkpoint: the checkpoint that the next start continues from.
    """

    def __init__(self, message: str, *, checkpoint: Path) -> None:
        super().__init__(message)
        self.code = EXIT_PREEMPTED
        self.checkpoint = checkpoint


class TrainingStopped(TrainerError, SystemExit):  # noqa: N818 - like TrainingPreempted
    """Running the same command again would not help; left uncaught, it ends the process with status 76."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = EXIT_DO_NOT_REQUEUE
