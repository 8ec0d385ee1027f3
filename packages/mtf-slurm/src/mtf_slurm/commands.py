"""The verbs of `mtf` that work on sweeps: `run`, `status`, `results`."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mtf_slurm.errors import LaunchInterrupted, SLURMError
from mtf_slurm.export import rows
from mtf_slurm.launcher import SLURMLauncher
from mtf_slurm.results import GridSearchResult, RunResult
from mtf_slurm.views import format_metric
from mtf_utils.cli import DONE, WORK_FAILED, Command, CommandError

__all__ = ["RESULTS", "RUN", "STATUS"]

INTERRUPTED = 130


def _explained(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Turn this package's errors into messages, without a trace."""

    @functools.wraps(run)
    def call(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except SLURMError as error:
            raise CommandError(str(error)) from error
        except LaunchInterrupted as stop:
            print(f"mtf run: {stop}", file=sys.stderr)
            return INTERRUPTED

    return call


def _configure_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="the folder of a sweep that was planned before")
    parser.add_argument("-j", "--jobs", type=int, help="how many run at a time (default: one per GPU, else one)")
    _add_json(parser)


@_explained
def _run(arguments: argparse.Namespace) -> int:
    """Run what is missing of a sweep."""
    launcher = SLURMLauncher(None, arguments.sweep.parent)
    result = launcher.continue_sweep(arguments.sweep, arguments.jobs)
    _print_status("run", result, as_json=arguments.json)
    return DONE if result.is_complete else WORK_FAILED


def _configure_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="the folder of a sweep")
    _add_json(parser)


@_explained
def _status(arguments: argparse.Namespace) -> int:
    """Show how the runs of a sweep stand."""
    _print_status("status", GridSearchResult.load(arguments.dir), as_json=arguments.json)
    return DONE


def _configure_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="the folder of a sweep")
    parser.add_argument("-m", "--metric", help="rank by this metric (default: checkpoint.monitor of the sweep)")
    parser.add_argument("--mode", choices=("min", "max"), help="what is best (default: checkpoint.mode of the sweep)")
    parser.add_argument("-n", "--top", type=int, metavar="N", help="show the best N only")
    parser.add_argument("--all", action="store_true", help="rank unfinished runs, too, by their last value")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a table of all runs")
    _add_json(parser)


@_explained
def _results(arguments: argparse.Namespace) -> int:
    """Rank the runs of a sweep by a metric."""
    result = GridSearchResult.load(arguments.dir)
    monitor, mode = _monitored(result)
    metric = arguments.metric or monitor
    # a mode that was chosen for another metric says nothing about this one
    mode = arguments.mode or (mode if metric == monitor else "min")
    if arguments.csv:
        result.to_csv(arguments.csv)
    ranked = result.leaderboard(metric, "max" if mode == "max" else "min", top=arguments.top, unfinished=arguments.all)
    if arguments.json:
        _print_json("results", result, {"metric": metric, "mode": mode, "ranking": [run.name for run in ranked]})
        return DONE
    _print_ranking(ranked, metric)
    for name, reason in result.failures().items():
        print(f"{name}: {reason}", file=sys.stderr)
    return DONE


def _monitored(result: GridSearchResult) -> tuple[str, str]:
    """The metric that the sweep's own checkpoints are ranked by, and which way."""
    for run in result:
        config = json.loads((run.path / "config.json").read_text("utf-8"))
        return config["checkpoint"]["monitor"], config["checkpoint"]["mode"]
    raise SLURMError(f"{result.output_dir}: the sweep has no runs")


def _print_ranking(ranked: Sequence[RunResult], metric: str) -> None:
    table = rows(ranked)
    keys = [key for run in ranked for key in run.parameters]
    shown = ["name", metric, *(key for key in dict.fromkeys(keys) if key in table[0])]
    lines = [["", *shown]]
    for place, row in enumerate(table, 1):
        values = [format(row[key], ".6g") if isinstance(row[key], float) else str(row[key]) for key in shown]
        lines.append([str(place), *values])
    _print_columns(lines)


def _print_status(verb: str, result: GridSearchResult, *, as_json: bool) -> None:
    if as_json:
        _print_json(verb, result, {})
        return
    lines = [["run", "state", "epoch", "step", "attempts", "note"]]
    for run in result:
        metric = next(reversed([*run.metrics.items()]), None)
        note = "; ".join(text for text in (format_metric(*metric) if metric else "", run.reason) if text)
        numbers = ["" if number is None else str(number) for number in (run.epoch, run.global_step)]
        lines.append([run.name, run.status.value, *numbers, str(run.attempts), note])
    _print_columns(lines)
    print(", ".join(f"{count} {status.value.lower()}" for status, count in result.counts.items()))
    if result.orphaned:
        print(f"no longer a part of the sweep: {', '.join(result.orphaned)}")


def _print_columns(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print_json(verb: str, result: GridSearchResult, more: dict[str, Any]) -> None:
    """The envelope of every reading verb: `verb`, `version` of the schema, and `data` (`GridSearchResult.to_dict`)."""
    envelope = {"verb": verb, "version": 1, "data": result.to_dict() | more}
    print(json.dumps(envelope, indent=2, ensure_ascii=False, allow_nan=False))


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


RUN = Command("run what is missing of a sweep on this machine", _configure_run, _run)
STATUS = Command("show how the runs of a sweep stand", _configure_status, _status)
RESULTS = Command("rank the runs of a sweep by a metric", _configure_results, _results)
