"""Kills: which signal hits what and when, drawn at random, and how to wait for the moment."""

from __future__ import annotations

import enum
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from killing.whereabouts import Activity, Whereabouts

__all__ = ["Moment", "Scene", "Shot", "any_file", "draw_shot"]

_POLL_S = 0.0005


class Moment(enum.StrEnum):
    """What a kill is aimed at."""

    ANY = "any time"
    START_UP = "start-up"
    ACCUMULATION = "accumulation"
    VALIDATION = "validation"
    CHECKPOINT = "checkpoint write"


@dataclass(frozen=True)
class Shot:
    """One kill.

    Attributes:
        signal: what is sent.
        group: to the whole process group, as schedulers do, rather than to the training process alone.
        moment: what it is aimed at.
        occurrence: the how many-th such moment in the process's life it is aimed at, from 1.
        delay: how far into the moment, from 0 to 1.
        second: a signal that follows, if the process is still there then.
        second_delay_s: how many seconds later.
    """

    signal: Signals
    group: bool
    moment: Moment
    occurrence: int
    delay: float
    second: Signals | None = None
    second_delay_s: float = 0.0

    def __str__(self) -> str:
        target = "group" if self.group else "process"
        second = f", then {self.second.name}" if self.second else ""
        return f"{self.signal.name} to the {target} at {self.moment} {self.occurrence}{second}"


# Where a signal hits within a moment: up to so many seconds after it began.
_WIDTH_S = {Moment.START_UP: 0.1, Moment.ACCUMULATION: 0.003, Moment.VALIDATION: 0.005, Moment.CHECKPOINT: 0.02}
_OCCURRENCES = {Moment.ACCUMULATION: 8, Moment.VALIDATION: 4, Moment.CHECKPOINT: 5}
_ACTIVITIES = {Moment.ACCUMULATION: Activity.ACCUMULATION, Moment.VALIDATION: Activity.VALIDATION}


def draw_shot(draw: random.Random) -> Shot:
    """A random kill; every sixth that can be caught is followed by another."""
    number = draw.choice([Signals.SIGTERM, Signals.SIGUSR1, Signals.SIGKILL])
    moment = draw.choices(list(Moment), weights=[5, 1, 3, 4, 5])[0]
    second = None
    if number is not Signals.SIGKILL and draw.random() < 1 / 6:
        second = draw.choice([Signals.SIGTERM, Signals.SIGUSR1, Signals.SIGKILL, Signals.SIGKILL])
    return Shot(
        signal=number,
        group=draw.random() < 0.5,
        moment=moment,
        occurrence=draw.randint(1, _OCCURRENCES.get(moment, 1)),
        delay=draw.random(),
        second=second,
        second_delay_s=draw.uniform(0, 0.02),
    )


@dataclass(frozen=True)
class Scene:
    """What there is to see of a training process from outside.

    Attributes:
        whereabouts: what the process says.
        is_writing: whether a checkpoint is being written, seen in the files.
        lifetime_s: how long an undisturbed process takes.
        has_ended: whether the process is gone.
        clock: monotonic, in seconds.
    """

    whereabouts: Whereabouts
    is_writing: Callable[[], bool]
    lifetime_s: float
    has_ended: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic

    def await_moment(self, shot: Shot) -> bool:
        """Wait for the moment of a kill; False if the process ended before."""
        if shot.moment is Moment.ANY:
            return self._pass(shot.delay * self.lifetime_s)
        if shot.moment is Moment.START_UP:
            return self._pass(shot.delay * _WIDTH_S[shot.moment])
        for _ in range(shot.occurrence):
            if not (self._until(shot.moment, False) and self._until(shot.moment, True)):
                return False
        return self._pass(shot.delay * _WIDTH_S[shot.moment])

    def _until(self, moment: Moment, expected: bool) -> bool:
        wanted = _ACTIVITIES.get(moment)
        while True:
            there = self.is_writing() if wanted is None else self.whereabouts.activity is wanted
            if there is expected:
                return True
            if self.has_ended():
                return False
            time.sleep(_POLL_S)

    def _pass(self, seconds: float) -> bool:
        end = self.clock() + seconds
        while (left := end - self.clock()) > 0:
            if self.has_ended():
                return False
            time.sleep(min(left, 0.002))
        return not self.has_ended()


def any_file(directory: Path, prefix: str) -> bool:
    """Whether a directory holds an entry whose name begins so."""
    try:
        return any(path.name.startswith(prefix) for path in directory.iterdir())
    except OSError:
        return False
