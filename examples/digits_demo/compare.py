"""Compares what two runs left, bit for bit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from mtf_trainer.checkpoint import Checkpoint, read_checkpoint
from mtf_utils.rundir import WALL_CLOCK_FIELDS, RunDirectory, read_metrics


@dataclass(frozen=True)
class Part:
    """One compared part; `difference` names the first one found."""

    what: str
    identical: bool
    difference: str = ""


@dataclass(frozen=True)
class Comparison:
    """Everything that was compared of a pair of runs."""

    parts: list[Part]

    @property
    def identical(self) -> bool:
        """Whether every part is."""
        return all(part.identical for part in self.parts)


def compare_runs(ours: RunDirectory, theirs: RunDirectory) -> Comparison:
    """Compare the final weights, optimizer, random streams, metrics and result of two runs."""
    first, second = final_checkpoint(ours), final_checkpoint(theirs)
    parts = [
        compare("weights", first.sections["model"], second.sections["model"]),
        compare("optimizer state", first.sections["optimizer"], second.sections["optimizer"]),
        compare("scheduler", *(item.sections["training"]["engine"]["scheduler"] for item in (first, second))),
        compare("random streams", *(item.sections["training"]["rng"] for item in (first, second))),
        compare("metrics.jsonl", *([timeless(record) for record in journal(run)] for run in (ours, theirs))),
        compare("result.json", *(final_metrics(run) for run in (ours, theirs))),
    ]
    return Comparison(parts)


def final_checkpoint(run: RunDirectory) -> Checkpoint:
    """The checkpoint that the run's result names, every byte verified."""
    result = run.result()
    if result is None:
        raise SystemExit(f"{run.path} has no result")
    return read_checkpoint(run.path / result.checkpoint)


def final_metrics(run: RunDirectory) -> dict[str, Any]:
    """The numbers of the run's result."""
    result = run.result()
    return {} if result is None else {"metrics": result.metrics, "best": result.best, "steps": result.global_step}


def journal(run: RunDirectory) -> list[dict[str, Any]]:
    """Every record of metrics."""
    return list(read_metrics(run.metrics_file))


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """A record without the fields that tell the time of day."""
    return {key: value for key, value in record.items() if key not in WALL_CLOCK_FIELDS}


def compare(what: str, ours: Any, theirs: Any) -> Part:
    """Compare two nested values; tensors by their bytes."""
    leaves, others = dict(flatten(ours)), dict(flatten(theirs))
    for place in {**leaves, **others}:
        if leaves.get(place) != others.get(place):
            return Part(what, False, place or "value")
    digest = hashlib.sha256(repr(sorted(leaves.items())).encode()).hexdigest()[:8]
    return Part(f"{what}: {len(leaves)} values, sha256 {digest}", True)


def flatten(value: Any, place: str = "") -> list[tuple[str, str]]:
    """Every leaf of a nested value with its place; a tensor as the hash of its bytes."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in flatten(item, f"{place}.{key}" if place else str(key))]
    if isinstance(value, list | tuple):
        return [leaf for index, item in enumerate(value) for leaf in flatten(item, f"{place}[{index}]")]
    if isinstance(value, torch.Tensor):
        data = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return [(place, f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(data).hexdigest()}")]
    return [(place, repr(value))]
