"""The checkpoints of a run in one directory: published whole, found again, kept as long as they are needed."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from mtf_trainer.checkpoint import directory as folders
from mtf_trainer.checkpoint.deadline import Clock, Deadline, SaveCancelledError
from mtf_trainer.checkpoint.folder import (
    Checkpoint,
    EncodedSnapshot,
    Snapshot,
    encode_snapshot,
    read_checkpoint,
)
from mtf_trainer.checkpoint.lock import last_holder
from mtf_trainer.checkpoint.manifest import Kind, read_manifest
from mtf_trainer.checkpoint.publishing import Contributor, Crew, Publisher, Writer
from mtf_trainer.checkpoint.shelf import Shelf
from mtf_trainer.checkpoint.staging import Copies, Staging
from mtf_trainer.checkpoint.task import SaveTask
from mtf_trainer.errors import CheckpointError, CheckpointTimeoutError
from mtf_utils.sections import CheckpointConfig

__all__ = ["CheckpointStore"]

_STUCK_S = 1.0
_NOTABLE_S = 0.1
_NAMELESS = "nameless-"

_log = logging.getLogger(__name__)


class CheckpointStore:
    """Saves, finds and keeps the checkpoints of one run.

    A store holds the directory's lock until it is closed; leaving a `with` block closes it.

    Args:
        directory: where the checkpoints lie; created if missing.
        config: what is kept.
        run_id: the run; only its own checkpoints are ever deleted. None for one without a name: it gets the id of the
            nameless run that wrote the newest checkpoint here, else a random one.
        clock: what tells the time to deadlines.
        crew: the processes that save together, if there are several.
        publishes: whether this one writes the manifest and gives a checkpoint its name; the others need no lock.

    Raises:
        CheckpointError: the directory cannot be used, or another writer is using it.
    """

    def __init__(
        self,
        directory: Path,
        config: CheckpointConfig,
        *,
        run_id: str | None,
        clock: Clock = time.monotonic,
        crew: Crew | None = None,
        publishes: bool = True,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._overlap = config.overlap_copy
        self._nbytes = 0
        self._staging = Staging()
        self._saves = 0
        self._in_flight: SaveTask | None = None
        self._unconfirmed: SaveTask | None = None
        folders.create_directory(directory)
        self._run_id = run_id = run_id or _nameless(directory)
        self._shelf = Shelf(directory, config, run_id)
        self._writer: Writer = (
            Publisher(directory, self._shelf, run_id, crew)
            if crew is None or publishes
            else Contributor(directory, self._shelf, crew)
        )

    @property
    def run_id(self) -> str:
        """The run that checkpoints are written for."""
        return self._run_id

    @property
    def is_saving(self) -> bool:
        """Whether a save in the background is under way."""
        return self._in_flight is not None and self._in_flight.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def save(self, snapshot: Snapshot, *, kind: Kind, deadline_s: float | None = None, pinned: bool = False) -> Path:
        """Save, durably on return; a save in the background is waited for first.

        An emergency save waits for the one in the background as long as both can be done in time, and then cancels it.
        If it cannot be done in time itself, it leaves the time to the other. It also goes on if that one failed, which
        is then a warning: what matters is that this state becomes durable.

        Args:
            snapshot: what to save; not changed while this runs.
            kind: why.
            deadline_s: seconds from now by which it has to be durable; None waits as long as it takes. A save whose
                last byte is on the disk is published even if the moment has just passed.
            pinned: whether it is kept whatever the retention rules say.

        Returns:
            The checkpoint's folder.

        Raises:
            PreemptionTimeoutError: an emergency save was not durable in time.
            CheckpointTimeoutError: another save was not durable in time.
            CheckpointError: it cannot be written, or an earlier save in the background could not. What was durable
                before still is.
        """
        self._require_open()
        self.join_copies()
        deadline = self._deadline(deadline_s, emergency=kind is Kind.EMERGENCY)
        encoded = encode_snapshot(snapshot)
        if kind is Kind.EMERGENCY:
            self._make_room(deadline, encoded.nbytes)
        else:
            self._join(deadline.remaining_s(), lambda: deadline.error("waiting for the save in the background"))
        on_host = all(not tensor.is_cuda for tensors in encoded.tensors.values() for tensor in tensors.values())
        task = self._start(encoded if on_host else self._staging.begin(encoded), snapshot, kind, deadline, pinned)
        remaining_s = deadline.remaining_s()
        # The writer looks at the clock by itself; if it is late as well, it is stuck in a call.
        path = self._join(
            None if remaining_s is None else remaining_s + _STUCK_S, lambda: self._give_up(task, deadline)
        )
        assert path is not None
        return path

    def save_in_background(self, snapshot: Snapshot, *, kind: Kind, deadline_s: float | None = None) -> None:
        """Begin to copy the state and return; a thread does the rest.

        The snapshot's steady tensors must not be written to before `join_copies` was called; everything else in it
        is free to change when this returns. Waits first for an earlier save that is still being written.

        Args:
            snapshot: what to save.
            kind: why.
            deadline_s: seconds from now by which it has to be durable; None sets no limit.

        Raises:
            CheckpointError: the state cannot be stored, or the earlier save failed. What goes wrong in the thread is
                raised by the store's next call.
        """
        self._require_open()
        self._hold_back()
        deadline = self._deadline(deadline_s)
        copies = self._staging.begin(encode_snapshot(snapshot), snapshot.steady if self._overlap else ())
        self._unconfirmed = self._start(copies, snapshot, kind, deadline, False)

    def join_copies(self) -> None:
        """Wait until the live tensors of a save in the background were copied; to be called before they are changed.

        Costs nothing when there is nothing to wait for. If a tensor was written to all the same, that save is given
        up with a warning, and later ones copy everything at once.
        """
        if self._unconfirmed is None:
            return
        task, self._unconfirmed = self._unconfirmed, None
        edited = task.join_copies()
        if edited is not None:
            self._overlap = False
            _log.warning(
                "%s was written to between two updates, while the checkpoint of step %d was copied: that one is given "
                "up, and from now on training waits for the copy; checkpoint.overlap_copy=false does so from the start",
                edited,
                task.step,
            )

    def check(self) -> None:
        """Hear of a save in the background that failed; costs nothing otherwise.

        Raises:
            CheckpointError: it failed. What was durable before still is.
        """
        running = self._in_flight
        if running is None or running.error is None or running.is_alive():
            return
        self._in_flight = None
        if isinstance(running.error, SaveCancelledError):
            _log.debug("%s", running.error)
            return
        raise running.error

    def reserve(self, count: int, *, pinned: bool) -> None:
        """Get host memory for saves in the background of about `count` bytes, in a thread."""
        self._staging.reserve(count, pinned=pinned)

    def next_save_s(self) -> float | None:
        """Seconds that a save like the last one is going to take, learned from this store's; None before the first."""
        return self._writer.bandwidth.estimate_s(self._nbytes)

    def wait(self, timeout_s: float | None = None) -> Path | None:
        """Wait until nothing is being written.

        Args:
            timeout_s: how many seconds to wait at most; None waits as long as it takes.

        Returns:
            The checkpoint that was being written, or None if there was none.

        Raises:
            CheckpointTimeoutError: it is still being written; it goes on.
            CheckpointError: it failed.
        """
        self.join_copies()
        return self._join(
            timeout_s,
            lambda: CheckpointTimeoutError(f"a checkpoint is still being written after {timeout_s:.6g} s"),
        )

    def newest(self) -> Checkpoint | None:
        """Read the newest valid checkpoint; None if there are none at all.

        Damaged ones that are newer are set aside: renamed, with a warning that names the file and what is wrong.

        Raises:
            CheckpointError: there are checkpoints and none is valid (nothing is renamed then), or one cannot be read
                although it may be intact.
        """
        self.wait()
        return self._shelf.newest()

    def load(self, path: Path, wanted: Callable[[str], bool] | None = None) -> Checkpoint:
        """Read and verify one checkpoint, in this directory or elsewhere.

        Args:
            path: its folder.
            wanted: which sections to read, by name; by default all.

        Raises:
            DamagedCheckpointError: it is not what was written.
            CheckpointError: it cannot be read.
        """
        self.check()
        return read_checkpoint(path, wanted)

    def paths(self) -> list[Path]:
        """The published checkpoints of the directory, oldest first; not verified."""
        return self._shelf.paths()

    def close(self) -> None:
        """Wait for what is being written and let go of the directory.

        Raises:
            CheckpointError: the save in the background failed; the store is closed all the same.
        """
        try:
            self.wait()
        finally:
            self._staging.release()
            self._writer.close()

    def _require_open(self) -> None:
        if not self._writer.is_open:
            raise CheckpointError(f"{self._directory}: this store is closed", path=self._directory)

    def _deadline(self, limit_s: float | None, *, emergency: bool = False) -> Deadline:
        return Deadline(limit_s, emergency=emergency, clock=self._clock, last_durable=self._writer.last)

    def _start(
        self, source: EncodedSnapshot | Copies, snapshot: Snapshot, kind: Kind, deadline: Deadline, pinned: bool
    ) -> SaveTask:
        self._saves += 1
        save = self._saves

        def publish(task: SaveTask, encoded: EncodedSnapshot) -> Path:
            if snapshot.refers_to is not None:
                snapshot.refers_to()
            return self._writer.write(save, task, encoded, kind, pinned=pinned)

        self._nbytes = source.nbytes
        self._in_flight = SaveTask(source, publish, deadline, step=snapshot.global_step)
        self._in_flight.start()
        return self._in_flight

    def _hold_back(self) -> None:
        """Let no second save begin before the first is durable."""
        self.join_copies()
        running = self._in_flight
        if running is None or not self.is_saving:
            self.wait()
            return
        began = time.monotonic()
        self.wait()
        waited_s = time.monotonic() - began
        _log.log(
            logging.WARNING if waited_s >= _NOTABLE_S else logging.DEBUG,
            "training waited %.2f s until the checkpoint of step %d was durable: saves are due faster than they can be "
            "written; save less often",
            waited_s,
            running.step,
        )

    def _join(self, timeout_s: float | None, too_late: Callable[[], CheckpointError]) -> Path | None:
        running = self._in_flight
        if running is None:
            return None
        running.join(timeout_s)
        if running.is_alive():
            raise too_late()
        self.check()
        self._in_flight = None
        return running.path

    def _make_room(self, deadline: Deadline, nbytes: int) -> None:
        """End the save in the background for an emergency save of `nbytes`: by waiting, else by cancelling it."""
        running = self._in_flight
        if running is None:
            return
        running.join(self._patience_s(running, deadline, nbytes))
        running.deadline.cancel("an emergency save needs the time")
        running.join(deadline.remaining_s())
        if running.is_alive():
            raise self._give_up(running, deadline)
        self._in_flight = None
        if running.error is not None:
            _log.warning("the save in the background failed: %s", running.error)

    def _patience_s(self, running: SaveTask, deadline: Deadline, nbytes: int) -> float | None:
        """How long an emergency save of `nbytes` may wait for the one that is running."""
        left_s = deadline.remaining_s()
        if left_s is None:
            return None
        own_s = self._writer.bandwidth.estimate_s(nbytes)
        rest_s = self._writer.bandwidth.estimate_s(max(0, running.nbytes - running.deadline.written))
        if own_s is None or rest_s is None:
            return left_s / 2
        if rest_s + own_s <= left_s:
            return left_s - own_s
        # When there is time for one of the two only, an older state that is durable is worth more than none.
        return left_s if own_s > left_s and rest_s < own_s else 0.0

    def _give_up(self, stuck: SaveTask, deadline: Deadline) -> CheckpointError:
        """Forget a writer that does not come back: it cannot be ended, but what it writes is never published."""
        stuck.deadline.cancel("it was given up")
        self._in_flight = None
        return deadline.error(f"waiting for the save of step {stuck.step}")


def _nameless(directory: Path) -> str:
    """The id of a run that was given no name: the one that it has had here already, else a new one."""
    for path in reversed(folders.published(directory)):
        try:
            run_id = read_manifest(path).run_id
        except CheckpointError:
            continue  # a resume is going to say what is wrong with it
        return run_id if run_id.startswith(_NAMELESS) else _new_nameless()
    holder = last_holder(directory)  # it was killed before it had a checkpoint
    return holder if holder is not None and holder.startswith(_NAMELESS) else _new_nameless()


def _new_nameless() -> str:
    return _NAMELESS + secrets.token_hex(8)
