"""Loading and composing a complete experiment, against parsing its YAML alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from measure import Row, compare
from mtf_config import ConfigurationManager

EXPERIMENT = """\
experiment_name: bench
description: a complete experiment
tags: [bench, baseline]
seed: 42
model: {name: transformer, hidden_size: 512, num_layers: 6, num_heads: 8, dropout: 0.1}
training:
  epochs: 100
  batch_size: 32
  learning_rate: 0.001
  gradient_accumulation_steps: 1
  max_grad_norm: 1.0
data:
  dataset_name: digits
  train_split: train
  val_split: validation
  test_split: test
  preprocessing: {}
optimizer:
  name: adamw
  weight_decay: 0.01
  betas: [0.9, 0.999]
  eps: 1e-8
scheduler:
  name: cosine
  warmup_steps: 1000
  min_lr: 1e-6
slurm:
  time_limit: 24:00:00
  nodes: 1
  ntasks_per_node: 1
  cpus_per_task: 4
  mem: 32G
  gres: gpu:1
  partition: gpu
logging:
  log_level: INFO
  log_every_n_steps: 10
checkpoint:
  save_every_n_epochs: 5
  save_top_k: 3
  monitor: val_loss
  mode: min
  checkpoint_dir: checkpoints
preemption:
  timeout_minutes: 5
  grace_period_seconds: 60
  max_preemptions: 3
performance:
  num_workers: 4
  pin_memory: true
  prefetch_factor: 2
  persistent_workers: true
"""
OVERRIDES = {
    "training.epochs": 3,
    "training.learning_rate": 0.01,
    "model.hidden_size": 256,
    "optimizer.weight_decay": 0.0,
    "seed": 7,
}
# The C parser is the fair reference; it is absent where PyYAML was built without libyaml.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CALLS = 20  # one call is too short for a stable sample


def rows(samples: int) -> Iterator[Row]:
    """Loading, checked and unchecked, and composing with five overrides."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiment.yaml"
        file.write_text(EXPERIMENT, encoding="utf-8")
        manager = ConfigurationManager(project_root=Path(folder), config_dir=Path(folder))

        def parse() -> None:
            for _ in range(CALLS):
                yaml.load(file.read_bytes(), Loader=LOADER)

        def load(validate: bool, use_cache: bool) -> None:
            for _ in range(CALLS):
                manager.load_config(file, validate=validate, use_cache=use_cache)

        def compose() -> None:
            for _ in range(CALLS):
                manager.compose_configs(file, parameter_overrides=OVERRIDES)

        reference = f"{LOADER.__name__}, {CALLS} times"
        yield compare("load_config, unchecked", lambda: load(False, False), reference, parse, samples)
        yield compare("load_config", lambda: load(True, False), reference, parse, samples)
        yield compare("load_config, cached", lambda: load(True, True), reference, parse, samples)
        yield compare("compose_configs, 5 overrides", compose, reference, parse, samples)
