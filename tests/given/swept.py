"""A sweep that is over, for blocks of the documentation that begin where somebody has one: `swept FOLDER`.

Its runs are named after their learning rate; the last one has failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mtf_config import ExecutionMode, NamingStrategy, ParameterGridSearch
from mtf_slurm import SLURMLauncher

TRAIN = """
import json, os, pathlib, sys
rate = json.loads(pathlib.Path(os.environ["MTF_CONFIG"]).read_text())["training"]["learning_rate"]
record = {"epoch": 1, "step": 1, "val_loss": rate}
pathlib.Path(os.environ["MTF_RUN_DIR"], "metrics.jsonl").write_text(json.dumps(record) + "\\n")
sys.exit(rate > 0.5)
"""

Path("train.py").write_text(TRAIN)
base = {
    "experiment_name": "digits",
    "model": {"name": "m"},
    "data": {"dataset_name": "d"},
    "optimizer": {"name": "o"},
    "checkpoint": {"monitor": "val_loss"},
}
search = ParameterGridSearch(base)
search.set_naming_strategy(NamingStrategy.DESCRIPTIVE)
search.create_grid("rates").add_parameter("training.learning_rate", [0.1, 0.01, 0.001, 1.0])
SLURMLauncher(None, "experiments", project_root=".").submit_sweep(search, sys.argv[1], ExecutionMode.LOCAL, 2)
