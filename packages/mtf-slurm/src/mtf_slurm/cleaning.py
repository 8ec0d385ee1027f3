"""What of a sweep's folder is not needed any more: copies of code, superseded checkpoints, logs of earlier attempts.

What a run that is not finished may still need is never among it, and of a sweep that is at work nothing is.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from mtf_slurm.code.checkout import UNPUBLISHED
from mtf_slurm.code.isolation import code_file_of
from mtf_slurm.code.record import CODE
from mtf_slurm.code.references import prune_snapshots
from mtf_slurm.code.repository import Repository
from mtf_slurm.code.users import forget_user, has_users
from mtf_slurm.configurations import read_experiment
from mtf_slurm.errors import GitOperationError, SLURMError
from mtf_slurm.execute import held
from mtf_slurm.results import GridSearchResult
from mtf_slurm.status import JobStatus
from mtf_slurm.submissions import Submissions
from mtf_utils.rundir import RunDirectory, RunDirectoryError, SweepDirectory, SweepFile

__all__ = ["Cleaning", "Rubbish", "clean", "find_rubbish"]

_CHECKPOINT: Final = re.compile(r"ckpt-([0-9]{6,18})-step-[0-9]{8,18}")
_TREE: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_REMOVED: Final = ".removed-"

Kind = Literal["code", "checkpoint", "log"]


@dataclass(frozen=True)
class Rubbish:
    """A file or folder that is not needed.

    Attributes:
        kind: what it is.
        path: where it is.
        size: its bytes.
        why: nobody needs it.
    """

    kind: Kind
    path: Path
    size: int
    why: str


@dataclass(frozen=True)
class Cleaning:
    """What was removed, or would be.

    Attributes:
        items: the files and folders.
        snapshots: the snapshots that git need not keep any more.
    """

    items: tuple[Rubbish, ...] = ()
    snapshots: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of all files; what git gets rid of is not among them."""
        return sum(item.size for item in self.items)


def find_rubbish(output_dir: Path) -> Cleaning:
    """Look for what is not needed in the folder of a sweep; removes nothing.

    Raises:
        SLURMError: there is no sweep in that folder, or some of its runs are, or may be, at work.
    """
    result = GridSearchResult.load(output_dir)
    busy = [run.name for run in result if run.may_change or run.status is JobStatus.UNKNOWN]
    if busy:
        shown = ", ".join(busy[:5]) + (", ..." if len(busy) > 5 else "")
        raise SLURMError(f"{result.output_dir}: nothing can be removed while runs are, or may be, at work: {shown}")
    directory = SweepDirectory(result.output_dir)
    finished = [directory.run(run.name) for run in result if run.status is JobStatus.COMPLETED]
    code, snapshots = _old_code(directory, {run.name for run in finished})
    found = [*code, *(item for run in finished for item in (*_old_checkpoints(run), *_old_logs(run)))]
    return Cleaning(tuple(item for item in found if _lies_in(item.path, directory.path)), tuple(snapshots))


def clean(output_dir: Path) -> Cleaning:
    """Remove what is not needed in the folder of a sweep.

    Raises:
        SLURMError: there is no sweep in that folder, some of its runs are, or may be, at work, or something cannot be
            removed.
    """
    directory = SweepDirectory(output_dir.absolute())
    before = [submission.token for submission in Submissions(directory).all()]
    found = find_rubbish(output_dir)  # not while this holds the folder: runs in it would seem to be waiting
    with held(directory):
        if before != [submission.token for submission in Submissions(directory).all()]:
            raise SLURMError(f"{directory.path}: runs were submitted meanwhile; nothing was removed")
        for item in found.items:
            try:
                _remove(item.path)
            except OSError as error:
                raise SLURMError(f"{item.path} cannot be removed: {error.strerror or error}") from error
        return Cleaning(found.items, tuple(_forget(directory, found.snapshots)))


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path leads to its place without links, which could lead to what is somebody else's."""
    return path.resolve() == folder.resolve() / path.relative_to(folder)


