"""One save on its way: a thread that copies, writes and publishes, and the questions the loop has for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from mtf_trainer.checkpoint.deadline import Deadline
from mtf_trainer.checkpoint.folder import EncodedSnapshot
from mtf_trainer.checkpoint.staging import Copies

__all__ = ["SaveTask"]

Publish = Callable[["SaveTask", EncodedSnapshot], Path]


class SaveTask(threading.Thread):
    """Makes one checkpoint durable.

    The thread does not keep the process alive: whoever starts it waits for it, or has given it up.

    Args:
        source: the snapshot, or its copies that are still to be finished.
        publish: writes the snapshot; given this task too.
        deadline: the terms.
        step: optimizer steps taken, for messages.

    Attributes:
        nbytes: the size of its tensors.
        path: the published checkpoint.
        error: what went wrong; raised again by the thread that waits for this one.
    """

    def __init__(self, source: EncodedSnapshot | Copies, publish: Publish, deadline: Deadline, *, step: int) -> None:
        super().__init__(name="checkpoint-writer", daemon=True)
        self.deadline = deadline
        self.step = step
        self.nbytes = source.nbytes
        self.path: Path | None = None
        self.error: BaseException | None = None
        self._source = source
        self._publish = publish
        self._confirmed = threading.Event()
        if isinstance(source, EncodedSnapshot) or not source.overlaps:
            self._confirmed.set()

    def run(self) -> None:
        """Copy, write, publish."""
        try:
            snapshot = self._source.finish() if isinstance(self._source, Copies) else self._source
            self.path = self._publish(self, snapshot)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for this one
            self.error = error

    def join_copies(self) -> str | None:
        """Wait until the live tensors were copied, and allow the checkpoint to be published.

        Returns:
            The name of a tensor that was written to too early: the save is cancelled then. None if all is well.
        """
        edited = None
        if isinstance(self._source, Copies) and not self._confirmed.is_set():
            edited = self._source.join()
            if edited is not None:
                self.deadline.cancel(f"{edited} was written to while it was copied")
        self._confirmed.set()
        return edited

    def await_confirmation(self) -> None:
        """Wait, in the writer's thread, until it is known that nothing was written to while it was copied."""
        self._confirmed.wait()
        self.deadline.check_cancelled("waiting for the next update")
