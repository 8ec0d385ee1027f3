"""A sweep file as a verb is called with it: its experiments, the folder of its runs, and the launcher."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path

from mtf_config import ConfigurationManager, ParameterGridSearch, SweepSpec, load_sweep
from mtf_config.setting_words import read_settings
from mtf_slurm.finding import check_sweep_file, root_of, runs_folder
from mtf_slurm.launcher import SLURMLauncher
from mtf_slurm.render import DEFAULT_COMMAND
from mtf_slurm.retry_options import with_retries
from mtf_utils.cli import CommandError

__all__ = ["OpenedSweep", "open_sweep"]


@dataclass(frozen=True)
class OpenedSweep:
    """A sweep file, and where its runs go.

    Attributes:
        spec: what the file says.
        search: its experiments, with the settings of the command line.
        folder: of the sweep.
        launcher: that would run it.
    """

    spec: SweepSpec
    search: ParameterGridSearch
    folder: Path
    launcher: SLURMLauncher


def open_sweep(arguments: argparse.Namespace) -> OpenedSweep:
    """The sweep file that a verb is called with."""
    if Path(arguments.sweep).is_dir():
        raise CommandError(
            f"{arguments.sweep} is a folder: name the sweep file. What is missing of a sweep is tried again without "
            f"its file by: mtf retry {shlex.quote(arguments.sweep)}"
        )
    file = ConfigurationManager(Path.cwd()).find(arguments.sweep).absolute()
    check_sweep_file(file)
    root = Path(arguments.project_root).absolute() if arguments.project_root else root_of(file)
    if arguments.template is not None and not Path(arguments.template).is_file():
        raise CommandError(f"--template {arguments.template}: there is no such file")
    settings = read_settings(arguments.settings)
    sweep = load_sweep(file, ConfigurationManager(root), settings)
    folder = Path(arguments.output_dir or root / runs_folder(sweep.spec, sweep.search, settings)).absolute()
    command = sweep.spec.command_words() or DEFAULT_COMMAND
    search = with_retries(sweep.search, arguments.retries)
    launcher = SLURMLauncher(arguments.template, folder.parent, project_root=root, command=command)
    return OpenedSweep(sweep.spec, search, folder, launcher)
