"""One checkpoint: a snapshot of a run's state, the folder it becomes, and the verified way back."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtf_trainer.checkpoint.deadline import Deadline
from mtf_trainer.checkpoint.decoding import decode
from mtf_trainer.checkpoint.encoding import encode
from mtf_trainer.checkpoint.faults import DamagedCheckpointError, damaged
from mtf_trainer.checkpoint.files import FileEntry, read_member
from mtf_trainer.checkpoint.manifest import (
    MANIFEST,
    RESUME,
    Kind,
    Manifest,
    check_section,
    parse_manifest,
    read_manifest,
    section_files,
)
from mtf_trainer.checkpoint.pieces import is_piece, joined, whole
from mtf_trainer.checkpoint.strictjson import dumps, loads
from mtf_trainer.checkpoint.tensorfile import read_tensors, write_tensors
from mtf_trainer.checkpoint.writing import write_member
from mtf_trainer.errors import CheckpointError
from mtf_utils.atomic import fsync_directory
from mtf_utils.rundir import now

__all__ = [
    "Checkpoint",
    "EncodedSnapshot",
    "Part",
    "Snapshot",
    "encode_snapshot",
    "read_checkpoint",
    "read_model",
    "read_section",
    "write_checkpoint",
    "write_sections",
]

Tensors = Mapping[str, torch.Tensor]


@dataclass
class Snapshot:
    """What goes into a checkpoint.

    Attributes:
        resume: where the run stands, as plain data; people read it too.
        sections: the parts of the state by name; each is nested state with tensors.
        epoch: the epoch that the run is in, from 0.
        global_step: optimizer steps taken.
        metric: the value of `checkpoint.monitor` if this state was validated.
        fingerprint: what has to agree for a run to continue from this state, as plain data.
        steady: those of the tensors that nothing writes to before `CheckpointStore.join_copies` was called: parameters
            and the optimizer's state. A save in the background copies them while training goes on.
        refers_to: makes durable what the checkpoint counts on, such as the journal up to here; called by the writer's
            thread before anything is published.
    """

    resume: dict[str, Any]
    sections: dict[str, Any]
    epoch: int
    global_step: int
    metric: float | None = None
    fingerprint: dict[str, Any] = field(default_factory=dict)
    steady: Sequence[torch.Tensor] = ()
    refers_to: Callable[[], None] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified to the last byte.

    Attributes:
        path: its folder.
        manifest: what it says of itself.
        resume: where the run stood.
        sections: the parts of the state by name; tensors are on the CPU.
    """

    path: Path
    manifest: Manifest
    resume: dict[str, Any]
    sections: dict[str, Any]

    @property
    def kind(self) -> Kind:
        """Why it was made."""
        return self.manifest.kind

    @property
    def epoch(self) -> int:
        """The epoch that the run was in, from 0."""
        return self.manifest.epoch

    @property
    def global_step(self) -> int:
        """Optimizer steps taken."""
        return self.manifest.global_step

    @property
    def metric(self) -> float | None:
        """The value of the monitored metric, if this state was validated."""
        return self.manifest.metric

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What has to agree for a run to continue from it."""
        return self.manifest.fingerprint


@dataclass(frozen=True)
class EncodedSnapshot:
    """A snapshot of which only the tensors are still shared with the run.

    Attributes:
        resume: where the run stands, as a JSON tree.
        trees: the JSON tree of each section.
        tensors: the tensors of each section by name.
        epoch: as in `Snapshot`, like the rest.
    """

    resume: Any
    trees: dict[str, Any]
    tensors: dict[str, dict[str, torch.Tensor]]
    epoch: int
    global_step: int
    metric: float | None
    fingerprint: dict[str, Any]

    def with_tensors(self, tensors: dict[str, dict[str, torch.Tensor]]) -> EncodedSnapshot:
        """The same with other tensors."""
        return replace(self, tensors=tensors)

    @property
    def nbytes(self) -> int:
        """The size of all tensors."""
        return sum(tensor.nbytes for tensors in self.tensors.values() for tensor in tensors.values())


@dataclass(frozen=True)
class Part:
    """What one of several processes added to a checkpoint.

    Attributes:
        sections: their names.
        files: what they are made of.
    """

    sections: tuple[str, ...]
    files: dict[str, FileEntry]


def encode_snapshot(snapshot: Snapshot) -> EncodedSnapshot:
    """Bring a snapshot into the form in which it is written.

    Raises:
        CheckpointError: something in it cannot be stored; the message says where and what to do.
    """
    trees, tensors = {}, {}
    for section, state in snapshot.sections.items():
        try:
            check_section(section)
        except ValueError as error:
            raise CheckpointError(str(error)) from None
        trees[section], tensors[section] = encode(state, where=section)
    return EncodedSnapshot(
        resume=_plain(snapshot.resume, "resume"),
        trees=trees,
        tensors=tensors,
        epoch=int(snapshot.epoch),
        global_step=int(snapshot.global_step),
        metric=None if snapshot.metric is None else float(snapshot.metric),
        fingerprint=decode(_plain(snapshot.fingerprint, "fingerprint"), {}),
    )


def _plain(value: dict[str, Any], where: str) -> Any:
    tree, tensors = encode(value, where=where)
    if tensors:
        raise CheckpointError(f"{where} must be plain data, but {next(iter(tensors))!r} in it is a tensor or an array")
    return tree


def _aliases(tree: Any) -> dict[str, str]:
    """The keys of a flat state dict whose tensor is stored under another key's name."""
    if not isinstance(tree, dict):
        return {}
    named = {key: item["$tensor"] for key, item in tree.items() if isinstance(item, dict) and "$tensor" in item}
    return {key: name for key, name in named.items() if key != name}


