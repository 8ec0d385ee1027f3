"""One start of a distributed training by torchrun, from its beginning to its end, killed or not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from killing.lane import Lane, environment

__all__ = [
    "PATIENCE_S",
    "VICTIMS",
    "Kill",
    "Launch",
    "Launcher",
    "Outcome",
    "Place",
    "Starter",
    "fork_from",
    "start_afresh",
]

PATIENCE_S: Final = 120.0
"""After so many seconds a launch counts as hanging."""

GONE_S: Final = 30.0
"""Within so many seconds after the launcher every rank has to be gone."""

VICTIMS: Final = ("one", "all", "launcher", "kill-one", "kill-launcher")
"""Who gets SIGTERM, or SIGKILL."""


Place = tuple[int, int]
"""Epoch and batch, from 0."""


@dataclass(frozen=True)
class Kill:
    """Who is killed and when.

    Attributes:
        victim: one of `VICTIMS`.
        rank: which one, if it is one.
        place: the epoch and the batch that some rank has ended before.
        after_s: seconds from then on.
    """

    victim: str
    rank: int
    place: Place
    after_s: float


@dataclass(frozen=True)
class Outcome:
    """How a launch went.

    Attributes:
        hit: whether the signal found the training under way.
        status: of the launcher; None if it did not end.
        took_s: seconds from the signal to the end of every process.
        stayed: processes of the training that did not end.
    """

    hit: bool
    status: int | None
    took_s: float
    stayed: tuple[int, ...]


class Launcher(Protocol):
    """torchrun, at work."""

    pid: int

    def has_ended(self) -> bool:
        """Whether it is gone."""

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its exit status; None if it does not come in time."""


Starter = Callable[[Sequence[str], int, Path], Launcher]
"""Starts torchrun with some words and so many ranks; what it says goes to the end of a file."""


class _Process:
    def __init__(self, words: Sequence[str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *words],
                stdout=output,
                stderr=output,
                env=environment(),
                start_new_session=True,
            )
        self.pid = self._process.pid

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self, timeout_s: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout_s)
        return None


def start_afresh(words: Sequence[str], ranks: int, log: Path) -> Launcher:
    """Start it as a user does."""
    return _Process(words, log)


def fork_from(lane: Lane) -> Starter:
    """Fork it and its ranks from processes that have imported torch already, which saves most of the time."""

    def start(words: Sequence[str], ranks: int, log: Path) -> Launcher:
        return lane.start({"words": list(words), "ranks": ranks, "log": str(log)})

    return start


class Launch:
    """A training under torchrun.

    Args:
        start: starts torchrun.
        command: what the ranks run.
        folder: where each rank says who it is, in `pace-<rank>`.
        ranks: how many there are.
        log: takes what they say.
    """

    def __init__(self, start: Starter, command: Sequence[str], folder: Path, ranks: int, log: Path) -> None:
        self._folder = folder
        self._ranks = ranks
        self._heard: dict[int, tuple[int, int, int]] = {}
        for rank in range(ranks):
            self._pace(rank).unlink(missing_ok=True)
        self._launcher = start(["--standalone", f"--nproc-per-node={ranks}", *command], ranks, log)

    def _pace(self, rank: int) -> Path:
        return self._folder / f"pace-{rank}"

    def _said(self) -> dict[int, tuple[int, int, int]]:
        """The process of each rank that has begun to train, with the epoch and the batch that it ended last."""
        for rank in range(self._ranks):
            words = self._pace(rank).read_text().split() if self._pace(rank).exists() else []
            if words:  # there are none while the file is written
                pid, epoch, batch = map(int, words)
                self._heard[rank] = (pid, epoch, batch)
        return self._heard

    def pids(self) -> dict[int, int]:
        """The process of each rank that has begun to train."""
        return {rank: pid for rank, (pid, _, _) in self._said().items()}

    def place(self) -> Place:
        """How far the ranks have come."""
        return max((epoch, batch) for _, epoch, batch in self._said().values())

    def execute(self, kill: Kill | None) -> Outcome:
        """Kill it, if so asked, and wait for its end."""
        everyone: set[int] = set()
        hit, ended = False, self._launcher.has_ended
        if kill is not None and _within(PATIENCE_S, lambda: self._has_come_to(kill.place) or ended()):
            time.sleep(kill.after_s)
            everyone = _descendants(self._launcher.pid)
            hit = not ended() and self._shoot(kill, self.pids())
        began = time.monotonic()
        status = self._launcher.wait(PATIENCE_S)
        everyone.update(self.pids().values())
        _within(GONE_S, lambda: not any(map(_is_alive, everyone)))
        stayed = tuple(sorted(filter(_is_alive, everyone)))
        self._sweep_up(everyone)
        return Outcome(hit, status, time.monotonic() - began, stayed)

    def _has_come_to(self, place: Place) -> bool:
        return len(self.pids()) == self._ranks and self.place() >= place

    def _shoot(self, kill: Kill, pids: dict[int, int]) -> bool:
        number = signal.SIGKILL if kill.victim.startswith("kill") else signal.SIGTERM
        if kill.victim.endswith("launcher"):
            victims = [self._launcher.pid]
        else:
            victims = list(pids.values()) if kill.victim == "all" else [pids[kill.rank]]
        try:
            for victim in victims:
                os.kill(victim, number)
        except ProcessLookupError:
            return False
        return True

    def _sweep_up(self, processes: set[int]) -> None:
        """End whatever is left, so that it does not disturb what comes next."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._launcher.pid, signal.SIGKILL)
        for pid in filter(_is_alive, processes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._launcher.wait(GONE_S)


def _descendants(pid: int) -> set[int]:
    """What a process has started, and what that has started: ranks, and their loader workers."""
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found |= {child} | _descendants(child)
    return found


def _within(limit_s: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
