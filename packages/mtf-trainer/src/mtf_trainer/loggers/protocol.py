"""What a logger is, and what it makes of a record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

__all__ = ["LogRecord", "MetricLogger", "metrics_of"]

LogRecord = Mapping[str, float | int | str | None]
"""A record of the journal: `event`, `epoch`, `step`, then metrics by name, and `time`; null stands for NaN.

The event is `train`, `validation`, `epoch`, `log` (metrics of a user), or `image`, which has `name` and `file` instead
of metrics: the path of a PNG file, relative to the journal.
"""

POSITION: Final = frozenset({"event", "epoch", "step", "time"})


@runtime_checkable
class MetricLogger(Protocol):
    """Takes the records of a run in order, once the journal has them. The journal stays the record of the run."""

    def open(self, journal: Path, position: int | None) -> None:
        """Called before the first record in every process.

        Args:
            journal: the file of all records.
            position: how many records the run has so far: those are in the journal, and the next one has this number;
                None when a new run begins. After a kill, records behind it come once more.
        """

    def log(self, record: LogRecord) -> None:
        """Take the next record."""

    def close(self) -> None:
        """Called when the process stops training, however it comes; closing twice does no harm."""


def metrics_of(record: LogRecord) -> dict[str, float]:
    """The metrics of a record, as charts know them: a mean over an epoch is a chart of its own."""
    prefix = "epoch/" if record["event"] == "epoch" else ""
    return {
        f"{prefix}{name}": math.nan if value is None else float(value)
        for name, value in record.items()
        if name not in POSITION and not isinstance(value, str)
    }