def write_checkpoint(
    folder: Path,
    snapshot: Snapshot | EncodedSnapshot,
    *,
    kind: Kind,
    run_id: str,
    sequence: int = 0,
    pinned: bool = False,
    deadline: Deadline | None = None,
    others: Callable[[], Sequence[Part]] = tuple,
) -> Manifest:
    """Write a checkpoint into an existing empty folder; every file is durable on return.

    Args:
        folder: where to.
        snapshot: what to write.
        kind: why.
        run_id: the run that it belongs to.
        sequence: its place among the checkpoints of one directory.
        pinned: whether retention leaves it alone.
        deadline: when to give up.
        others: waits for what other processes write into the folder.

    Raises:
        CheckpointError: the state cannot be stored, or the files cannot be written.
    """
    deadline = deadline or Deadline(None, clock=time.monotonic)
    encoded = encode_snapshot(snapshot) if isinstance(snapshot, Snapshot) else snapshot
    files = write_sections(folder, encoded, deadline)
    files[RESUME] = write_member(folder / RESUME, dumps(encoded.resume), deadline)
    parts = others()
    for part in parts:
        files |= part.files
    manifest = Manifest(
        kind=kind,
        sequence=sequence,
        global_step=encoded.global_step,
        epoch=encoded.epoch,
        metric=encoded.metric,
        run_id=run_id,
        pinned=pinned,
        created_at=now(),
        sections=(*encoded.tensors, *(name for part in parts for name in part.sections)),
        files=files,
        versions=_versions(),
        fingerprint=encoded.fingerprint,
    )
    data = manifest.to_bytes()
    parse_manifest(folder / MANIFEST, data)  # what could not be read back must not be written
    write_member(folder / MANIFEST, data, deadline)
    fsync_directory(folder)
    return manifest


def write_sections(folder: Path, encoded: EncodedSnapshot, deadline: Deadline) -> dict[str, FileEntry]:
    """Write the files of a snapshot's sections; every one is durable on return.

    Raises:
        CheckpointError: they cannot be written.
    """
    files: dict[str, FileEntry] = {}
    for section, tensors in encoded.tensors.items():
        tree_name, tensor_name = section_files(section)
        if tensors:
            metadata = {"format": "pt"} | _aliases(encoded.trees[section])
            files[tensor_name] = write_tensors(folder / tensor_name, tensors, metadata, deadline)
        files[tree_name] = write_member(folder / tree_name, dumps(encoded.trees[section]), deadline)
    return files


@functools.cache
def _versions() -> dict[str, str]:
    try:
        own = importlib.metadata.version("mtf-trainer")
    except importlib.metadata.PackageNotFoundError:
        own = "not installed"  # run from a source tree
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "mtf-trainer": own,
    }


def read_checkpoint(path: Path, wanted: Callable[[str], bool] | None = None) -> Checkpoint:
    """Read a checkpoint and verify every byte of what is read.

    Args:
        path: its folder.
        wanted: which sections to read, by name; by default all.

    Raises:
        DamagedCheckpointError: it is incomplete or altered; the message names the file and the fault.
        CheckpointError: it cannot be read, or its format is that of a later release.
    """
    manifest = read_manifest(path)
    resume = _tree(path, RESUME, manifest.files, {})
    if not isinstance(resume, dict):
        raise damaged(path / RESUME, "is not a JSON object")
    sections = {
        section: _section(path, manifest, section) for section in manifest.sections if wanted is None or wanted(section)
    }
    return Checkpoint(path, manifest, resume, sections)


def read_section(path: Path, section: str) -> Any:
    """Read and verify one section of a checkpoint; the files of others are not looked at.

    Raises:
        DamagedCheckpointError: it is incomplete or altered.
        CheckpointError: it cannot be read, or there is no such section.
    """
    manifest = read_manifest(path)
    if section not in manifest.sections:
        known = ", ".join(manifest.sections)
        raise CheckpointError(f"{path} has no section {section!r}; it has: {known}", path=path)
    return _section(path, manifest, section)


def read_model(path: Path) -> dict[str, Any]:
    """Read and verify the model of a checkpoint, put together if it was divided among ranks.

    Raises:
        DamagedCheckpointError: it is incomplete or altered.
        CheckpointError: it cannot be read.
    """
    model: dict[str, Any] = read_section(path, "model")
    if not any(map(is_piece, model.values())):
        return model
    ranks = [name for name in read_manifest(path).sections if name.startswith("rank_")]
    others = [read_section(path, f"rank_{rank}")["model"] for rank in range(1, len(ranks) + 1)]
    together: dict[str, Any] = whole(joined([model, *others]))
    return together


def _section(path: Path, manifest: Manifest, section: str) -> Any:
    tree_file, tensor_file = section_files(section)
    entry = manifest.files.get(tensor_file)
    tensors = read_tensors(path / tensor_file, entry) if entry else {}
    return _tree(path, tree_file, manifest.files, tensors)


def _tree(folder: Path, name: str, files: Mapping[str, FileEntry], tensors: Tensors) -> Any:
    data = read_member(folder / name, files[name])
    try:
        return decode(loads(data), tensors)
    except (ValueError, DamagedCheckpointError) as error:
        raise damaged(folder / name, f"does not hold valid state: {error}") from error
