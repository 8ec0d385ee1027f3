"""The configuration of a run, for blocks of the documentation that read one: `configured FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mtf_config import ExperimentConfig

EXPERIMENT = {
    "experiment_name": "sums",
    "model": {"name": "mlp", "hidden_size": 16},
    "training": {"epochs": 2, "batch_size": 32, "learning_rate": 0.01},
    "data": {"dataset_name": "sums", "samples": 256},
    "optimizer": {"name": "adamw"},
    "scheduler": {"name": "cosine", "warmup_steps": 4},
}

Path(sys.argv[1]).write_text(json.dumps(ExperimentConfig.from_dict(EXPERIMENT).to_dict()))
