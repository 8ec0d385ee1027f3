"""How much room a sweep will take in its folder, and whether there is as much; a few runs stand for all of them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mtf_config.writer import dump_yaml
from mtf_slurm.code.contents import readable_size
from mtf_slurm.code.record import CODE
from mtf_slurm.wording import counted
from mtf_utils.rundir import RunDirectory, SweepDirectory

if TYPE_CHECKING:
    from mtf_slurm.sweep import SweepPlan

__all__ = ["Estimate", "Room", "Takes", "estimate_room"]

_WRITTEN_SAMPLE: Final = 16
"""How many runs are rendered to tell what the folder of a run takes."""
_MEASURED_SAMPLE: Final = 8
"""How many finished runs are looked into to tell what a run leaves."""
_ENTRIES: Final = 20_000
"""How many files of one run are looked at."""
_LEFT_FILES: Final = 6
"""What a run leaves beside checkpoints: two receipts, a note of where it began, a log, its metrics and its result."""
_LEFT_FOLDERS: Final = 2
"""Those of an attempt, and of checkpoints."""
_RUN_FOLDERS: Final = 3
"""Those of a run, of its attempts and of its logs."""

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Takes:
    """What something takes on a disk.

    Attributes:
        files: how many files.
        folders: how many folders.
        size: bytes, in whole blocks.
    """

    files: int = 0
    folders: int = 0
    size: int = 0

    def __add__(self, other: Takes) -> Takes:
        return Takes(files=self.files + other.files, folders=self.folders + other.folders, size=self.size + other.size)

    def times(self, factor: float) -> Takes:
        """So many times as much, rounded up."""
        return Takes(**{key: math.ceil(value * factor) for key, value in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class Room:
    """What there is on a file system; quotas are not known.

    Attributes:
        size: free bytes.
        entries: how many more files and folders it can hold; None if it has no fixed number of them.
    """

    size: int
    entries: int | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a sweep will take in its folder, beside what is there.

    Attributes:
        code: the copy of the code, linked inputs excepted; None if runs work in the project itself.
        written: what is written before anything runs.
        left: receipts, logs and metrics of the runs that are not finished.
        checkpoints: their checkpoints; None if no run of the sweep has made any yet.
        runs: how many runs are not finished.
        measured: how many finished runs tell what one leaves; 0: it is the least that one can leave.
        room: what there is.
    """

    code: Takes | None
    written: Takes
    left: Takes
    checkpoints: Takes | None
    runs: int
    measured: int
    room: Room

    @property
    def total(self) -> Takes:
        """All of it; without the checkpoints if these are unknown."""
        return (self.code or Takes()) + self.written + self.left + (self.checkpoints or Takes())

    @property
    def problems(self) -> list[str]:
        """Why it would not fit, one line each; none if it does."""
        total, room = self.total, self.room
        least = "" if self.checkpoints is not None else ", without checkpoints"
        found = []
        if total.size > room.size:
            found.append(f"it needs {readable_size(total.size)}{least}, and {readable_size(room.size)} are free")
        if room.entries is not None and total.files + total.folders > room.entries:
            found.append(
                f"it needs {total.files + total.folders} files and folders{least}, and there is room for {room.entries}"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """As plain data, with the total and the problems."""
        return asdict(self) | {"total": asdict(self.total), "problems": self.problems}

    def lines(self) -> Iterator[str]:
        """It as text."""
        code = _words(self.code) if self.code else "none, runs work in the project itself"
        yield f"copy of the code: {code}"
        yield f"folders of the runs: {_words(self.written)}"
        source = f"as the {counted(self.measured, 'finished run')} looked at" if self.measured else "at least"
        yield f"once they have run: {_words(self.left)} ({source})"
        unknown = "not known until a run of the sweep has finished"
        yield f"checkpoints: {_words(self.checkpoints) if self.checkpoints else unknown}"
        entries = "" if self.room.entries is None else f" and room for {self.room.entries} files and folders"
        yield f"free there: {readable_size(self.room.size)}{entries}"
        for problem in self.problems:
            yield f"it would not fit: {problem}"


def estimate_room(directory: SweepDirectory, plan: SweepPlan) -> Estimate:
    """What a planned sweep will take; its time hardly depends on the number of runs.

    Args:
        directory: the folder of the sweep, which may not be there yet.
        plan: for that folder.

    Raises:
        OSError: the file system cannot be asked.
    """
    place = _existing(directory.path)
    about = os.statvfs(place)
    block = about.f_frsize
    finished = [run for name in plan.names if (run := directory.run(name)).result_file.exists()]
    count = len(plan.names) - len(finished)
    measured = [_measure(run, block) for run in _spread(finished, _MEASURED_SAMPLE)]
    left = _mean([rest for rest, _ in measured]) if measured else _least(block)
    return Estimate(
        code=_code(directory, plan, block),
        written=_mean([_written(name, plan, block) for name in _spread(plan.new, _WRITTEN_SAMPLE)], len(plan.new)),
        left=left.times(count),
        checkpoints=_mean([checkpoints for _, checkpoints in measured]).times(count) if measured else None,
        runs=count,
        measured=len(measured),
        room=Room(size=about.f_bavail * about.f_frsize, entries=about.f_favail if about.f_files else None),
    )


def _words(takes: Takes) -> str:
    folders = f" in {takes.folders} folders" if takes.folders > 1 else ""
    return f"{counted(takes.files, 'file')}{folders}, {readable_size(takes.size)}"


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _code(directory: SweepDirectory, plan: SweepPlan, block: int) -> Takes | None:
    record = plan.code.record
    if record.files is None or record.size is None:
        return None
    if record.tree is not None and (directory.path / CODE / record.tree).is_dir():
        return Takes()
    return Takes(files=record.files, folders=1, size=record.size + record.files * block)


def _written(name: str, plan: SweepPlan, block: int) -> Takes:
    """What `write_plan` writes for a run."""
    data = plan.configs[name].to_dict()
    record = json.dumps(plan.code.record.to_dict(), indent=2)
    texts = [json.dumps(data, indent=2), dump_yaml(data), plan.script(name), record]
    sizes = [len(text.encode()) for text in texts] + ([len(plan.code.diff)] if plan.code.diff else [])
    size = sum(_on_disk(size, block) for size in sizes) + _RUN_FOLDERS * block
    return Takes(files=len(sizes), folders=_RUN_FOLDERS, size=size)


def _least(block: int) -> Takes:
    return Takes(files=_LEFT_FILES, folders=_LEFT_FOLDERS, size=(_LEFT_FILES + _LEFT_FOLDERS) * block)


def _measure(run: RunDirectory, block: int) -> tuple[Takes, Takes]:
    """What a run has left beside what was there before, and its checkpoints."""
    before = {run.config_json, run.config_yaml, run.job_script, run.code_file, run.code_diff}
    before |= {run.attempts_dir, run.logs_dir}
    shelf = run.checkpoints_dir
    rest, checkpoints = Takes(), Takes()
    for path, is_folder, size in islice(_entries(run.path), _ENTRIES):
        if path in before:
            continue
        takes = Takes(files=not is_folder, folders=is_folder, size=block if is_folder else _on_disk(size, block))
        if shelf in path.parents:
            checkpoints += takes
        else:
            rest += takes
    return rest, checkpoints


def _entries(folder: Path) -> Iterator[tuple[Path, bool, int]]:
    for place, folders, files in os.walk(folder):
        for name in folders:
            yield Path(place, name), True, 0
        for name in files:
            path = Path(place, name)
            try:
                yield path, False, path.lstat().st_size
            except FileNotFoundError:  # a run that is done again
                continue


def _on_disk(size: int, block: int) -> int:
    return -(-size // block) * block


def _mean(samples: Sequence[Takes], count: int = 1) -> Takes:
    """What so many take if some of them take that."""
    return _sum(samples).times(count / len(samples)) if samples else Takes()


def _sum(samples: Iterable[Takes]) -> Takes:
    return sum(samples, Takes())


def _spread(items: Sequence[_T], most: int) -> list[_T]:
    """Some of them, from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[index * (len(items) - 1) // (most - 1)] for index in range(most)]
