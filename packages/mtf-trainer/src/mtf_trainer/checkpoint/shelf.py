"""The published checkpoints of a directory: found again, set aside when damaged, dropped when no longer needed."""

from __future__ import annotations

import logging
from pathlib import Path

from mtf_trainer.checkpoint import directory as folders
from mtf_trainer.checkpoint.faults import DamagedCheckpointError, os_failure
from mtf_trainer.checkpoint.folder import Checkpoint, read_checkpoint
from mtf_trainer.checkpoint.manifest import Manifest, read_manifest
from mtf_trainer.checkpoint.retention import superseded
from mtf_trainer.errors import CheckpointError
from mtf_utils.atomic import write_text
from mtf_utils.sections import CheckpointConfig

__all__ = ["Shelf"]

_log = logging.getLogger(__name__)


class Shelf:
    """What lies in a directory and has a checkpoint's name.

    Args:
        directory: exists, and is locked by the caller.
        config: what is kept.
        run_id: the run; only its own checkpoints are ever deleted.
    """

    def __init__(self, directory: Path, config: CheckpointConfig, run_id: str) -> None:
        self._directory = directory
        self._config = config
        self._run_id = run_id
        self._manifests: dict[Path, Manifest | None] = {}

    def paths(self) -> list[Path]:
        """The published checkpoints, oldest first; not verified."""
        return folders.published(self._directory)

    def last(self) -> Path | None:
        """The newest of them, not verified."""
        paths = self.paths()
        return paths[-1] if paths else None

    def newest(self) -> Checkpoint | None:
        """Read the newest valid checkpoint; None if there are none at all. See `CheckpointStore.newest`."""
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

    def add(self, temporary: Path, final: Path, manifest: Manifest) -> None:
        """Publish a complete and synced folder, and drop what it supersedes."""
        folders.publish(temporary, final)
        self._manifests[final] = manifest
        self._point_latest_at(final)
        self._drop_superseded()

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
