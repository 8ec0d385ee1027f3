"""Live progress of the runs: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from mtf_slurm.pace import duration
from mtf_slurm.status import JobStatus
from mtf_slurm.tables import COLOURS, fitted
from mtf_slurm.views import Display, RunView, left_of_all
from mtf_slurm.wording import tally
from mtf_utils.display import printable

__all__ = ["LiveTable", "PlainLines", "choose_display", "runs_table"]

WORST_FIRST = (JobStatus.RUNNING, JobStatus.FAILED, JobStatus.LOST, JobStatus.UNKNOWN, JobStatus.CANCELLED)

AROUND: Final = 4
"""Lines of the screen that are no runs: title, headings, caption, and the one that the cursor is in."""

FIRST_LINES_S: Final = 10.0
LATER_LINES_S: Final = 60.0


@dataclass(frozen=True)
class _Shown:
    """What was printed of a run last, when, and since when it has been in that state."""

    state: tuple[JobStatus, int]
    place: tuple[int | None, int | None]
    at: float
    since: float


def _pause_s(elapsed_s: float) -> float:
    return min(max(elapsed_s / 10, FIRST_LINES_S), LATER_LINES_S)


class PlainLines:
    """Lines for logs and pipes: one for every change of a run's state, and one now and then for how far it is.

    The first of the latter comes after 10 s, later ones every minute, so that many runs do not fill a log.

    Args:
        console: where to print; None is standard error.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._shown: dict[str, _Shown] = {}

    def update(self, runs: Sequence[RunView]) -> None:
        """Print the runs that changed; those that only wait are not worth a line."""
        now = self._clock()
        for run in runs:
            before = self._shown.get(run.name)
            if before is None and run.status is JobStatus.PENDING:
                continue
            state, place = (run.status, run.attempts), (run.telemetry.epoch, run.telemetry.global_step)
            if before is None or before.state != state:
                self._shown[run.name] = _Shown(state, place, now, now)
            elif before.place != place and now - before.at >= _pause_s(now - before.since):
                self._shown[run.name] = _Shown(state, place, now, before.since)
            else:
                continue
            self.say(self._line(run))

    def _line(self, run: RunView) -> str:
        parts = [f"{run.name}: {run.status}"]
        parts += [f"attempt {run.attempts}"] if run.attempts > 1 else []
        parts += [f"{noun} {value}" for noun, value in (("epoch", run.epoch), ("step", run.step)) if value]
        left = run.left()
        notes = [run.metric, f"{left} left" if left else "", run.reason]
        note = "; ".join(text for text in notes if text)
        return " ".join(parts) + (f": {note}" if note else "")

    def say(self, text: str) -> None:
        """Print the line."""
        self._console.print(printable(text, lines=True), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing is left to do."""


class LiveTable:
    """A table that renews itself in place."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._live.start()

    def update(self, runs: Sequence[RunView]) -> None:
        """Redraw the table, cut to what fits the screen."""
        width, height = self._console.size
        self._live.update(runs_table(runs, width, room=max(3, height - AROUND)), refresh=True)

    def say(self, text: str) -> None:
        """Print the line above the table."""
        self._live.console.print(printable(text, lines=True), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last table standing."""
        self._live.stop()


def runs_table(runs: Sequence[RunView], width: int, *, room: int | None = None) -> Group:
    """The runs as a table, with how many stand how above it.

    Args:
        runs: in order.
        width: of the screen.
        room: how many are shown at most, those at work and in trouble before others; None shows all.
    """
    counts = Counter(run.status for run in runs)
    title = tally({status.value: count for status, count in sorted(counts.items())})
    left_s = left_of_all(runs)
    title += f"; about {duration(left_s)} left" if left_s else ""
    shown, caption = list(runs), []
    if room is not None and len(shown) > room:
        shown.sort(key=lambda run: WORST_FIRST.index(run.status) if run.status in WORST_FIRST else len(WORST_FIRST))
        shown = shown[:room]
        caption = [Text(f"and {len(runs) - room} more", style="dim")]
    lines = [["run", "state", "epoch", "step", "metric", "left", "attempts", "note"]]
    for run in shown:
        place = [run.epoch, run.step, run.metric, run.left(), str(run.attempts)]
        lines.append([run.name, run.status.value, *place, run.reason])
    styles = [COLOURS.get(run.status, "dim") for run in shown]
    return Group(Text(title), *fitted(lines, width, styles, right=frozenset({2, 3, 5, 6})), *caption)


def choose_display() -> Display:
    """A live table if standard error is a terminal that can draw one, else plain lines."""
    console = Console(stderr=True)
    return LiveTable(console) if console.is_terminal and not console.is_dumb_terminal else PlainLines(console)
