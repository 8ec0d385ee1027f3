"""The verb `mtf demo`: a project of handwritten digits, a sweep that is disturbed, the leaderboard, and the proof."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mtf_config import ConfigurationManager, ExecutionMode, load_sweep
from mtf_config.project import project_files, write_project
from mtf_slurm.configurations import read_experiment
from mtf_slurm.demo.disturber import SIGNALS, Disturbance, Disturber
from mtf_slurm.demo.proof import Part, compare_runs
from mtf_slurm.launcher import SLURMLauncher
from mtf_slurm.reports import columns, ranking_lines
from mtf_slurm.results import GridSearchResult
from mtf_slurm.verbs import explained, print_lines
from mtf_slurm.wording import counted
from mtf_utils.cli import DONE, WORK_FAILED, Command, CommandError
from mtf_utils.rundir import SweepDirectory

__all__ = ["DEMO"]

METRIC: Final = "val_accuracy"
AT_A_TIME: Final = 2

EPOCHS: Final = 20
"""More than the project's own, so that there is time to disturb a run."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a project, run its sweep on this machine, send SIGTERM to one run and SIGKILL to another on the way, and "
        "compare these two, once all is done, with the same runs left in peace."
    )
    parser.add_argument(
        "dir",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="where everything goes (default: a new folder mtf-demo); one that was begun is continued",
    )
    parser.add_argument("--no-proof", action="store_true", help="stop at the leaderboard")


@explained
def _run(arguments: argparse.Namespace) -> int:
    if importlib.util.find_spec("mtf_trainer") is None:
        raise CommandError("the demo trains, which takes mtf-trainer (and with it torch): pip install mtf-trainer")
    project = (arguments.dir or _new_folder()).absolute()
    if not _is_begun(project):
        write_project(project)
    print_lines([f"project: {project}"])
    result, disturbances = _sweep(project)
    if not result.is_complete:
        print_lines([f"{name}: {reason}" for name, reason in result.failures().items()])
        return WORK_FAILED
    table = result.to_csv(project / "results.csv")
    print_lines(["", *ranking_lines(result.leaderboard(METRIC, "max"), METRIC), f"written to {table}", ""])
    if len(disturbances) < len(SIGNALS):
        print_lines(["fewer than two runs could be disturbed: they were over too soon; once more with another DIR"])
        return WORK_FAILED
    if not arguments.no_proof and not _prove(project, result, disturbances):
        return WORK_FAILED
    print_lines(["", f"the project is yours: cd {project}; mtf status; mtf run sweep.yaml training.epochs=20"])
    return DONE


def _new_folder() -> Path:
    number, folder = 1, Path("mtf-demo")
    while folder.exists():
        number += 1
        folder = Path(f"mtf-demo-{number}")
    return folder


def _is_begun(project: Path) -> bool:
    """Whether the folder has the demo's project, so that it is continued."""
    return all((project / name).is_file() for name in project_files())


def _sweep(project: Path) -> tuple[GridSearchResult, list[Disturbance]]:
    sweep = load_sweep(project / "sweep.yaml", ConfigurationManager(project), {"training.epochs": EPOCHS})
    folder = project / "experiments" / "demo"
    said: list[str] = []
    launcher = SLURMLauncher(None, folder.parent, project_root=project)
    with Disturber(SweepDirectory(folder), project / "disturbances.json", said.append) as disturber:
        result = launcher.submit_sweep(sweep.search, folder, ExecutionMode.LOCAL, AT_A_TIME)
    print_lines(said)
    return result.refresh(), disturber.done


def _prove(project: Path, result: GridSearchResult, disturbances: Sequence[Disturbance]) -> bool:
    """Train the disturbed runs once more, in peace, and compare; whether all is the same."""
    sweep = SweepDirectory(result.output_dir)
    disturbed = [sweep.run(item.run) for item in disturbances]
    print_lines([f"{counted(len(disturbed), 'disturbed run')} once more, in peace:"])
    folder = project / "experiments" / "in-peace"
    launcher = SLURMLauncher(None, folder, project_root=project)
    launcher.submit_experiment_batch(list(map(read_experiment, disturbed)), ExecutionMode.LOCAL, AT_A_TIME)
    parts: list[tuple[Disturbance, Part]] = []
    for item, run in zip(disturbances, disturbed, strict=True):
        undisturbed = SweepDirectory(folder / "single").run(run.name)
        parts += [(item, part) for part in compare_runs(run, undisturbed)]
    rows = [["run", "disturbed", "compared", "bit-identical"]]
    for item, part in parts:
        answer = f"NO: {part.difference}" if part.difference else "yes"
        rows.append([item.run, f"{item.signal_name} {item.place}", part.what, answer])
    print_lines(["", *columns(rows)])
    return not any(part.difference for _, part in parts)


DEMO: Final = Command("see a sweep survive being killed", _configure, _run)
