"""Search a grid on this machine: nine trainings on handwritten digits, two at a time, and which of them is the best.

    pip install model-training-framework scikit-learn
    python examples/grid_search.py

Called again, it does what is missing and nothing else; with other values it adds their runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model_training_framework import ModelTrainingFramework
from model_training_framework.config import ExecutionMode, NamingStrategy, ParameterGrid

PROJECT = Path(__file__).resolve().parent / "compute_node_only"  # train.py and its configuration


def build_grids() -> list[ParameterGrid]:
    """Every width with every rate, and then some: a search is the union of its grids."""
    size = ParameterGrid("size", "width of the hidden layer and learning rate")
    size.add_parameter("model.hidden_size", [16, 64, 256])
    size.add_parameter("training.learning_rate", [0.0005, 0.005])
    regularisation = ParameterGrid("regularisation", "dropout, and a weight decay that fits it")
    regularisation.add_linked({"model.dropout": [0.0, 0.3, 0.6], "optimizer.weight_decay": [0.1, 0.01, 0.0]})
    return [size, regularisation]


def main() -> int:
    """Run the search, show the best five runs and write a table of all; 0 if every run finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("experiments/digits"), help="the folder of the sweep")
    output = parser.parse_args().output

    framework = ModelTrainingFramework(PROJECT, config_dir=PROJECT)
    grids = build_grids()
    print(f"{sum(grid.get_parameter_count() for grid in grids)} runs in {output}")
    result = framework.run_grid_search(
        grids,
        base_config_path="config.json",
        execution_mode=ExecutionMode.LOCAL,
        output_dir=output.resolve(),
        max_concurrent_jobs=2,
        naming_strategy=NamingStrategy.DESCRIPTIVE,
    )
    for name, reason in result.failures().items():
        print(f"{name}: {reason}")
    for place, run in enumerate(result.leaderboard("val_accuracy", "max", top=5), 1):
        print(f"{place}. {run.metrics['val_accuracy']:.4f}  {run.name}")
    print(f"all of them: {result.to_csv(output / 'results.csv')}")
    return 0 if result.is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
