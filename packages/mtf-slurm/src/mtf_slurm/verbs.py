"""What the verbs of this package share: errors as messages, output as text or JSON, runs by their names."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mtf_slurm.cluster.patience import NotYetError
from mtf_slurm.errors import INTERRUPTED, ClusterUnreachableError, LaunchInterrupted, SLURMError
from mtf_slurm.finding import find_sweep
from mtf_slurm.interrupts import saying
from mtf_slurm.reports import status_lines
from mtf_slurm.results import GridSearchResult
from mtf_utils.arguments import completed_by
from mtf_utils.cli import DONE, UNREACHABLE, USER_MISTAKE, CommandError
from mtf_utils.display import printable
from mtf_utils.output import print_json
from mtf_utils.rundir import SweepDirectory

__all__ = [
    "add_folder",
    "add_jobs",
    "add_json",
    "add_runs",
    "check_runs",
    "explained",
    "print_json",
    "print_lines",
    "print_status",
    "reached",
    "reading",
    "say",
]


def explained(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Turn this package's errors into messages, without a trace."""

    @functools.wraps(run)
    def call(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except SLURMError as error:
            away = isinstance(error, ClusterUnreachableError) or isinstance(error.__cause__, NotYetError)
            raise CommandError(str(error), exit_status=UNREACHABLE if away else USER_MISTAKE) from error
        except LaunchInterrupted:
            return INTERRUPTED  # the launcher has said why

    return call


def reading(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The same for a verb that changes nothing, which Ctrl-C says, too."""

    @functools.wraps(run)
    def call(arguments: argparse.Namespace) -> int:
        with saying("interrupted; nothing was changed"):
            return run(arguments)

    return explained(call)


def add_folder(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """The folder of a sweep."""
    text = "the folder of a sweep, or its sweep file"
    if optional:
        parser.add_argument("dir", type=Path, nargs="?", metavar="DIR", help=f"{text} (default: the newest sweep)")
    else:
        parser.add_argument("dir", type=Path, metavar="DIR", help=text)


def add_runs(parser: argparse.ArgumentParser, *words: str, **settings: Any) -> None:
    """An argument that is the name of a run, or several."""
    completed_by(parser.add_argument(*words, **settings), _names_of_runs)


def _names_of_runs(before: Sequence[str]) -> Iterator[str]:
    named = next((Path(word) for word in before if Path(word).exists()), None)
    sweep = SweepDirectory(find_sweep(named)).sweep()
    yield from (run["name"] for run in sweep.runs if not run.get("orphaned")) if sweep else ()


def add_jobs(parser: argparse.ArgumentParser, default: str) -> None:
    """How many run at a time."""
    parser.add_argument("-j", "--jobs", type=_count, metavar="N", help=f"how many run at a time (default: {default})")


def _count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text}: expected a number from 1")


def add_json(parser: argparse.ArgumentParser) -> None:
    """The choice of JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def print_lines(lines: Iterable[str]) -> None:
    """Lines for standard output; what in them would steer a terminal is written out."""
    for line in lines:
        sys.stdout.write(f"{printable(line.expandtabs())}\n")


def print_status(verb: str, result: GridSearchResult, *, as_json: bool) -> None:
    """How the runs stand, as text or JSON."""
    if as_json:
        print_json(verb, result.to_dict())
    else:
        print_lines(status_lines(result))


def say(text: str) -> None:
    """A message for standard error."""
    sys.stderr.write(f"{printable(text, lines=True)}\n")


def reached(result: GridSearchResult) -> int:
    """The exit status for what is told of a sweep: whether the cluster could be asked where it had to be."""
    if not result.cluster_error or not any(run.may_change for run in result):
        return DONE
    say(f"Slurm cannot be asked: {result.cluster_error}")
    return UNREACHABLE


def check_runs(result: GridSearchResult, names: Iterable[str]) -> None:
    """Refuse names that no run of the sweep has.

    Raises:
        CommandError: there is such a name; the nearest one is told.
    """
    for name in names:
        try:
            result[name]
        except KeyError as error:
            raise CommandError(str(error.args[0])) from error
