"""The verbs of `mtf` that work on single runs: `logs`, `explain`, `cancel`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mtf_slurm.cluster.watch import Watch
from mtf_slurm.errors import SLURMError
from mtf_slurm.evidence import Witness
from mtf_slurm.explain import explain
from mtf_slurm.finding import find_run, find_sweep
from mtf_slurm.logs import LogReader, choose_attempt, follow, tail_start
from mtf_slurm.results import GridSearchResult, RunResult
from mtf_slurm.verbs import (
    add_folder,
    add_json,
    add_runs,
    check_runs,
    explained,
    print_json,
    print_lines,
    reached,
    reading,
    say,
)
from mtf_slurm.wording import counted, listed
from mtf_utils.cli import DONE, Command, CommandError
from mtf_utils.display import for_terminal
from mtf_utils.rundir import RunDirectory, SweepDirectory

__all__ = ["CANCEL", "EXPLAIN", "LOGS"]

LISTED = 10
_RUN = "the name of a run, or its folder; may stand alone (default: the only run)"


def _configure_logs(parser: argparse.ArgumentParser) -> None:
    add_folder(parser, optional=True)
    add_runs(parser, "name", nargs="?", metavar="RUN", help=_RUN)
    parser.add_argument("--attempt", type=int, metavar="N", help="which attempt (default: the last)")
    parser.add_argument("-n", "--lines", type=int, default=50, metavar="N", help="how many lines (default: 50)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on, attempt by attempt, until the run is over")
    add_json(parser)


@explained
def _logs(arguments: argparse.Namespace) -> int:
    if arguments.lines < 0:
        raise CommandError(f"--lines {arguments.lines}: expected a number from 0")
    if arguments.follow and arguments.json:
        raise CommandError("--follow and --json do not go together: JSON is complete, or it is none")
    watch = Watch()
    folder, name = _named(arguments)
    result = GridSearchResult(folder, watch=watch)
    run = _chosen(result, name)
    directory = SweepDirectory(result.output_dir).run(run.name)
    number = choose_attempt(directory, arguments.attempt)
    if number is None and not arguments.json:
        why = f" ({run.reason})" if run.reason else ""
        waiting = "; waiting for it" if arguments.follow and run.may_change else ""
        say(f"{run.name} has not started: {run.status.value}{why}{waiting}")
        if not waiting:
            return reached(result)
    log = directory.log_file(number) if number is not None else None
    start = tail_start(log, arguments.lines) if log is not None else 0
    if arguments.follow:
        _print(follow(directory, number, _ending(watch, directory), only=arguments.attempt is not None, start=start))
        return DONE
    text = LogReader(log, start).read() if log is not None else iter(())
    if arguments.json:
        lines = "".join(text).splitlines()
        data = {"run": run.name, "attempt": number, "path": str(log) if log is not None else None, "lines": lines}
        print_json("logs", data)
    else:
        _print(text)
    return DONE


def _print(texts: Iterable[str]) -> None:
    """As it was written, for files and pipes; a terminal gets nothing that would steer it."""
    for text in for_terminal(texts) if sys.stdout.isatty() else texts:
        sys.stdout.write(text)
        sys.stdout.flush()


def _ending(watch: Watch, run: RunDirectory) -> Callable[[], bool]:
    """Tells whether nothing more is to be expected of the run."""
    directory = SweepDirectory(run.path.parent.parent)

    def is_over() -> bool:
        _, verdict = Witness.look(directory, watch, patient=True, names=[run.name]).verdict(run.name)
        return not verdict.may_change

    return is_over


def _named(arguments: argparse.Namespace) -> tuple[Path, str | None]:
    """The sweep and the run that are asked for; whoever names one thing only may mean either."""
    if arguments.name is not None:
        return find_run(arguments.dir, arguments.name)
    if arguments.dir is not None and not SweepDirectory(arguments.dir).sweep_file.exists():
        with contextlib.suppress(SLURMError):  # what is neither is told of as a sweep
            folder, name = find_run(None, str(arguments.dir))
            if SweepDirectory(folder).run(name).path.is_dir():
                return folder, name
    return find_sweep(arguments.dir), None


def _chosen(result: GridSearchResult, name: str | None) -> RunResult:
    if name is not None:
        check_runs(result, [name])
        return result[name]
    if len(result) == 1:
        return result.runs[0]
    names = [run.name for run in result]
    choice = listed(names, LISTED) or "none"
    raise CommandError(f"{result.output_dir} has {counted(len(result), 'run')}; name one: {choice}")


def _configure_explain(parser: argparse.ArgumentParser) -> None:
    add_folder(parser, optional=True)
    add_runs(parser, "name", nargs="?", metavar="RUN", help=_RUN)
    add_json(parser)


@reading
def _explain(arguments: argparse.Namespace) -> int:
    watch = Watch()
    folder, asked = _named(arguments)
    result = GridSearchResult(folder, watch=watch)
    name = _chosen(result, asked).name
    directory = SweepDirectory(result.output_dir)
    sweep = directory.sweep()
    entry: dict[str, Any] = next(run for run in sweep.runs if run["name"] == name) if sweep else {}
    explanation = explain(Witness.look(directory, watch, patient=True, names=[name]), entry)
    if arguments.json:
        print_json("explain", explanation.to_dict())
    else:
        print_lines(explanation.lines())
    return reached(result)


def _configure_cancel(parser: argparse.ArgumentParser) -> None:
    add_folder(parser)
    add_runs(parser, "runs", metavar="RUN", nargs="*", default=[], help="the names of runs")
    parser.add_argument("--all", action="store_true", help="every run of the sweep")
    add_json(parser)


@explained
def _cancel(arguments: argparse.Namespace) -> int:
    result = GridSearchResult(find_sweep(arguments.dir))
    if bool(arguments.runs) == arguments.all:
        raise CommandError("name the runs to cancel, or say --all; one of the two")
    check_runs(result, arguments.runs)
    before = {name: result[name].status for name in arguments.runs}
    done = result.cancel(None if arguments.all else arguments.runs)
    if arguments.json:
        runs = {name: {"cancelled": was, "status": result[name].status.value} for name, was in done.items()}
        print_json("cancel", {"output_dir": str(result.output_dir), "runs": runs})
        return DONE
    told = [name for name, was in done.items() if was]
    print_lines(f"{name}: told to save and end" for name in told)
    if not arguments.all:
        print_lines(f"{name}: was not active ({before[name].value})" for name, was in done.items() if not was)
    print_lines([f"{len(told)} of {counted(len(done), 'run')} cancelled"])
    return DONE


LOGS = Command("show the output of a run", _configure_logs, _logs)
EXPLAIN = Command("say why a run is in the state it is in, and what to do", _configure_explain, _explain)
CANCEL = Command("have runs save and end, and not be started again", _configure_cancel, _cancel)
