"""Weights without the run that made them: begin from those of a checkpoint or of a safetensors file."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mtf_trainer.averages import read_averaged_model
from mtf_trainer.checkpoint.faults import DamagedCheckpointError
from mtf_trainer.checkpoint.folder import read_model
from mtf_trainer.checkpoint.manifest import MANIFEST
from mtf_trainer.checkpoint.tensorfile import read_plain_tensors
from mtf_trainer.errors import CheckpointError
from mtf_trainer.preparation import plain_state

__all__ = ["KeyMapping", "WeightsReport", "load_weights"]

KeyMapping = Mapping[str, str] | Callable[[str], str | None]
"""From the names in the file to those in the model: a table of regular expressions and replacements, applied in order
to the beginning of each name, or a function; what is mapped to None is left out."""


@dataclass(frozen=True)
class WeightsReport:
    """What came of loading weights.

    Attributes:
        loaded: names in the model that got their values from the file.
        missing: names in the model that the file has nothing for; they keep their values.
        unexpected: names in the file, as mapped, that the model does not have.
        mismatched: names that both have in different shapes, with both shapes; they keep their values too.
        left_out: names in the file that the mapping leaves out.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether the file and the model fit each other name by name."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} loaded"]
        for title in ("missing", "unexpected", "mismatched", "left_out"):
            if names := getattr(self, title):
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                lines.append(f"{len(names)} {title.replace('_', ' ')}: {', '.join(names[:5])}{more}")
        return "; ".join(lines)


def load_weights(
    model: nn.Module,
    path: str | Path,
    mapping: KeyMapping | None = None,
    *,
    strict: bool = True,
    averaged: bool = False,
) -> WeightsReport:
    """Give a model the weights of a checkpoint or of a safetensors file; nothing else of the run is taken over.

    Values are converted to the model's dtype and device. Those of a checkpoint are verified first.

    Args:
        model: changed only if nothing is wrong.
        path: a checkpoint's folder, or a file in the safetensors format.
        mapping: how names are translated; by default they are the same.
        strict: whether a name that only one side has, or has in another shape, is an error.
        averaged: take the average that an `EMA` callback has left in the checkpoint, where there is one of a weight.

    Returns:
        Which names were loaded and which were not.

    Raises:
        CheckpointError: the file cannot be read, has no averages, two names are mapped to one, or, when strict, the
            names do not fit.
    """
    source = Path(path)
    saved, left_out = _translate(_read(source, averaged=averaged), mapping, source)
    current = {name: tensor for name, tensor in plain_state(model).items() if isinstance(tensor, torch.Tensor)}
    fitting = {name for name in saved if name in current and saved[name].shape == current[name].shape}
    report = WeightsReport(
        loaded=tuple(name for name in current if name in fitting),
        missing=tuple(name for name in current if name not in saved),
        unexpected=tuple(name for name in saved if name not in current),
        mismatched=tuple(
            f"{name} ({list(saved[name].shape)}, here {list(tensor.shape)})"
            for name, tensor in current.items()
            if name in saved and name not in fitting
        ),
        left_out=left_out,
    )
    if strict and not report.complete:
        raise CheckpointError(
            f"{source} does not fit the model: {report}; give a mapping, or strict=False to load what fits", path=source
        )
    if not report.loaded:
        raise CheckpointError(f"{source}: not one name fits the model: {report}; give a mapping", path=source)
    with torch.no_grad():
        for name in report.loaded:
            current[name].copy_(saved[name])
    return report


def _read(source: Path, *, averaged: bool) -> dict[str, torch.Tensor]:
    if not source.is_dir():
        if averaged:
            raise CheckpointError(f"{source} is no checkpoint, which alone has averages beside weights", path=source)
        return _read_file(source)
    if not (source / MANIFEST).exists():
        raise CheckpointError(
            f"{source} is not a checkpoint: it has no {MANIFEST}; best_checkpoint() and `mtf checkpoint ls` find those "
            "of a run",
            path=source,
        )
    state = read_averaged_model(source) if averaged else read_model(source)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _read_file(source: Path) -> dict[str, torch.Tensor]:
    try:
        return read_plain_tensors(source)
    except DamagedCheckpointError as error:
        if not zipfile.is_zipfile(source):
            raise
        raise CheckpointError(
            f"{source} looks like a file of torch.save, not one in the safetensors format; load it with "
            "torch.load(..., weights_only=True) and save it with safetensors.torch.save_file",
            path=source,
        ) from error


def _translate(
    saved: Mapping[str, torch.Tensor], mapping: KeyMapping | None, source: Path
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    result: dict[str, torch.Tensor] = {}
    origin: dict[str, str] = {}
    left_out = []
    for name, tensor in saved.items():
        target = _target(name, mapping)
        if target is None:
            left_out.append(name)
            continue
        if target in result:
            both = f"{origin[target]!r} and {name!r}"
            raise CheckpointError(f"{source}: {both} are mapped to the same name {target!r}", path=source)
        result[target], origin[target] = tensor, name
    return result, tuple(left_out)


def _target(name: str, mapping: KeyMapping | None) -> str | None:
    if mapping is None:
        return name
    if not isinstance(mapping, Mapping):
        return mapping(name)
    for pattern, replacement in mapping.items():
        name = re.sub(f"^(?:{pattern})", replacement, name)
    return name
