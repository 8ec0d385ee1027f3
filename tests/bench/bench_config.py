"""Loading and composing an experiment of 60 lines: against parsing its YAML, and beside OmegaConf and Hydra."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from configs.peers import peers
from measure import Fact, Row, compare
from mtf_config import ConfigurationManager

EXPERIMENT = """\
experiment_name: bench
description: a complete experiment
tags: [bench, baseline]
seed: 42
model:
  name: transformer
  hidden_size: 512
  ffn_size: ${model.hidden_size}
  num_layers: 6
  num_heads: 8
  dropout: 0.1
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


def rows(samples: int) -> Iterator[Row | Fact]:
    """The parsers alone, our steps against the fastest of them, and the peers against the whole of our work.

    The whole is to read, to compose with 5 overrides, to resolve references and to validate; peers do all but the last.
    They are measured where `omegaconf` and `hydra-core` are installed, as in the environment `peers`.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiment.yaml"
        file.write_text(EXPERIMENT, encoding="utf-8")
        manager = ConfigurationManager(folder, folder)

        def parse(loader: Any = LOADER) -> object:
            return yaml.load(file.read_bytes(), Loader=loader)

        def whole() -> object:
            return ConfigurationManager(folder, folder).compose_configs(file, parameter_overrides=OVERRIDES)

        calls: dict[str, Callable[[], object]] = {
            "yaml.SafeLoader": lambda: parse(yaml.SafeLoader),
            "load_config, unchecked": lambda: manager.load_config(file, validate=False, use_cache=False),
            "load_config": lambda: manager.load_config(file, use_cache=False),
            "load_config, again": lambda: manager.load_config(file),
            "compose_configs, 5 overrides": whole,
            "compose_configs, again": lambda: manager.compose_configs(file, parameter_overrides=OVERRIDES),
        }
        reference = f"{LOADER.__name__}, {CALLS} times"
        for name, call in calls.items():
            yield compare(name, times(call), reference, times(parse), samples)
        for name, peer in peers(file, OVERRIDES):
            if peer is None:
                yield Fact(name, "not installed")
            else:
                yield compare(name, times(peer), "compose_configs", times(whole), samples)
                yield compare(name, times(peer), reference, times(parse), samples)


def times(call: Callable[[], object]) -> Callable[[], None]:
    """The call so many times that one sample is long enough."""

    def repeated() -> None:
        for _ in range(CALLS):
            call()

    return repeated
