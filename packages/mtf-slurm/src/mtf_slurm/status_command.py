"""The verb `mtf status`: how the runs of a sweep stand, once or as long as somebody looks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from mtf_slurm.finding import find_sweep
from mtf_slurm.reports import columns, status_lines
from mtf_slurm.results import GridSearchResult, RunResult
from mtf_slurm.selection import Group, Row, Selection, group_by, state_counts, text_of, whole_key
from mtf_slurm.status import JobStatus
from mtf_slurm.verbs import add_folder, add_json, print_json, print_lines, reached, reading
from mtf_slurm.views import format_metric
from mtf_utils.arguments import completed_by
from mtf_utils.cli import DONE, Command, CommandError
from mtf_utils.names import nearest

__all__ = ["STATUS"]


def _configure(parser: argparse.ArgumentParser) -> None:
    add_folder(parser, optional=True)
    chosen = parser.add_argument_group("which runs")
    states = chosen.add_argument(
        "--state", metavar="STATE,...", default="", help="in these states only: running,failed"
    )
    completed_by(states, lambda before: [status.value.lower() for status in JobStatus])
    chosen.add_argument("--match", metavar="PATTERN", default="", help="with such names only: 'digits-lr=0.01*'")
    chosen.add_argument(
        "--where",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="with this value of a parameter only, which may be named by its last part: channels=8; may be repeated",
    )
    order = parser.add_argument_group("how they are shown")
    order.add_argument(
        "--sort", metavar="KEY", default="", help="by name, state, attempts, epoch, step, grid, a parameter or a metric"
    )
    order.add_argument("--reverse", action="store_true", help="the largest first")
    order.add_argument("--group", metavar="KEY", default="", help="groups instead of runs: state, grid or a parameter")
    order.add_argument("--metric", metavar="NAME", default="", help="this metric (default: each run's leading one)")
    order.add_argument("-n", "--top", type=int, metavar="N", help="the first N only")
    order.add_argument("-w", "--watch", action="store_true", help="stay, and look again and again; q ends it")
    order.add_argument(
        "--interval", type=float, default=2.0, metavar="S", help="seconds from look to look, with --watch (default: 2)"
    )
    add_json(parser)


@reading
def _status(arguments: argparse.Namespace) -> int:
    selection = _selection(arguments)
    if arguments.watch:
        return _watch(arguments, selection)
    result = GridSearchResult.load(folder := find_sweep(arguments.dir))
    rows = [_row(run) for run in result]
    chosen = selection.resolved(rows).apply(rows)
    metric = _metric(arguments.metric, rows)
    groups = group_by(chosen, arguments.group) if arguments.group else None
    top = slice(arguments.top)
    if arguments.json:
        names = {row.name: index for index, row in enumerate(chosen[top])}
        data = result.to_dict()
        data["runs"] = sorted((run for run in data["runs"] if run["name"] in names), key=lambda run: names[run["name"]])
        if groups is not None:
            data["groups"] = [{"value": group.name, "runs": [row.name for row in group.rows]} for group in groups]
        print_json("status", data)
    elif groups is not None:
        print_lines([*_group_lines(arguments.group, groups[top], metric), state_counts(chosen)])
    else:
        print_lines(status_lines(result, runs=[row.source for row in chosen[top]], metric=metric))
    if arguments.dir is None and not arguments.json:
        print_lines([f"in {folder}"])  # nobody has named it
    return reached(result)


def _watch(arguments: argparse.Namespace, selection: Selection) -> int:
    if arguments.json:
        raise CommandError("--watch and --json do not go together: JSON is complete, or it is none")
    if not arguments.interval >= 0.1:
        raise CommandError(f"--interval {arguments.interval}: expected 0.1 seconds or more")
    from mtf_slurm.board import Board  # rich takes long to load
    from mtf_slurm.watching import Screen, watch_lines, watch_screen

    board = Board(find_sweep(arguments.dir))
    board.look(whole=bool(selection.sort or arguments.metric))
    rows = board.rows()
    metric = _metric(arguments.metric, rows)
    group = whole_key("--group", arguments.group, ["state", "grid", *_parameters(rows)]) if arguments.group else ""
    screen = Screen(selection.resolved(rows), group, metric, arguments.top)
    if sys.stdout.isatty():
        watch_screen(board, screen, arguments.interval)
    else:
        try:
            watch_lines(board, screen, arguments.interval)
        except KeyboardInterrupt:
            return DONE  # that is how it is ended
    return DONE


def _selection(arguments: argparse.Namespace) -> Selection:
    from mtf_config.reader import parse_text

    if arguments.top is not None and arguments.top < 1:
        raise CommandError(f"--top {arguments.top}: expected a number from 1")
    where = {}
    for word in arguments.where:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise CommandError(f"--where {word}: expected KEY=VALUE, such as model.channels=8")
        where[key] = text_of(parse_text(value, f"--where {key}").data)
    return Selection(
        states=frozenset(map(_state, filter(None, arguments.state.split(",")))),
        pattern=arguments.match,
        where=where,
        sort=arguments.sort,
        reverse=arguments.reverse,
    )


def _state(text: str) -> JobStatus:
    known = [status.value for status in JobStatus]
    name = text.strip().upper().replace("-", "_")
    if name in known:
        return JobStatus(name)
    guess = nearest(name, known)
    hint = f"did you mean {guess.lower()!r}?" if guess else f"there are: {', '.join(known).lower()}"
    raise CommandError(f"--state {text}: there is no such state; {hint}")


def _row(run: RunResult) -> Row:
    return Row(
        name=run.name,
        status=run.status,
        grid=run.grid,
        parameters=run.parameters,
        attempts=run.attempts,
        epoch=run.epoch,
        step=run.global_step,
        metrics=run.metrics,
        source=run,
    )


def _metric(name: str, rows: Sequence[Row]) -> str:
    metrics = list(dict.fromkeys(key for row in rows for key in row.metrics))
    if not name or not metrics:  # nothing recorded yet is no mistake
        return name
    return whole_key("--metric", name, metrics)


def _parameters(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.parameters))


def _group_lines(key: str, groups: Sequence[Group], metric: str) -> Iterator[str]:
    lines = [[key, "runs", "states", *([f"{metric} from", "to"] if metric else [])]]
    for group in groups:
        ends = [group.best(metric, mode) for mode in ("min", "max")] if metric else []
        shown = [format_metric("", row.metrics[metric]).strip() if row else "" for row in ends]
        lines.append([group.name, str(len(group.rows)), state_counts(group.rows), *shown])
    return columns(lines)


STATUS = Command("show how the runs of a sweep stand", _configure, _status)
