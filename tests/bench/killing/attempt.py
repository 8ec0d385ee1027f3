"""One attempt of a run: a training process from its start to its end, killed or not, and what it left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from killing.lane import Lane, Victim
from killing.shots import Scene, Shot
from killing.whereabouts import Activity, Whereabouts

__all__ = ["Attempt", "Sight", "make_attempt"]

PATIENCE_S = 120.0
"""After so many seconds a process counts as hanging."""


@dataclass(frozen=True)
class Sight:
    """What the process was at when the signal was sent.

    Attributes:
        listening: its handlers were in place.
        activity: what it said.
        place: where it stood.
        writing: a checkpoint was being written.
        at: wall clock, in seconds since 1970.
    """

    listening: bool
    activity: Activity
    place: dict[str, Any] | None
    writing: bool
    at: float


@dataclass(frozen=True)
class Attempt:
    """How it went.

    Attributes:
        shot: the kill, None if none was meant for it or it ended before.
        sight: the process at that moment, None likewise.
        status: exit status, negative for a signal; None if it hung.
        began: where training began.
        ended: where it stood in the end.
        group: the process group that it led.
        seconds: how long it took.
        log: the file with what it said.
    """

    shot: Shot | None
    sight: Sight | None
    status: int | None
    began: dict[str, Any] | None
    ended: dict[str, Any] | None
    group: int
    seconds: float
    log: Path

    def said(self, length: int = 600) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-length:] if self.log.exists() else ""


def make_attempt(
    lane: Lane,
    request: dict[str, Any],
    name: str,
    shot: Shot | None,
    is_writing: Callable[[Whereabouts], bool],
    lifetime_s: float,
) -> Attempt:
    """Start a process, kill it as the shot says, and wait for its end.

    Args:
        lane: where it is started.
        request: what it is asked to do; `folder` is the run's.
        name: of the attempt, for its files.
        shot: how to kill it; None lets it run.
        is_writing: whether a checkpoint is being written.
        lifetime_s: how long an undisturbed process takes.
    """
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    memory, log = folder / f"{name}.whereabouts", folder / f"{name}.log"
    whereabouts = Whereabouts(memory, create=True)
    began = time.monotonic()
    victim = lane.start(request | {"whereabouts": str(memory), "log": str(log)})
    scene = Scene(whereabouts, lambda: is_writing(whereabouts), lifetime_s, victim.has_ended)
    sight = _shoot(victim, scene, shot) if shot is not None and scene.await_moment(shot) else None
    status = victim.wait(PATIENCE_S)
    if status is None:
        victim.end()
    attempt = Attempt(
        shot=shot if sight else None,
        sight=sight,
        status=status,
        began=whereabouts.began(),
        ended=whereabouts.now(),
        group=victim.pid,
        seconds=time.monotonic() - began,
        log=log,
    )
    whereabouts.close()
    memory.unlink()
    return attempt


def _shoot(victim: Victim, scene: Scene, shot: Shot) -> Sight | None:
    seen = scene.whereabouts
    sight = Sight(seen.listening, seen.activity, seen.now(), scene.is_writing(), time.time())
    if not victim.send(shot.signal, group=shot.group):
        return None
    if shot.second is not None:
        time.sleep(shot.second_delay_s)
        if not victim.has_ended():  # its number may soon be another's
            victim.send(shot.second, group=shot.group)
    return sight
