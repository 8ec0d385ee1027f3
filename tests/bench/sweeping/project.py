"""A project with a small training, a sweep over it, and what there is to compare of its runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mtf_config import ParameterGrid
from mtf_utils.rundir import WALL_CLOCK_FIELDS, RunDirectory, read_metrics

__all__ = ["base", "grid", "make_project", "outcome_of"]


def make_project(root: Path, script: Path | None = None) -> Path:
    """The project's folder, with its training script; None is the one beside this module."""
    root.mkdir(parents=True)
    text = (script or Path(__file__).with_name("training.py")).read_text("utf-8")
    (root / "train.py").write_text(text, encoding="utf-8")
    return root


def base(*, pace_s: float = 0.0) -> dict[str, Any]:
    """The configuration that every run starts from; a training has 24 steps."""
    return {
        "experiment_name": "regression",
        "model": {"name": "mlp", "hidden_size": 8},
        "training": {"epochs": 4, "batch_size": 16},
        "data": {"dataset_name": "sines"},
        "optimizer": {"name": "adamw"},
        "scheduler": {"name": "cosine", "warmup_steps": 2},
        "checkpoint": {"save_every_n_steps": 4, "monitor": "val_loss"},
        "logging": {"log_every_n_steps": 2},
        "custom_params": {"pace_s": pace_s},
        "seed": 7,
    }


def grid(runs: int) -> ParameterGrid:
    """A grid of so many learning rates."""
    rates = ParameterGrid("rates")
    rates.add_parameter("training.learning_rate", [0.01 / (1 + number) for number in range(runs)])
    return rates


def outcome_of(run: RunDirectory) -> dict[str, Any]:
    """What a run came to, with no clock in it: its result, its journal, and the final weights; empty if it did not."""
    result = run.result()
    if result is None:
        return {}
    records = [
        {key: value for key, value in record.items() if key not in WALL_CLOCK_FIELDS}
        for record in read_metrics(run.metrics_file)
    ]
    files = sorted((run.path / result.checkpoint).rglob("*.safetensors"))
    return {
        "result": {key: getattr(result, key) for key in ("epoch", "global_step", "metrics", "best", "seed")},
        "journal": [json.dumps(record) for record in records],
        "weights": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    }
