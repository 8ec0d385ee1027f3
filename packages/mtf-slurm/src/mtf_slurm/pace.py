"""How far a run has to go, how fast it goes and when it will be there: from its configuration and its journal."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from mtf_slurm.status import AttemptEvidence
from mtf_utils.rundir import GoalFile, RunDirectory, StartReceipt

__all__ = ["Goal", "Pace", "duration", "moment", "pace_of", "took_s"]

MOST: Final = 1e15
"""What no count of steps and no time in seconds exceeds."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a run is to come to, as far as that is known before it is there.

    Attributes:
        epochs: of the whole training.
        max_steps: the optimizer steps after which it ends at the latest.
        total_steps: the optimizer steps that it takes, which its trainer says once it has begun.
        monitor: the metric that its checkpoints are ranked by; empty if nothing tells.
    """

    epochs: int | None = None
    max_steps: int | None = None
    total_steps: int | None = None
    monitor: str = ""

    @classmethod
    def of(cls, run: RunDirectory) -> Self:
        """What a run's configuration and its trainer say; nothing if they cannot be read, which others complain of."""
        try:
            config = json.loads(run.config_json.read_text("utf-8"))
            said = GoalFile.read(run.goal_file)
        except (OSError, ValueError):
            return cls()
        training, checkpoint = _section(config, "training"), _section(config, "checkpoint")
        monitor = checkpoint.get("monitor")
        return cls(
            epochs=said.epochs if said else _count(training.get("epochs")),
            max_steps=_count(training.get("max_steps")),
            total_steps=said.total_steps if said else None,
            monitor=monitor if isinstance(monitor, str) else "",
        )


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast an attempt goes.

    Attributes:
        steps_per_s: optimizer steps; None as long as nothing tells, as all of these.
        total_steps: of the whole training.
        began_at: when it began, in seconds since 1970.
        ends_at: when it will be done if it goes on like that, in seconds since 1970.
    """

    steps_per_s: float | None = None
    total_steps: int | None = None
    began_at: float | None = None
    ends_at: float | None = None

    def left_s(self, now: float | None = None) -> float | None:
        """Seconds until it is done; None if that is not known."""
        return None if self.ends_at is None else max(0.0, self.ends_at - (time.time() if now is None else now))


def pace_of(records: Sequence[Mapping[str, Any]], goal: Goal, started: StartReceipt | None) -> Pace:
    """The pace of the attempt at work.

    The time before a restart is in no rate, nor is what an attempt takes until its first record.

    Args:
        records: the end of the run's journal, in order.
        goal: of the run.
        started: the start receipt of the attempt; None if none is at work.
    """
    total = _total_steps(records, goal)
    began = moment(started.started_at) if started else math.inf
    points = [(_number(record, "time"), _step(record)) for record in records]
    points = [(at, step) for at, step in points if at >= began and step >= 0]
    if not points or not (points[-1][0] > points[0][0] and points[-1][1] > points[0][1]):
        return Pace(total_steps=total)
    (first_s, first), (last_s, last) = points[0], points[-1]
    rate = (last - first) / (last_s - first_s)
    ends_at = None if total is None else last_s + max(0.0, total - last) / rate
    return Pace(steps_per_s=rate, total_steps=total, began_at=began, ends_at=ends_at)


def _total_steps(records: Sequence[Mapping[str, Any]], goal: Goal) -> int | None:
    """How many steps training takes; epochs are alike, and one that is over tells how many all of them have."""
    if goal.total_steps is None and goal.epochs is not None:
        for record in reversed(records):
            over, steps = _number(record, "epoch") + 1, _step(record)
            if record.get("event") == "epoch" and over >= 1 and steps >= 1:
                total = round(steps / over * goal.epochs)
                return total if goal.max_steps is None else min(total, goal.max_steps)
    return goal.total_steps or goal.max_steps


def duration(seconds: float) -> str:
    """A time span as people read it: `1:05`, `2:00:00`, `3 d 4:00:00`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = f"{hours}:{minutes:02d}:{rest:02d}" if hours or days else f"{minutes}:{rest:02d}"
    return f"{days} d {text}" if days else text


def moment(text: str) -> float:
    """The time of a receipt in seconds since 1970; infinite if it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:  # a receipt of another hand
        return math.inf


def took_s(attempts: Iterable[AttemptEvidence]) -> float:
    """How long attempts took together, as far as their receipts tell."""
    pairs = ((a.started, a.finished) for a in attempts)
    spans = (moment(end.finished_at) - moment(start.started_at) for start, end in pairs if start and end)
    return sum(span for span in spans if math.isfinite(span))


def _section(config: Any, name: str) -> Mapping[str, Any]:
    found = config.get(name) if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _step(record: Mapping[str, Any]) -> float:
    return _number(record, "step" if "step" in record else "global_step")


def _number(record: Mapping[str, Any], key: str) -> float:
    """A field of a record; NaN, which is neither more nor less than anything, if there is no number of a usual size."""
    value = record.get(key)
    usual = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST
    return float(value) if usual and value is not None else math.nan
