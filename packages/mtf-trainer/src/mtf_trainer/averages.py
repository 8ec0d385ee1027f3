"""The averaged weights that `EMA` keeps in a checkpoint, read without the run that made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtf_trainer.checkpoint.folder import read_model, read_section
from mtf_trainer.checkpoint.manifest import read_manifest
from mtf_trainer.checkpoint.pieces import joined, whole
from mtf_trainer.errors import CheckpointError

__all__ = ["read_averaged_model"]

KEYS = frozenset({"updates", "weights", "raw"})
"""What the state of an average has, whatever a subclass is called and adds."""


def read_averaged_model(path: Path) -> dict[str, Any]:
    """Read and verify the model of a checkpoint, with averages in place of the weights that have one.

    Of several averages it is that of the callback that was added first. Averages have the dtype of the weights.

    Raises:
        DamagedCheckpointError: it is incomplete or altered.
        CheckpointError: it cannot be read, or holds no averages.
    """
    model, averages = read_model(path), _averages(path)
    if averages is None:
        raise CheckpointError(f"{path} holds no averaged weights: its run had no EMA callback", path=path)
    return {name: averages[name].to(value.dtype) if name in averages else value for name, value in model.items()}


def _averages(path: Path) -> Mapping[str, Any] | None:
    first = _first_average(read_section(path, "training"))
    if first is None:
        return None
    ranks = sum(name.startswith("rank_") for name in read_manifest(path).sections)
    others = [_first_average(read_section(path, f"rank_{rank}")["training"]) for rank in range(1, ranks + 1)]
    together: Mapping[str, Any] = whole(joined([first, *(each for each in others if each is not None)]))
    return together


def _first_average(training: Any) -> dict[str, Any] | None:
    callbacks = training.get("callbacks", ()) if isinstance(training, Mapping) else ()
    states = [item["state"] for item in callbacks]
    return next((state["weights"] for state in states if isinstance(state, Mapping) and state.keys() >= KEYS), None)
