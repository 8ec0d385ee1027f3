"""What can be said of checkpoints from outside a run: where they are, how two differ, their weights alone."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtf_trainer.averages import read_averaged_model
from mtf_trainer.checkpoint import directory as folders
from mtf_trainer.checkpoint.dtypes import as_bytes, dtype_name
from mtf_trainer.checkpoint.folder import Checkpoint, read_checkpoint, read_model
from mtf_trainer.checkpoint.manifest import MANIFEST, read_manifest
from mtf_trainer.checkpoint.tensorfile import write_plain_tensors
from mtf_trainer.errors import CheckpointError

__all__ = [
    "Difference",
    "best_checkpoint",
    "compare_checkpoints",
    "export_weights",
    "find_checkpoints",
    "one_checkpoint",
]

_SAFETENSORS = (".safetensors",)
_STATE_DICTS = (".pt", ".pth", ".bin")


def find_checkpoints(path: Path) -> list[Path]:
    """The checkpoints at a path, oldest first: itself, those inside, or those of the run directory that it is.

    Raises:
        CheckpointError: there is no such folder.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: there is no such folder", path=path)
    if (path / MANIFEST).exists() or path.name.startswith("ckpt-"):
        return [path]
    found = folders.published(path)
    inner = path / "checkpoints"
    return found if found or not inner.is_dir() else folders.published(inner)


def one_checkpoint(path: Path) -> Path:
    """The checkpoint at a path, or the newest one there.

    Raises:
        CheckpointError: there is none.
    """
    found = find_checkpoints(path)
    if not found:
        raise CheckpointError(f"{path}: no checkpoints there", path=path)
    return found[-1]


def best_checkpoint(path: str | Path) -> Path:
    """The checkpoint with the best value of `checkpoint.monitor` among those that were kept; of equal ones the oldest.

    Args:
        path: of a run, or of a folder of checkpoints.

    Raises:
        CheckpointError: there is none, or no validation came before any of them.
    """
    folder = Path(path)
    newest = read_checkpoint(one_checkpoint(folder), wanted=lambda section: False)
    ranked = [(read_manifest(each).metric, each) for each in find_checkpoints(folder)]
    best = newest.resume.get("best")
    distances = [
        (abs(metric - best["value"]), each)  # what was kept is no better than the best of all, whichever way that is
        for metric, each in ranked
        if best is not None and metric is not None and math.isfinite(metric)
    ]
    if not distances:
        raise CheckpointError(f"{folder}: none of its checkpoints has been validated, so none is the best", path=folder)
    return min(distances)[1]


@dataclass(frozen=True)
class Difference:
    """One place where two checkpoints differ.

    Attributes:
        place: the section and the keys that lead there.
        text: how they differ.
        max_abs: the largest difference of two elements, for numeric tensors of one shape; None elsewhere.
    """

    place: str
    text: str
    max_abs: float | None = None


def compare_checkpoints(left: Checkpoint, right: Checkpoint) -> Iterator[Difference]:
    """Every difference in the states of two checkpoints; tensors are compared bit by bit."""
    yield from _compare(left.resume, right.resume, "resume")
    for section in {**left.sections, **right.sections}:
        if section not in left.sections or section not in right.sections:
            yield Difference(section, f"only in {(left if section in left.sections else right).path.name}")
        else:
            yield from _compare(left.sections[section], right.sections[section], section)


def _compare(left: Any, right: Any, place: str) -> Iterator[Difference]:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for key in {**left, **right}:
            inner = f"{place}.{key}"
            if key not in left or key not in right:
                yield Difference(inner, f"only in the {'first' if key in left else 'second'}")
            else:
                yield from _compare(left[key], right[key], inner)
    elif isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        yield from _compare_tensors(left, right, place)
    elif isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        if (left.dtype, left.shape, left.tobytes()) != (right.dtype, right.shape, right.tobytes()):
            yield Difference(place, "arrays differ")
    elif isinstance(left, list | tuple) and type(left) is type(right) and len(left) == len(right):
        for index, pair in enumerate(zip(left, right, strict=True)):
            yield from _compare(*pair, f"{place}.{index}")
    elif type(left) is not type(right) or repr(left) != repr(right):  # by repr, for NaN equals itself here
        yield Difference(place, f"{left!r:.60} and {right!r:.60}")


def _compare_tensors(left: torch.Tensor, right: torch.Tensor, place: str) -> Iterator[Difference]:
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        yield Difference(place, f"{_kind(left)} and {_kind(right)}")
        return
    if torch.equal(as_bytes(left), as_bytes(right)):
        return
    kind = torch.complex128 if left.is_complex() else torch.float64
    distance = (left.to(kind) - right.to(kind)).abs()
    size = as_bytes(left).reshape(max(1, left.numel()), -1).ne(as_bytes(right).reshape(max(1, left.numel()), -1))
    changed = int(size.any(dim=1).sum())
    largest = float(distance.nan_to_num(nan=float("inf")).max())
    text = f"{changed} of {left.numel()} elements of {_kind(left)} differ, by {largest:.6g} at most"
    yield Difference(place, text, largest if np.isfinite(largest) else None)


def _kind(tensor: torch.Tensor) -> str:
    return f"{dtype_name(tensor.dtype)}{list(tensor.shape)}"


def export_weights(path: Path, output: Path, *, averaged: bool = False) -> tuple[int, int]:
    """Write the model of a checkpoint to a file that needs nothing of this package.

    Args:
        path: the checkpoint; its model is verified.
        output: a new file. `.safetensors` gets plain safetensors, tied weights once for each of their names; `.pt`,
            `.pth` and `.bin` get a state dict for `torch.load(weights_only=True)`.
        averaged: write the averages that an `EMA` callback has left in the checkpoint.

    Returns:
        How many tensors were written, and their size in bytes.

    Raises:
        CheckpointError: the checkpoint cannot be read or has no averages, the file exists, or its name has another
            ending.
    """
    if output.exists():
        raise CheckpointError(f"{output} exists already: name a new file", path=output)
    if output.suffix not in (*_SAFETENSORS, *_STATE_DICTS):
        endings = ", ".join((*_SAFETENSORS, *_STATE_DICTS))
        raise CheckpointError(f"{output}: expected a name that ends with one of {endings}", path=output)
    state = read_averaged_model(path) if averaged else read_model(path)
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}.tmp")
    try:
        if output.suffix in _SAFETENSORS:
            write_plain_tensors(temporary, tensors, {})
        else:
            torch.save(state, temporary)
        temporary.rename(output)
    finally:
        temporary.unlink(missing_ok=True)
    return len(tensors), sum(tensor.nbytes for tensor in tensors.values())
