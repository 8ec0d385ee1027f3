"""The checkpoints of a run in one directory: published whole, found again, kept as long as they are needed."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from mtf_trainer.checkpoint import directory as folders
from mtf_trainer.checkpoint.deadline import Clock, Deadline
from mtf_trainer.checkpoint.faults import DamagedCheckpointError, os_failure
from mtf_trainer.checkpoint.folder import (
    Checkpoint,
    EncodedSnapshot,
    Snapshot,
    encode_snapshot,
    read_checkpoint,
    write_checkpoint,
)
from mtf_trainer.checkpoint.lock import DirectoryLock
from mtf_trainer.checkpoint.manifest import Kind, Manifest, folder_name, read_manifest
from mtf_trainer.checkpoint.retention import superseded
from mtf_trainer.checkpoint.staging import Staging
from mtf_trainer.errors import CheckpointError, CheckpointTimeoutError
from mtf_utils.atomic import write_text
from mtf_utils.sections import CheckpointConfig

__all__ = ["CheckpointStore"]

_log = logging.getLogger(__name__)


class CheckpointStore:
    """Saves, finds and keeps the checkpoints of one run.

    A store holds the directory's lock until it is closed; leaving a `with` block closes it.

    Args:
        directory: where the checkpoints lie; created if missing.
        config: what is kept.
        run_id: the run; only its own checkpoints are ever deleted.
        clock: what tells the time to deadlines.

    Raises:
        CheckpointError: the directory cannot be used, or another writer is using it.
    """

    def __init__(
        self, directory: Path, config: CheckpointConfig, *, run_id: str, clock: Clock = time.monotonic
    ) -> None:
        self._directory = directory
        self._config = config
        self._run_id = run_id
        self._clock = clock
        self._staging = Staging()
        self._in_flight: _BackgroundSave | None = None
        self._manifests: dict[Path, Manifest | None] = {}
        folders.create_directory(directory)
        self._lock = DirectoryLock(directory, run_id)
        folders.remove_leftovers(directory, run_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def save(self, snapshot: Snapshot, *, kind: Kind, deadline_s: float | None = None, pinned: bool = False) -> Path:
        """Save, durably on return; a save in the background is waited for first.

        An emergency save gives the one in the background half of its time and then cancels it. It also goes on if
        that one failed, which is then a warning: what matters is that this state becomes durable.

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
        deadline = Deadline(deadline_s, emergency=kind is Kind.EMERGENCY, clock=self._clock)
        if kind is Kind.EMERGENCY:
            self._make_room(deadline)
        else:
            self._join(deadline.remaining_s(), lambda: deadline.error("waiting for the save in the background"))
        return self._publish(encode_snapshot(snapshot), kind, pinned, deadline)

    def save_in_background(self, snapshot: Snapshot, *, kind: Kind, deadline_s: float | None = None) -> None:
        """Copy the state and return; a thread writes it. Waits first for an earlier one that is still being written.

        Args:
            snapshot: what to save; free to change when this returns.
            kind: why.
            deadline_s: seconds from now by which it has to be durable; None sets no limit.

        Raises:
            CheckpointError: the state cannot be stored, or the earlier save failed. What goes wrong in the thread is
                raised by the store's next call.
        """
        self._require_open()
        self.wait()
        deadline = Deadline(deadline_s, clock=self._clock)
        encoded = self._staging.copy(encode_snapshot(snapshot))
        self._in_flight = _BackgroundSave(lambda: self._publish(encoded, kind, False, deadline), deadline)
        self._in_flight.start()

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
        faults: list[tuple[Path, DamagedCheckpointError]] = []
        for path in reversed(self.paths()):
            try:
                checkpoint = read_checkpoint(path)
            except DamagedCheckpointError as error:
                faults.append((path, error))
                continue
            self._set_aside(faults, checkpoint)
            return checkpoint
        if faults:
            lines = "".join(f"\n  {error}" for _, error in faults)
            raise CheckpointError(
                f"{self._directory}: not one checkpoint is valid; move them away to start over{lines}",
                path=self._directory,
            )
        return None

    def load(self, path: Path) -> Checkpoint:
        """Read and verify one checkpoint, in this directory or elsewhere.

        Raises:
            DamagedCheckpointError: it is not what was written.
            CheckpointError: it cannot be read.
        """
        self._raise_failure()
        return read_checkpoint(path)

    def paths(self) -> list[Path]:
        """The published checkpoints of the directory, oldest first; not verified."""
        return folders.published(self._directory)

    def close(self) -> None:
        """Wait for what is being written and let go of the directory.

        Raises:
            CheckpointError: the save in the background failed; the store is closed all the same.
        """
        try:
            self.wait()
        finally:
            self._lock.release()

    def _require_open(self) -> None:
        if not self._lock.held:
            raise CheckpointError(f"{self._directory}: this store is closed", path=self._directory)

    def _join(self, timeout_s: float | None, too_late: Callable[[], CheckpointError]) -> Path | None:
        if self._in_flight is None:
            return None
        self._in_flight.join(timeout_s)
        if self._in_flight.is_alive():
            raise too_late()
        self._raise_failure()
        path, self._in_flight = self._in_flight.path, None
        return path

    def _raise_failure(self) -> None:
        if self._in_flight is not None and not self._in_flight.is_alive() and self._in_flight.error is not None:
            error, self._in_flight = self._in_flight.error, None
            raise error

    def _make_room(self, deadline: Deadline) -> None:
        """End the save in the background for an emergency save: by waiting, else by cancelling it."""
        if self._in_flight is None:
            return
        running = self._in_flight
        remaining_s = deadline.remaining_s()
        running.join(None if remaining_s is None else remaining_s / 2)
        running.deadline.cancel()
        running.join(deadline.remaining_s())
        if running.is_alive():
            raise deadline.error("waiting for the save in the background")
        self._in_flight = None
        if running.error is not None:
            _log.warning("the save in the background failed: %s", running.error)

    def _publish(self, encoded: EncodedSnapshot, kind: Kind, pinned: bool, deadline: Deadline) -> Path:
        sequence = folders.next_sequence(self._directory)
        final = self._directory / folder_name(sequence, encoded.global_step)
        temporary: Path | None = None
        try:
            temporary = folders.new_temporary(final, self._run_id)
            self._manifests[final] = write_checkpoint(
                temporary, encoded, kind=kind, run_id=self._run_id, sequence=sequence, pinned=pinned, deadline=deadline
            )
            folders.publish(temporary, final)
        except BaseException as error:
            if temporary is not None:
                _remove_remains(temporary)
            if isinstance(error, OSError) and not isinstance(error, CheckpointError):
                raise os_failure("publish", final, error) from error
            raise
        self._point_latest_at(final)
        self._drop_superseded()
        return final

    def _point_latest_at(self, path: Path) -> None:
        try:
            write_text(self._directory / folders.LATEST, path.name + "\n")
        except OSError as error:
            raise os_failure("update", self._directory / folders.LATEST, error) from error

    def _drop_superseded(self) -> None:
        own = {}
        for path in self.paths():
            manifest = self._manifest(path)
            if manifest is not None and manifest.run_id == self._run_id:
                own[path] = manifest
        config = self._config
        for path in superseded(own, keep_last=config.keep_last, save_top_k=config.save_top_k, mode=config.mode):
            try:
                folders.discard(path, self._run_id)
            except OSError as error:
                _log.warning("cannot remove the superseded checkpoint %s: %s", path, error)

    def _manifest(self, path: Path) -> Manifest | None:
        """The manifest of a checkpoint, or None if it has no valid one: such a folder is left alone."""
        if path not in self._manifests:
            try:
                self._manifests[path] = read_manifest(path)
            except CheckpointError as error:
                _log.warning("%s; it is left where it is", error)
                self._manifests[path] = None
        return self._manifests[path]

    def _set_aside(self, faults: list[tuple[Path, DamagedCheckpointError]], used: Checkpoint) -> None:
        for path, error in faults:
            try:
                target = folders.set_aside(path)
            except OSError as failure:
                raise os_failure("rename", path, failure) from failure
            _log.warning("damaged checkpoint, now %s: %s; using %s", target.name, error, used.path.name)
        if faults:
            self._point_latest_at(used.path)


class _BackgroundSave(threading.Thread):
    def __init__(self, publish: Callable[[], Path], deadline: Deadline) -> None:
        super().__init__(name="checkpoint-writer")
        self.deadline = deadline
        self.path: Path | None = None
        self.error: BaseException | None = None
        self._publish = publish

    def run(self) -> None:
        try:
            self.path = self._publish()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that joins this one
            self.error = error


def _remove_remains(temporary: Path) -> None:
    try:
        shutil.rmtree(temporary)
    except FileNotFoundError:
        pass  # it was renamed: what failed came after
    except OSError as error:
        _log.warning("cannot remove %s: %s; the next start will", temporary, error)
