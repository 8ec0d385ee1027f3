"""How far a run is, from the tail of its metrics, and why it failed, from the tail of its log."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from mtf_slurm.status import Evidence, JobStatus, Verdict
from mtf_utils.rundir import WALL_CLOCK_FIELDS, Outcome

__all__ = [
    "Telemetry",
    "failure_reason",
    "last_error_line",
    "last_error_lines",
    "metrics_of",
    "read_records",
    "read_telemetry",
    "tail_lines",
    "telemetry_of",
]

TAIL_BYTES: Final = 16 * 1024
POSITION_FIELDS: Final = frozenset({"epoch", "step", "global_step"})
_TRACEBACK: Final = "Traceback (most recent call last):"
_OF_SLURM: Final = re.compile(r"(slurmstepd(-\S+)?|srun): ")
"""How lines begin that Slurm puts among those of a step, when one of its tasks has failed: they say nothing new."""

_ANSI: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """Where a run stands, as far as its metrics tell.

    Attributes:
        epoch: of the last record, counted from 1 as everything that people read; the journal counts from 0.
        global_step: of the last record.
        metrics: the last value of each metric among the records read.
        headline: the metric for where there is room for one; None without any.
    """

    epoch: int | None = None
    global_step: int | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    headline: str | None = None


def metrics_of(record: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics of a record of `metrics.jsonl`: its numbers, but for position and clock; null stands for NaN."""
    left_out = POSITION_FIELDS | WALL_CLOCK_FIELDS
    return {
        key: value
        for key, value in record.items()
        if key not in left_out and (value is None or isinstance(value, int | float)) and not isinstance(value, bool)
    }


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records at the end of a metrics journal; none when there is no journal yet.

    The journal may be cut back and written anew meanwhile, so lines that cannot be read are passed over.
    """
    return list(_records(_tail(path)))


def read_telemetry(path: Path) -> Telemetry:
    """What the end of a metrics journal tells; empty when there is none yet."""
    return telemetry_of(read_records(path))


def telemetry_of(records: Iterable[Mapping[str, Any]], monitor: str = "") -> Telemetry:
    """What records tell of where a run stands.

    Args:
        records: the last ones, in order.
        monitor: the metric to show where there is room for one; empty, or without a value, is the last one recorded.
    """
    last: dict[tuple[str, ...], tuple[int, Mapping[str, Any]]] = {}
    for place, record in enumerate(records):
        last[tuple(record)] = place, record  # of records that are alike, the last one tells all
    epoch = step = headline = None
    metrics: dict[str, float | None] = {name: None for _, record in last.values() for name in metrics_of(record)}
    for _, record in sorted(last.values(), key=itemgetter(0)):
        epoch = _position(record, "epoch", epoch)
        step = _position(record, "step", _position(record, "global_step", step))
        renewed = metrics_of(record)
        metrics |= renewed
        headline = next(iter(renewed), headline)
    return Telemetry(
        epoch=None if epoch is None else epoch + 1,
        global_step=step,
        metrics=metrics,
        headline=monitor if monitor in metrics else headline,
    )


def _records(text: str) -> Iterator[dict[str, Any]]:
    """The records among the lines of a journal's end."""
    lines = [line for line in text.splitlines() if line]
    try:
        values = json.loads(f"[{','.join(lines)}]")  # in one go: a tail has a hundred lines
    except ValueError:
        values = []
        for line in lines:
            with contextlib.suppress(ValueError):
                values.append(json.loads(line))
    return (value for value in values if isinstance(value, dict))


def _position(record: Mapping[str, Any], key: str, before: int | None) -> int | None:
    value = record.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else before


def last_error_line(log: Path) -> str:
    """The line of the log that says what went wrong: that of the last exception, else the last; empty if none.

    Source: the layout of a Python traceback: indented frames, then the exception flush left.
    """
    lines = tail_lines(log)
    starts = [index for index, line in enumerate(lines) if line.endswith(_TRACEBACK)]
    for start in reversed(starts):
        margin = lines[start][: -len(_TRACEBACK)]  # a launcher may put a prefix before every line
        for line in lines[start + 1 :]:
            text = line.removeprefix(margin)
            if text and not text[0].isspace() and not text.endswith(_TRACEBACK) and not _OF_SLURM.match(text):
                return text
    said = [line for line in lines if line.strip()]
    return next((line for line in reversed(said) if not _OF_SLURM.match(line)), said[-1] if said else "")


def last_error_lines(log: Path, most: int = 15) -> list[str]:
    """The end of the log that shows what went wrong: the last traceback with what follows it, else the last lines."""
    lines = tail_lines(log)
    starts = [index for index, line in enumerate(lines) if line.endswith(_TRACEBACK)]
    shown = lines[starts[-1] :] if starts else lines[-most:]
    return shown if len(shown) <= most else [shown[0], "  ...", *shown[2 - most :]]


def failure_reason(evidence: Evidence, verdict: Verdict, log: Path | None) -> str:
    """Why a run is in its state; where the receipt only says that the command failed, what its log says."""
    receipt = evidence.last.finished if evidence.last else None
    if verdict.status is JobStatus.OUT_OF_MEMORY and receipt is not None and log is not None:
        # Slurm says so of a job that lost any process, such as a loader worker: add how the command took that
        own = receipt.outcome is Outcome.FAILED and (receipt.exit_status or 0) <= 128
        return "; ".join(part for part in (verdict.reason, own and last_error_line(log)) if part)
    if verdict.status is not JobStatus.FAILED or receipt is None or evidence.given_up or log is None:
        return verdict.reason
    if receipt.outcome not in (Outcome.FAILED, Outcome.DO_NOT_REQUEUE):
        return verdict.reason  # it is not this attempt that failed
    if receipt.outcome is Outcome.DO_NOT_REQUEUE:
        line = last_error_line(log)
        return receipt.reason or ("it said that it must not run again (status 76)" + (f": {line}" if line else ""))
    killed = receipt.exit_status is None or receipt.exit_status > 128
    return verdict.reason if killed else last_error_line(log) or verdict.reason


def tail_lines(path: Path) -> list[str]:
    """The last lines of a log, without colours; none if there is no such file."""
    return [_ANSI.sub("", line).rstrip() for line in _tail(path).splitlines()]


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read(TAIL_BYTES)
    except FileNotFoundError:
        return ""
    if size > TAIL_BYTES:
        data = data[data.find(b"\n") + 1 :]  # the first line is a part of one
    return data.decode("utf-8", "replace")