def _old_code(directory: SweepDirectory, finished: set[str]) -> tuple[list[Rubbish], list[str]]:
    """Copies of the code that no run can be started with, and those snapshots that no run was made with either."""
    sweep = directory.sweep()
    used = {run.name: _tree_of(run) for run in directory.runs()}
    if any(tree is None for tree in used.values()):
        return [], []  # who uses what cannot be told
    current = {str(sweep.code.get("tree"))} if sweep else set()
    needed = current | {str(tree) for name, tree in used.items() if name not in finished}
    items, unknown = [], []
    for folder in _entries(directory.path / CODE):
        if folder.name.startswith((UNPUBLISHED, _REMOVED)):
            items.append(Rubbish("code", folder, _size(folder), "left by a launcher that was killed"))
        elif _TREE.fullmatch(folder.name) and folder.name not in needed:
            items.append(Rubbish("code", folder, _size(folder), "no unfinished run uses it"))
            if folder.name not in used.values():
                unknown.append(folder.name)
    return items, unknown


def _tree_of(run: RunDirectory) -> str | None:
    """The snapshot that the run uses, empty if none; None if that cannot be told."""
    try:
        code = code_file_of(run)
    except (RunDirectoryError, OSError):
        return None
    return (code.tree or "") if code else ""


def _old_checkpoints(run: RunDirectory) -> Iterator[Rubbish]:
    """Those of a finished run that are neither the last, nor the final, nor among the best, nor pinned."""
    manifests: dict[Path, dict[str, Any]] = {}
    for folder in _entries(run.checkpoints_dir):
        if folder.name.startswith(_REMOVED):
            yield Rubbish("checkpoint", folder, _size(folder), "its removal was cut off")
        elif _CHECKPOINT.fullmatch(folder.name) and not folder.is_symlink():
            manifest = _manifest(folder)
            if manifest is not None:  # what cannot be read is not judged
                manifests[folder] = manifest
    keep = _kept_checkpoints(run, manifests)
    if keep is not None:
        for folder in manifests:
            if folder not in keep:
                yield Rubbish(
                    "checkpoint", folder, _size(folder), "the run is finished, and others are better or later"
                )


def _kept_checkpoints(run: RunDirectory, manifests: dict[Path, dict[str, Any]]) -> set[Path] | None:
    try:
        result, checkpoint = run.result(), read_experiment(run).checkpoint
    except (OSError, ValueError):
        return None
    if result is None or not manifests:
        return None
    keep = {folder for folder, manifest in manifests.items() if manifest.get("pinned") is not False}
    keep.add(max(manifests, key=_sequence))
    keep.add(run.path / result.checkpoint)
    sign = 1 if checkpoint.mode == "min" else -1
    ranked = sorted((f for f, m in manifests.items() if _is_number(m.get("metric"))), key=_sequence)
    ranked.sort(key=lambda folder: sign * manifests[folder]["metric"])
    return keep.union(ranked[: max(1, checkpoint.save_top_k)])


def _sequence(folder: Path) -> int:
    found = _CHECKPOINT.fullmatch(folder.name)
    return int(found[1]) if found else 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _manifest(folder: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        data = json.loads((folder / "manifest.json").read_text("utf-8"))
        if isinstance(data, dict):
            return data
    return None


def _old_logs(run: RunDirectory) -> Iterator[Rubbish]:
    """The output of the attempts of a finished run before its last."""
    for attempt in run.attempts()[:-1]:
        log = run.log_file(attempt.number)
        if log.is_file():
            yield Rubbish("log", log, log.stat().st_size, "a later attempt finished the run")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []


def _size(folder: Path) -> int:
    """The bytes of the files in a folder; links are not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(Path(place, name)).st_size
    return total


def _remove(path: Path) -> None:
    """A folder gets another name first: what is cut off here leaves nothing that looks whole."""
    if not path.is_dir():
        path.unlink()
        return
    hidden = path if path.name.startswith((_REMOVED, UNPUBLISHED)) else path.with_name(f"{_REMOVED}{path.name}")
    if hidden != path:
        path.rename(hidden)
    shutil.rmtree(hidden)


def _forget(directory: SweepDirectory, trees: Iterable[str]) -> list[str]:
    """Have git let go of snapshots that no other folder needs; where the repository is gone, so are they."""
    sweep: SweepFile | None = directory.sweep()
    gone = set(trees)
    if sweep is None or not gone:
        return []
    try:
        repository = Repository.find(Path(str(sweep.code.get("project_root"))))
    except GitOperationError:
        return []
    for tree in gone:
        forget_user(repository, tree, directory.path)
    pruned = prune_snapshots(repository, lambda kept: kept.tree not in gone or has_users(repository, kept.tree))
    return [kept.tree for kept in pruned]
