"""A run of our trainer that is killed several times, and the judgement of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from killing.attempt import Attempt, make_attempt
from killing.lane import Lane, is_deserted
from killing.shots import Shot, any_file
from killing.whereabouts import Whereabouts

__all__ = ["SETUPS", "Caught", "Run", "Setup", "make_run"]

PREEMPTED: Final = 75
"""The exit status that says: stopped, nothing is lost, run again."""


@dataclass(frozen=True)
class Setup:
    """A configuration of the task.

    Attributes:
        workers: loader processes.
        persistent: they live from epoch to epoch.
        async_save: periodic checkpoints are written in the background.
    """

    workers: int
    persistent: bool
    async_save: bool

    def __str__(self) -> str:
        workers = f"{self.workers} {'persistent ' if self.persistent else ''}workers"
        return f"{workers}, {'background' if self.async_save else 'blocking'} saves"

    def request(self, folder: Path) -> dict[str, Any]:
        """What a training process is asked to do."""
        return {"folder": str(folder), "whereabouts": None, **vars(self)}


SETUPS: Final = tuple(
    Setup(workers, persistent, async_save)
    for workers, persistent, async_save in [
        (0, False, True),
        (2, True, False),
        (2, False, True),
        (0, False, False),
        (2, True, True),
        (2, False, False),
    ]
)


class Caught:
    """What became of a signal that met the trainer's handlers: the values of `fates` in `Run`."""

    DURABLE: Final = "ended in 75, the stopped state durable"
    COMPLETE: Final = "training was complete by then"
    CUT_SHORT: Final = "a SIGKILL followed before the state was durable"
    LOST: Final = "lost work"


@dataclass
class Run:
    """A run from its first process to its last.

    Attributes:
        setup: the configuration.
        attempts: its processes.
        fates: what became of each signal that met handlers.
        to_durable_s: seconds from a signal to the durable checkpoint.
        faults: whatever should not have been, in words.
        identical: whether its digest is that of the undisturbed run.
    """

    setup: Setup
    attempts: list[Attempt] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)
    to_durable_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    identical: bool = False

    @property
    def kills(self) -> int:
        """How many kills hit."""
        return sum(attempt.shot is not None for attempt in self.attempts)


def make_run(
    lane: Lane, setup: Setup, folder: Path, shots: Iterator[Shot], lifetime_s: float, reference: dict[str, str]
) -> Run:
    """Start processes and kill them until the shots are used up, let the last one finish, and compare.

    Args:
        lane: where processes are started.
        setup: the configuration.
        folder: of the run; new.
        shots: the kills; when they end, the next process is left alone.
        lifetime_s: how long an undisturbed process takes.
        reference: the digest of the undisturbed run.
    """
    run = Run(setup)
    checkpoints = folder / "checkpoints"

    def is_writing(_: Whereabouts) -> bool:
        return any_file(checkpoints, ".writing-")

    while not (folder / "digest.json").exists():
        before = newest_place(checkpoints)
        name = f"attempt-{len(run.attempts) + 1}"
        attempt = make_attempt(lane, setup.request(folder), name, next(shots, None), is_writing, lifetime_s)
        run.attempts.append(attempt)
        if attempt.began is not None and before is not None and attempt.began != before:
            run.faults.append(f"{name} began at {attempt.began}, but the newest checkpoint was at {before}")
        if "exact: " in attempt.said():  # a part of the state is named, or what results are no longer
            run.faults.append(f"{name} was not restored exactly: {attempt.said()}")
        if fault := _fault(attempt):
            run.faults.append(f"{name}: {fault}; it said: {attempt.said()}")
            return run
        _judge_caught(run, attempt, checkpoints)
    _judge_end(run, folder, reference)
    return run


def _fault(attempt: Attempt) -> str | None:
    """What is wrong with the exit status, if anything."""
    shot, status = attempt.shot, attempt.status
    if status is None:
        return f"hung after {shot or 'nothing'}"
    if shot is None or attempt.sight is None:
        return None if status == 0 else f"ended with status {status} although nothing was done to it"
    allowed = {0, PREEMPTED, -shot.signal} | ({-shot.second} if shot.second else set())
    return None if status in allowed else f"ended with status {status} after {shot}"


def _judge_caught(run: Run, attempt: Attempt, checkpoints: Path) -> None:
    shot, sight = attempt.shot, attempt.sight
    if shot is None or sight is None or not sight.listening or shot.signal is signal.SIGKILL:
        return
    name = f"attempt-{len(run.attempts)}"
    durable = newest_kind(checkpoints) == "emergency" and newest_place(checkpoints) == attempt.ended
    complete = attempt.ended is not None and attempt.ended["phase"] == "training_complete"
    # A second signal may find the handlers gone again, the state being safe by then.
    by_second = shot.second is not None and attempt.status == -shot.second
    if durable and (attempt.status == PREEMPTED or by_second):
        run.fates.append(Caught.DURABLE)
        if shot.second is None:
            changed_at = (checkpoints / "latest").stat().st_ctime
            run.to_durable_s.append(max(0.0, changed_at - sight.at))
    elif complete or (attempt.began is None and attempt.status == 0):
        run.fates.append(Caught.COMPLETE)
    elif shot.second is signal.SIGKILL and attempt.status == -signal.SIGKILL:
        run.fates.append(Caught.CUT_SHORT)
    else:
        run.fates.append(Caught.LOST)
        run.faults.append(f"{name} lost work after {shot} in {sight}: status {attempt.status}; {attempt.said()}")


def _judge_end(run: Run, folder: Path, reference: dict[str, str]) -> None:
    found = json.loads((folder / "digest.json").read_text())
    run.identical = found == reference
    if not run.identical:
        parts = [name for name in reference if found.get(name) != reference[name]]
        kills = "; ".join(f"{attempt.shot} in {attempt.sight}" for attempt in run.attempts if attempt.shot)
        run.faults.append(f"differs in {', '.join(parts)} after: {kills}")
    names = [path.name for path in (folder / "checkpoints").iterdir()]
    left = [name for name in names if name.startswith((".writing", ".removing")) or ".damaged" in name]
    if left:
        run.faults.append(f"left behind: {', '.join(left)}")
    for number, attempt in enumerate(run.attempts, 1):
        if not is_deserted(attempt.group):
            run.faults.append(f"attempt-{number}: processes of its group are still there after {attempt.shot}")


def _newest(checkpoints: Path) -> Path | None:
    return max(checkpoints.glob("ckpt-*-step-*[0-9]"), default=None)


def newest_kind(checkpoints: Path) -> str | None:
    """Why the newest checkpoint was made."""
    newest = _newest(checkpoints)
    return None if newest is None else json.loads((newest / "manifest.json").read_text())["kind"]


def newest_place(checkpoints: Path) -> dict[str, Any] | None:
    """Where the newest checkpoint says that the run stands, in the terms of `killing.ours.place`."""
    newest = _newest(checkpoints)
    if newest is None:
        return None
    state = json.loads((newest / "resume.json").read_text())
    train, val = state["train"], state["val"]
    return {
        "phase": state["phase"],
        "epoch": state["epoch"],
        "step": state["global_step"],
        "event": state["event_index"],
        "validations": state["validations"],
        "train": train and [train["batch_idx"], train["micro_step"], train["step_done"], train["exhausted"]],
        "val": val and val["batch_idx"],
    }
