"""Runs that are killed once and restarted as documented, and what they differ in from the undisturbed one."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from killing.attempt import Attempt, make_attempt
from killing.lane import Lane
from killing.peers import layout
from killing.shots import Moment, Shot, any_file
from killing.whereabouts import Whereabouts

__all__ = ["HEADING", "Cell", "cells", "fill"]

MOMENTS: Final = {Moment.ANY: 4, Moment.ACCUMULATION: 3, Moment.VALIDATION: 3, Moment.CHECKPOINT: 5}
TRIES: Final = 12
RESTARTS: Final = 3
_NAMES: Final = {
    "with_ours": "mtf-trainer",
    "with_lightning": "Lightning",
    "with_transformers": "HF Trainer",
    "with_accelerate": "Accelerate",
}


@dataclass
class Cell:
    """A row of the scoreboard.

    Attributes:
        module: of `killing.peers`.
        workers: loader processes.
        signal: what kills, sent to the whole process group.
        options: further keys of the request.
        kills: how many hit.
        identical: runs that ended as the undisturbed one.
        stuck: runs that could not be restarted.
        false_success: kills after which an unfinished process ended with status 0.
        differs: what the others differ in first.
        errors: how processes of stuck runs ended.
    """

    module: str
    workers: int
    signal: signal.Signals
    options: dict[str, Any] = field(default_factory=lambda: {"careful": False})
    kills: int = 0
    identical: int = 0
    stuck: int = 0
    false_success: int = 0
    differs: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """The framework, and how it is used."""
        return _NAMES[self.module] + (" + save_on_exception" if self.options["careful"] else "")

    def line(self) -> str:
        """The row as text."""
        differs = ", ".join(f"{name} {count}" for name, count in self.differs.most_common()) or "-"
        return (
            f"{self.name:<30}{self.signal.name[3:]:>6}{self.workers:>9}{self.kills:>7}{self.identical:>15}"
            f"{self.stuck:>16}{self.false_success:>15}  {differs}"
        )


HEADING: Final = (
    f"{'framework':<30}{'signal':>6}{'workers':>9}{'kills':>7}{'bit-identical':>15}{'cannot restart':>16}"
    f"{'false success':>15}  differs first in"
)


def cells() -> Iterator[Cell]:
    """All rows, anew."""
    for module in _NAMES:
        for careful in [False, True] if module == "with_lightning" else [False]:
            for number in (signal.SIGKILL, signal.SIGTERM):
                for workers in (0, 2):
                    yield Cell(module, workers, number, {"careful": careful})


def fill(cell: Cell, lane: Lane, folder: Path, kills: int, seed: int) -> None:
    """Make so many killed runs and count what became of them."""
    reference = folder / "undisturbed"
    request = {"workers": cell.workers, **cell.options}
    # The first process of a zygote is not like the others in speed, so the second one is timed.
    lifetime_s = 0.0
    for place in (folder / "warm-up", reference):
        attempt = make_attempt(lane, request | {"folder": str(place)}, "attempt-1", None, _is_writing(place), 0.0)
        if attempt.status != 0 or not (place / "digest.json").exists():
            raise RuntimeError(f"{cell.name} does not finish even undisturbed: {attempt.said()}")
        lifetime_s = attempt.seconds
    expected = outcome(reference)
    draw = random.Random(seed)
    for index, moment in enumerate(plan(kills)):
        for turn in range(TRIES):
            shot = draw_single(draw, cell.signal, moment)
            place = folder / f"run-{index}-{turn}"
            # How long a process takes varies with the machine's load: after a miss, earlier.
            if _kill_once(cell, lane, request | {"folder": str(place)}, shot, lifetime_s * 0.85**turn):
                _continue(cell, lane, request | {"folder": str(place)}, expected)
                break


def plan(kills: int) -> list[Moment]:
    """What the kills are aimed at, in the proportions of `MOMENTS`."""
    every = [moment for moment, count in MOMENTS.items() for _ in range(count)]
    return [every[index * len(every) // kills % len(every)] for index in range(kills)]


def draw_single(draw: random.Random, number: signal.Signals, moment: Moment) -> Shot:
    """One random kill of the whole group, late enough for a checkpoint to be there already.

    Before that every framework starts over, which proves nothing.
    """
    ranges = {Moment.ACCUMULATION: (layout.SAVE_EVERY + 1, 25), Moment.VALIDATION: (1, 2), Moment.CHECKPOINT: (2, 6)}
    occurrence = draw.randint(*ranges.get(moment, (1, 1)))
    # Writes are short where nobody waits for the disk: more of the kills come early in them.
    delay = draw.uniform(0.4, 1) if moment is Moment.ANY else draw.random() ** 2
    return Shot(number, True, moment, occurrence, delay)


def _is_writing(folder: Path) -> Any:
    def is_writing(whereabouts: Whereabouts) -> bool:
        return whereabouts.saving or any_file(folder / "checkpoints", ".writing-")

    return is_writing


def _kill_once(cell: Cell, lane: Lane, request: dict[str, Any], shot: Shot, lifetime_s: float) -> bool:
    """Whether a process was killed after its first checkpoint and before it was done."""
    folder = Path(request["folder"])
    attempt = make_attempt(lane, request, "attempt-1", shot, _is_writing(folder), lifetime_s)
    if attempt.sight is None or (folder / "digest.json").exists():
        return False
    # Ours does not say: it has a checkpoint from the beginning.
    if not (attempt.sight.place or {}).get("saved", True):
        return False
    cell.kills += 1
    cell.false_success += attempt.status == 0
    return True


def _continue(cell: Cell, lane: Lane, request: dict[str, Any], expected: dict[str, Any]) -> None:
    folder = Path(request["folder"])
    for number in range(RESTARTS):
        attempt = make_attempt(lane, request, f"attempt-{2 + number}", None, _is_writing(folder), 0.0)
        if (folder / "digest.json").exists():
            difference = first_difference(outcome(folder), expected)
            cell.identical += difference is None
            if difference is not None:
                cell.differs[difference] += 1
            return
    cell.stuck += 1
    cell.errors[_last_line(attempt)] += 1


def _last_line(attempt: Attempt) -> str:
    lines = [line for line in attempt.said(4000).splitlines() if line.strip()]
    return f"status {attempt.status}: {lines[-1][:200] if lines else 'silent'}"


def outcome(folder: Path) -> dict[str, Any]:
    """What a run came to: its effective history, where each position counts as it was gone through last, and the end.

    Also which position each process began at, which tells apart what a restart lost.
    """
    history: dict[tuple[int, ...], dict[str, Any]] = {}
    first: dict[int, tuple[int, ...]] = {}
    for line in (folder / "trace.jsonl").read_text().splitlines():
        record = json.loads(line)
        at = tuple(record.pop("at"))
        first.setdefault(record.pop("process"), at)
        history[at] = record
    digest = json.loads((folder / "digest.json").read_text())
    return {"history": history, "first": list(first.values()), "digest": digest}


def first_difference(found: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """What two runs differ in first; None if they are the same to the last bit."""
    for at in sorted(expected["history"], key=_in_order):
        there, here = found["history"].get(at), expected["history"][at]
        if there == here:
            continue
        if there is None or there["ids"] != here["ids"]:
            return "data order"
        if there["inputs"] != here["inputs"]:
            return "augmentation"
        cut_window = any(start[1] > 0 and start[0] == at[0] - 1 for start in found["first"][1:])
        return "accumulated gradients" if cut_window else "dropout" if at in found["first"] else "weights"
    if found["history"].keys() != expected["history"].keys():
        return "number of steps"
    parts = [name for name, value in expected["digest"].items() if found["digest"][name] != value]
    return parts[0] if parts else None


def _in_order(at: tuple[int, ...]) -> tuple[int, ...]:
    """Validation comes after the steps that it follows, before the next one."""
    return (at[0], 0, *at[1:]) if at[1] < 0 else (at[0], 1, *at[1:])
