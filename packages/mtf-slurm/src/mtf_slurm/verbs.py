"""What the verbs of this package share: errors as messages, output as text or JSON, runs by their names."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mtf_slurm.cluster.patience import NotYetError
from mtf_slurm.errors import INTERRUPTED, ClusterUnreachableError, LaunchInterrupted, SLURMError
from mtf_slurm.interrupts import saying
from mtf_slurm.results import GridSearchResult
from mtf_utils.cli import DONE, UNREACHABLE, USER_MISTAKE, CommandError
from mtf_utils.display import json_text, printable

__all__ = [
    "add_folder",
    "add_json",
    "check_runs",
    "explained",
    "print_json",
    "print_lines",
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


def add_folder(parser: argparse.ArgumentParser) -> None:
    """The folder of a sweep."""
    parser.add_argument("dir", type=Path, metavar="DIR", help="the folder of a sweep")


def add_json(parser: argparse.ArgumentParser) -> None:
    """The choice of JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def print_json(verb: str, data: dict[str, Any]) -> None:
    """The envelope of every reading verb; `version` is that of the data's schema."""
    envelope = {"verb": verb, "version": 1, "data": data}
    sys.stdout.write(json_text(json.dumps(envelope, indent=2, ensure_ascii=False, allow_nan=False)) + "\n")


def print_lines(lines: Iterable[str]) -> None:
    """Lines for standard output; what in them would steer a terminal is written out."""
    for line in lines:
        sys.stdout.write(f"{printable(line.expandtabs())}\n")


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
