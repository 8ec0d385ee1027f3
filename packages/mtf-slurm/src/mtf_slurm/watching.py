"""`mtf status --watch`: a table that renews itself and listens to keys; without a terminal, lines of what changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from mtf_slurm.board import Board
from mtf_slurm.pace import duration
from mtf_slurm.progress import PlainLines
from mtf_slurm.selection import FIELDS, Row, Selection, group_by, state_counts
from mtf_slurm.tables import COLOURS, fitted
from mtf_slurm.terminal import Keys, ending_by_signal
from mtf_slurm.views import RunView, format_metric
from mtf_utils.display import printable

__all__ = ["Screen", "watch_lines", "watch_screen"]

T = TypeVar("T")

AROUND: Final = 5
"""Lines of the screen that are no runs: title, headings, a complaint of Slurm's, caption."""

HELP: Final = "keys: up down page-up page-down, s sort, r reverse, f state, g group, q quit"


@dataclass
class Screen:
    """What is shown, and what the keys have made of it.

    Attributes:
        selection: which runs, in which order.
        group: the key to group by; empty shows runs.
        metric: the metric to show; empty is each run's leading one.
        limit: how many runs are shown at most.
        top: the number of the first run that is shown.
        keys: whether there are keys to tell of.
    """

    selection: Selection
    group: str = ""
    metric: str = ""
    limit: int | None = None
    top: int = 0
    keys: bool = True

    def press(self, key: str, rows: list[Row], room: int) -> None:
        """Do what a key says."""
        moves = {"up": -1, "down": 1, "page up": -room, "page down": room, "home": -len(rows), "end": len(rows)}
        if key in moves:
            self.top += moves[key]
        elif key == "s":
            metrics = dict.fromkeys(row.source.telemetry.headline for row in rows if row.source.telemetry.headline)
            self._sort_by(_next(self.selection.sort, ["", *FIELDS, *metrics]))
        elif key == "r":
            self.selection = replace(self.selection, reverse=not self.selection.reverse)
        elif key == "f":
            present = sorted({row.status for row in rows})
            now = next(iter(self.selection.states)) if len(self.selection.states) == 1 else None
            after = _next(now, [None, *present])
            self.selection = replace(self.selection, states=frozenset([after] if after else []))
        elif key == "g":
            self.group = _next(self.group, ["", "state", "grid", *dict.fromkeys(k for r in rows for k in r.parameters)])

    def _sort_by(self, key: str) -> None:
        self.selection = replace(self.selection, sort=key)

    @property
    def needs_metrics(self) -> bool:
        """Whether what is sorted by is known only once every run's metrics were read."""
        return self.selection.sort not in ("", "name", "state", "attempts", "grid")

    def shown(self, rows: list[Row], room: int) -> list[Row]:
        """The rows that fit, from the first that is to be seen; keeps the first within what there is."""
        chosen = self.selection.apply(rows)
        self.top = max(0, min(self.top, len(chosen) - room))
        return chosen[self.top : self.top + room]

    def render(self, board: Board, rows: list[Row], room: int, width: int) -> RenderableType:
        """The whole of what is on the screen."""
        chosen = self.selection.apply(rows)
        title = Text(f"{printable(board.name)}: {len(rows)} runs, {state_counts(rows)}")
        lines: list[RenderableType] = [title]
        if board.cluster_error:
            lines.append(Text(f"Slurm cannot be asked: {printable(board.cluster_error)}", style="magenta"))
        if self.group:
            lines += self._groups(chosen, room, width)
        else:
            lines += self._runs(self.shown(rows, room), width)
        lines.append(Text(self._caption(chosen, room), style="dim"))
        return Group(*lines)

    def _caption(self, chosen: list[Row], room: int) -> str:
        parts = [time.strftime("%H:%M:%S")]
        if not self.group and len(chosen) > room:
            parts.append(f"{self.top + 1}-{min(self.top + room, len(chosen))} of {len(chosen)}")
        parts += [f"sorted by {self.selection.sort}"] if self.selection.sort else []
        parts += ["reversed"] if self.selection.reverse else []
        parts += [f"only {', '.join(sorted(self.selection.states))}"] if self.selection.states else []
        parts += [f"only {self.selection.pattern}"] if self.selection.pattern else []
        parts += [f"only {key}={text}" for key, text in self.selection.where.items()]
        return printable("; ".join(parts + ([HELP] if self.keys else [])))

    def _runs(self, rows: list[Row], width: int) -> list[Text]:
        lines = [["run", "state", "epoch", "step", "metric", "steps/s", "left", "attempts", "note"]]
        for row in rows:
            view: RunView = row.source
            rate = "" if row.rate is None else f"{row.rate:.3g}"
            left = "" if row.left_s is None else duration(row.left_s)
            place = [view.epoch, view.step, self._metric(row), rate, left, str(row.attempts)]
            lines.append([row.name, row.status.value, *place, view.reason])
        styles = [COLOURS.get(row.status, "dim") for row in rows]
        return fitted(lines, width, styles, right=frozenset({2, 3, 5, 6, 7}))

    def _metric(self, row: Row) -> str:
        if not self.metric:
            return str(row.source.metric)
        return format_metric(self.metric, row.metrics[self.metric]) if self.metric in row.metrics else ""

    def _groups(self, chosen: list[Row], room: int, width: int) -> list[Text]:
        groups = group_by(chosen, self.group)
        self.top = max(0, min(self.top, len(groups) - room))
        lines = [[self.group, "runs", "states"]]
        lines += [[g.name, str(len(g.rows)), state_counts(g.rows)] for g in groups[self.top : self.top + room]]
        return fitted(lines, width, [""] * len(groups), right=frozenset({1}))


def _next(now: T, choices: list[T]) -> T:
    """What follows in a circle of choices."""
    index = choices.index(now) if now in choices else 0
    return choices[(index + 1) % len(choices)]


def watch_screen(board: Board, screen: Screen, interval_s: float, console: Console | None = None) -> None:
    """Show the runs until q or Ctrl-C, and leave the last picture and a terminal in order."""
    console = console or Console()
    with ending_by_signal(), Keys() as keys, Live(console=console, auto_refresh=False, transient=False) as live:
        screen.keys = keys.available
        look_at = 0.0
        try:
            while True:
                room = min(max(1, console.size.height - AROUND), screen.limit or console.size.height)
                if time.monotonic() >= look_at:
                    board.look([row.name for row in screen.shown(board.rows(), room)], whole=screen.needs_metrics)
                    look_at = time.monotonic() + interval_s
                rows = board.rows()
                live.update(screen.render(board, rows, room, console.size.width), refresh=True)
                key = keys.wait(max(0.0, look_at - time.monotonic()))
                if key in ("q", "Q", "\x04"):
                    return
                if key:
                    screen.press(key, rows, room)
                    look_at = 0.0
        except KeyboardInterrupt:
            return


def watch_lines(
    board: Board, screen: Screen, interval_s: float, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Print what changes, a line each, until no run is at work or waits its turn."""
    lines = PlainLines(Console())
    while True:
        board.look(whole=True)
        rows = board.rows()
        lines.update([row.source for row in screen.selection.apply(rows)])
        if board.is_over:
            lines.say(state_counts(rows))
            return
        sleep(interval_s)
