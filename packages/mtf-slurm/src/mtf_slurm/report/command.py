"""The verb `mtf report`: a sweep as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from mtf_slurm.finding import find_sweep
from mtf_slurm.report.render import write_report
from mtf_slurm.results import GridSearchResult
from mtf_slurm.verbs import add_folder, add_json, explained, print_json, print_lines, reached
from mtf_slurm.wording import counted
from mtf_utils.cli import Command, CommandError

__all__ = ["REPORT"]


def _configure(parser: argparse.ArgumentParser) -> None:
    add_folder(parser, optional=True)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="where it is written (default: report.html in DIR)"
    )
    parser.add_argument("-m", "--metric", help="rank by this metric (default: checkpoint.monitor of the sweep)")
    parser.add_argument("--mode", choices=("min", "max"), help="what is best (default: checkpoint.mode of the sweep)")
    add_json(parser)


@explained
def _report(arguments: argparse.Namespace) -> int:
    result = GridSearchResult.load(find_sweep(arguments.dir))
    try:
        file = write_report(result, arguments.output, metric=arguments.metric, mode=arguments.mode).absolute()
    except OSError as error:
        raise CommandError(f"the report cannot be written: {error}") from error
    if arguments.json:
        print_json("report", {"path": str(file), "size": file.stat().st_size, "runs": len(result)})
    else:
        print_lines([f"{counted(len(result), 'run')}: {file}"])
    return reached(result)


REPORT = Command("write a report of a sweep: one HTML file, for any browser", _configure, _report)
