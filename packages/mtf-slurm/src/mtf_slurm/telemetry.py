"""How far a run is, from the tail of its metrics, and why it failed, from the tail of its log."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from mtf_slurm.status import Evidence, JobStatus, Verdict
from mtf_utils.rundir import WALL_CLOCK_FIELDS, Outcome, RunDirectory

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
_EVENT: Final = '{"event": "'
"""How the lines of a journal begin."""

_UNREADABLE: Final = (ValueError, RecursionError)
"""What a line raises that is no JSON, or is nested too deeply."""

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
    """The metrics of a record of `metrics.jsonl`: its numbers, but for position and clock.

    None stands for NaN, infinities, and what is larger than any float, in journals of whoever writes such.
    """
    left_out = POSITION_FIELDS | WALL_CLOCK_FIELDS
    return {
        key: value if value is not None and abs(value) <= sys.float_info.max else None
        for key, value in record.items()
        if key not in left_out and (value is None or isinstance(value, int | float)) and not isinstance(value, bool)
    }


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records at the end of a metrics journal; none when there is no journal yet.

    The journal may be cut back and written anew meanwhile, so lines that cannot be read are passed over.
    """
    return _records(_tail(path))


def read_telemetry(path: Path) -> Telemetry:
    """What the end of a metrics journal tells; empty when there is none yet."""
    text = _tail(path)
    try:
        return telemetry_of(_decoded(_telling_lines(text)))
    except _UNREADABLE:  # the last line of some kind is not whole: then one before it counts
        return telemetry_of(_records(text))


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


def _records(text: str) -> list[dict[str, Any]]:
    """The records among the lines of a journal's end."""
    lines = text.splitlines()
    try:
        return _decoded(lines)
    except _UNREADABLE:
        found = []
        for line in lines:
            with contextlib.suppress(*_UNREADABLE):
                found += _decoded([line])
        return found


def _decoded(lines: Iterable[str]) -> list[dict[str, Any]]:
    """The records in lines; in one go, for a tail has a hundred of them."""
    return [value for value in json.loads(f"[{','.join(filter(None, lines))}]") if isinstance(value, dict)]


def _telling_lines(text: str) -> list[str]:
    """Lines of a journal's end whose records tell of a run what all of them tell: of each kind, the first and the last.

    Lines are of one kind if they have the same keys. Where each names its event first and has no other text in it, as
    the trainer writes them, what stands between quotes says so; others are all taken.
    """
    lines = text.splitlines()
    events = text.count(_EVENT)
    if not events == len(lines) == text.count("{") == text.count('": "') or "[" in text or "\\" in text:
        return lines
    kinds: dict[tuple[str, ...], list[int]] = {}
    for place, line in enumerate(lines):
        kinds.setdefault(tuple(line.split('"')[1::2]), [place, place])[1] = place
    return [lines[place] for place in sorted({place for ends in kinds.values() for place in ends})]


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


def failure_reason(evidence: Evidence, verdict: Verdict, run: RunDirectory) -> str:
    """Why a run is in its state; where the receipt only says that the command failed, what its log says."""
    last = evidence.last
    receipt = last.finished if last else None
    if last is None or receipt is None:
        return verdict.reason
    if verdict.status is JobStatus.OUT_OF_MEMORY:
        # Slurm says so of a job that lost any process, such as a loader worker: add how the command took that
        own = receipt.outcome is Outcome.FAILED and (receipt.exit_status or 0) <= 128
        said = last_error_line(run.log_file(last.number)) if own else ""
        return "; ".join(part for part in (verdict.reason, said) if part)
    if verdict.status is not JobStatus.FAILED or evidence.given_up:
        return verdict.reason
    if receipt.outcome not in (Outcome.FAILED, Outcome.DO_NOT_REQUEUE):
        return verdict.reason  # it is not this attempt that failed
    if receipt.outcome is Outcome.FAILED and (receipt.exit_status is None or receipt.exit_status > 128):
        return verdict.reason  # it was killed, and had no last words
    line = last_error_line(run.log_file(last.number))
    if receipt.outcome is Outcome.DO_NOT_REQUEUE:
        return receipt.reason or ("it said that it must not run again (status 76)" + (f": {line}" if line else ""))
    return line or verdict.reason


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
