"""A sweep that survives being killed: 8 runs on handwritten digits, two of them disturbed, and the proof.

1. Two grids, 8 runs, 2 at a time, on this machine.
2. While they go, one run gets SIGTERM and another SIGKILL in the middle of an epoch. Both are continued.
3. A leaderboard, and `results.csv`.
4. The two disturbed configurations are trained again, undisturbed, and everything is compared bit for bit.

The exit status is 0 only if the compared pairs are identical. `mtf demo` does the same in a project that it makes; what
disturbs and compares is its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from model_training_framework import ModelTrainingFramework
from model_training_framework.config import ExecutionMode, ExperimentConfig, ParameterGrid
from model_training_framework.slurm import GridSearchResult, SLURMLauncher
from model_training_framework.utils import setup_logging
from mtf_slurm.demo.disturber import SIGNALS, Disturbance, Disturber
from mtf_slurm.demo.proof import Part, compare_runs
from mtf_utils.rundir import RunDirectory, SweepDirectory

HERE = Path(__file__).resolve().parent
METRIC = "val_accuracy"
AT_A_TIME = 2


def build_grids() -> list[ParameterGrid]:
    """Two grids of four runs each."""
    regularisation = ParameterGrid("regularisation", "learning rate and dropout")
    regularisation.add_parameter("training.learning_rate", [0.002, 0.01])
    regularisation.add_parameter("model.dropout", [0.0, 0.3])
    size = ParameterGrid("size", "width of the network and optimizer")
    size.add_parameter("model.channels", [8, 24])
    size.add_parameter("optimizer.name", ["adamw", "nadam"])
    return [regularisation, size]


def new_folder(parent: Path) -> Path:
    """The first folder `1`, `2`, … that does not exist yet."""
    number = 1
    while (parent / str(number)).exists():
        number += 1
    return parent / str(number)


def run_sweep(framework: ModelTrainingFramework, folder: Path) -> tuple[GridSearchResult, list[Disturbance]]:
    """Run the sweep while two of its runs are disturbed."""
    with Disturber(SweepDirectory(folder), folder.with_name("disturbances.json"), print) as disturber:
        result = framework.run_grid_search(
            build_grids(),
            base_config_path="base.yaml",
            execution_mode=ExecutionMode.LOCAL,
            output_dir=folder,
            max_concurrent_jobs=AT_A_TIME,
        )
    return result.refresh(), disturber.done


def repeat_undisturbed(runs: list[RunDirectory], folder: Path) -> list[RunDirectory]:
    """Train the same configurations once more, from the start and in peace."""
    launcher = SLURMLauncher(None, str(folder), project_root=HERE)
    experiments = [ExperimentConfig.from_dict(json.loads(run.config_json.read_text("utf-8"))) for run in runs]
    launcher.submit_experiment_batch(experiments, ExecutionMode.LOCAL, max_concurrent_jobs=AT_A_TIME)
    return [SweepDirectory(folder / "single").run(run.name) for run in runs]


def leaderboard(result: GridSearchResult, disturbances: list[Disturbance]) -> Table:
    """The runs from best to worst."""
    signals = {item.run: item.signal_name for item in disturbances}
    table = Table(title=f"Leaderboard by {METRIC}")
    for heading in ("", "run", "parameters", METRIC, "val_loss", "attempts"):
        table.add_column(heading, justify="right" if heading in (METRIC, "val_loss") else "left")
    for place, run in enumerate(result.leaderboard(METRIC, "max"), 1):
        parameters = ", ".join(f"{short_name(key)}={value}" for key, value in run.parameters.items())
        numbers = [f"{run.metrics[name]:.4f}" for name in (METRIC, "val_loss")]
        note = f"{run.attempts} ({signals[run.name]})" if run.name in signals else str(run.attempts)
        table.add_row(str(place), run.name, parameters, *numbers, note)
    return table


def short_name(key: str) -> str:
    """`model.channels` as `channels`, but `optimizer.name` as `optimizer`."""
    section, _, name = key.rpartition(".")
    return section if name == "name" else name


def shown(path: Path) -> Path:
    """A path as it is easiest to read: relative to the working directory if it lies in there."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def verdict(disturbances: list[Disturbance], comparisons: list[list[Part]]) -> Table:
    """What was compared, and what came of it."""
    table = Table(title="Disturbed runs against the same configurations trained undisturbed")
    for heading in ("run", "disturbed", "compared", "bit-identical"):
        table.add_column(heading)
    for disturbance, comparison in zip(disturbances, comparisons, strict=True):
        for number, part in enumerate(comparison):
            answer = f"[red]NO: {part.difference}[/]" if part.difference else "[green]yes[/]"
            where = f"{disturbance.signal_name} {disturbance.place}" if number == 0 else ""
            table.add_row(disturbance.run if number == 0 else "", where, part.what, answer)
    return table


def main() -> int:
    """Run the demo; 0 if the disturbed runs came out bit-identical."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output",
        type=Path,
        help="where everything goes (default: a new folder in demo-output/); one that was begun is continued",
    )
    parser.add_argument("--save-svg", type=Path, help="also save the tables as a picture")
    arguments = parser.parse_args()
    setup_logging(logging.WARNING)
    console = Console(record=True, width=None if sys.stdout.isatty() else 120)
    folder = (arguments.output or new_folder(Path("demo-output"))).resolve()
    console.print(f"8 runs, {AT_A_TIME} at a time, in {shown(folder)}\n")

    framework = ModelTrainingFramework(HERE)
    result, disturbances = run_sweep(framework, folder / "sweep")
    if not result.is_complete:
        console.print(f"[red]not every run finished:[/] {result.failures()}")
        return 1
    console.print(leaderboard(result, disturbances))
    console.print(f"written to {shown(result.to_csv(folder / 'results.csv'))}\n")
    if len(disturbances) < len(SIGNALS):
        console.print("[red]fewer than two runs could be disturbed[/]: they were over too soon, or finished before")
        return 1

    console.print(f"training {len(disturbances)} of the configurations again, undisturbed\n")
    disturbed = [SweepDirectory(folder / "sweep").run(item.run) for item in disturbances]
    repeated = repeat_undisturbed(disturbed, folder / "undisturbed")
    comparisons = [list(compare_runs(ours, theirs)) for ours, theirs in zip(disturbed, repeated, strict=True)]
    console.print(verdict(disturbances, comparisons))
    identical = not any(part.difference for comparison in comparisons for part in comparison)
    console.print("[green]every compared part is bit-identical[/]" if identical else "[red]the results differ[/]")
    if arguments.save_svg:
        console.save_svg(str(arguments.save_svg), title="hatch run demo")
    return 0 if identical else 1


if __name__ == "__main__":
    sys.exit(main())
