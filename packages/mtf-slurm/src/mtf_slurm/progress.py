"""Live progress of the runs: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mtf_slurm.status import JobStatus
from mtf_slurm.views import Display, RunView
from mtf_slurm.wording import spoken
from mtf_utils.display import printable

__all__ = ["LiveTable", "PlainLines", "choose_display", "runs_table"]

COLOURS = {
    JobStatus.COMPLETED: "green",
    JobStatus.RUNNING: "cyan",
    JobStatus.FAILED: "red",
    JobStatus.LOST: "red",
    JobStatus.UNKNOWN: "magenta",
    JobStatus.PREEMPTED: "yellow",
    JobStatus.CANCELLED: "yellow",
}
WORST_FIRST = (JobStatus.RUNNING, JobStatus.FAILED, JobStatus.LOST, JobStatus.UNKNOWN, JobStatus.CANCELLED)


class PlainLines:
    """One line for every change of a run's state or epoch; for logs and pipes."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._shown: dict[str, tuple[JobStatus, int, int | None]] = {}

    def update(self, runs: Sequence[RunView]) -> None:
        """Print the runs that changed; those that only wait are not worth a line."""
        for run in runs:
            key = (run.status, run.attempts, run.telemetry.epoch)
            before = self._shown.get(run.name)
            self._shown[run.name] = key
            if before != key and not (before is None and run.status is JobStatus.PENDING):
                self.say(self._line(run))

    def _line(self, run: RunView) -> str:
        epoch = "" if run.telemetry.epoch is None else f" epoch {run.telemetry.epoch}"
        attempt = f" attempt {run.attempts}" if run.attempts > 1 else ""
        note = f": {run.note}" if run.note else ""
        return f"{run.name}: {run.status}{attempt}{epoch}{note}"

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
        room = max(3, self._console.size.height - 6)
        self._live.update(runs_table(runs, room=room), refresh=True)

    def say(self, text: str) -> None:
        """Print the line above the table."""
        self._live.console.print(printable(text, lines=True), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last table standing."""
        self._live.stop()


def runs_table(runs: Sequence[RunView], *, room: int | None = None) -> Table:
    """The runs as a table.

    Args:
        runs: in order.
        room: how many are shown at most, those at work and in trouble before others; None shows all.
    """
    counts = Counter(run.status for run in runs)
    title = ", ".join(f"{count} {spoken(status.value)}" for status, count in sorted(counts.items()))
    table = Table(title=Text(title), title_justify="left", expand=False)
    table.add_column("run", overflow="fold")
    for heading in ("state", "epoch", "step", "attempts"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "state" else "right")
    table.add_column("note", overflow="ellipsis", no_wrap=True, ratio=1)
    shown = list(runs)
    if room is not None and len(shown) > room:
        shown.sort(key=lambda run: WORST_FIRST.index(run.status) if run.status in WORST_FIRST else len(WORST_FIRST))
        shown = shown[:room]
        table.caption = f"and {len(runs) - room} more"
    for run in shown:
        table.add_row(
            Text(run.name),
            Text(run.status.value, style=COLOURS.get(run.status, "dim")),
            _number(run.telemetry.epoch),
            _number(run.telemetry.global_step),
            str(run.attempts),
            Text(printable(run.note)),
        )
    return table


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def choose_display() -> Display:
    """A live table if standard error is a terminal that can draw one, else plain lines."""
    console = Console(stderr=True)
    return LiveTable(console) if console.is_terminal and not console.is_dumb_terminal else PlainLines(console)
