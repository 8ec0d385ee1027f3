"""Learning curves from journals, with as many points as a screen shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mtf_slurm.report.model import Curve
from mtf_slurm.telemetry import metrics_of

__all__ = ["POINTS", "read_curves", "thinned"]

POINTS: Final = 100
"""How many points a curve has at most."""

RECORDS: Final = 2000
"""How many records of one kind are decoded at most; of more, every n-th."""

WHOLE_BYTES: Final = 32 << 20
"""Journals up to this size are read whole; of larger ones, pieces from everywhere."""

_PIECES: Final = 256

_Point = tuple[int, int, float | None]


def read_curves(path: Path, *, points: int = POINTS) -> dict[str, Curve]:
    """The curves of a run by metric; none if there is no journal.

    A metric that records of several kinds have, as those of an epoch repeat what was validated, is taken from the kind
    that has most. Lines that cannot be read are passed over.

    Args:
        path: of `metrics.jsonl`.
        points: how many a curve has at most; of more, the lowest and the highest of each stretch stay.
    """
    found: dict[str, dict[str, list[_Point]]] = {}
    for record in _records(path):
        step, epoch = _count(record.get("step", record.get("global_step"))), _count(record.get("epoch"))
        if step is None:
            continue
        place = (step, -1 if epoch is None else epoch + 1)
        kind = str(record.get("event", ""))
        for name, value in metrics_of(record).items():
            found.setdefault(name, {}).setdefault(kind, []).append((*place, _rounded(value)))
    return {name: _curve(max(kinds.values(), key=len), points) for name, kinds in found.items()}


def _curve(points: list[_Point], most: int) -> Curve:
    steps, epochs, values = zip(*thinned(points, most), strict=True)
    return Curve(steps, epochs, values)


def thinned(points: list[_Point], most: int) -> list[_Point]:
    """At most so many of the points: the first, the last, and of each stretch between them the extremes."""
    if len(points) <= most:
        return points
    stretches = max(1, (most - 2) // 2)
    inner = points[1:-1]
    kept = [points[0]]
    for number in range(stretches):
        part = inner[number * len(inner) // stretches : (number + 1) * len(inner) // stretches]
        known = [point for point in part if point[2] is not None] or part[:1]
        ends = {min(known, key=_value), max(known, key=_value)} if known else set()
        kept += sorted(ends, key=lambda point: point[0])
    return [*kept, points[-1]]


def _value(point: _Point) -> float:
    return point[2] if point[2] is not None else 0.0


def _records(path: Path) -> Iterator[dict[str, Any]]:
    lines = _lines(path)
    if len(lines) > RECORDS:
        lines = _some_of_each_kind(lines)
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _lines(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size <= WHOLE_BYTES:
                file.seek(0)
                return file.read().splitlines()
            length = WHOLE_BYTES // _PIECES
            pieces = []
            for number in range(_PIECES):
                file.seek(number * (size - length) // (_PIECES - 1))
                lines = file.read(length).splitlines()
                pieces += lines[1:-1]  # the first and the last are parts of one
            return pieces
    except FileNotFoundError:
        return []


def _some_of_each_kind(lines: list[bytes]) -> list[bytes]:
    """Every n-th of the lines that begin alike, as those of one kind of record do; in order, with the last."""
    kinds: dict[bytes, list[int]] = {}
    for place, line in enumerate(lines):
        kinds.setdefault(line[: line.find(b",")], []).append(place)
    kept: set[int] = set()
    for places in kinds.values():
        kept.update(places[:: -(-len(places) // RECORDS)], places[-1:])
    return [lines[place] for place in sorted(kept)]


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rounded(value: float | None) -> float | None:
    """As precise as a plot: six digits."""
    return None if value is None else float(f"{value:.6g}")
