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
from typing import Final

__all__ = ["PATIENCE_S", "VICTIMS", "Kill", "Launch", "Outcome"]

PATIENCE_S: Final = 120.0
"""After so many seconds a launch counts as hanging."""

GONE_S: Final = 30.0
"""Within so many seconds after the launcher every rank has to be gone."""

VICTIMS: Final = ("one", "all", "launcher", "kill-one", "kill-launcher")
"""Who gets SIGTERM, or SIGKILL."""


@dataclass(frozen=True)
class Kill:
    """Who is killed and when.

    Attributes:
        victim: one of `VICTIMS`.
        rank: which one, if it is one.
        after_s: seconds after every rank has begun to train.
    """

    victim: str
    rank: int
    after_s: float


@dataclass(frozen=True)
class Outcome:
    """How a launch went.

    Attributes:
        hit: whether the signal found the training under way.
        status: of the launcher; None if it did not end.
        took_s: seconds from the signal to the end of every process.
        stayed: ranks that did not end.
    """

    hit: bool
    status: int | None
    took_s: float
    stayed: tuple[int, ...]


class Launch:
    """A training under torchrun, in a session of its own.

    Args:
        command: what the ranks run.
        folder: where each rank says who it is, in `pace-<rank>`.
        ranks: how many there are.
        log: takes what they say.
    """

    def __init__(self, command: Sequence[str], folder: Path, ranks: int, log: Path) -> None:
        self._folder = folder
        self._ranks = ranks
        for rank in range(ranks):
            self._pace(rank).unlink(missing_ok=True)
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *command]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                words,
                stdout=output,
                stderr=output,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def _pace(self, rank: int) -> Path:
        return self._folder / f"pace-{rank}"

    def pids(self) -> dict[int, int]:
        """The process of each rank that has begun to train."""
        found = {}
        for rank in range(self._ranks):
            words = self._pace(rank).read_text().split() if self._pace(rank).exists() else []
            if words:
                found[rank] = int(words[0])
        return found

    def execute(self, kill: Kill | None) -> Outcome:
        """Kill it, if so asked, and wait for its end."""
        pids, hit = {}, False
        if kill is not None and _within(PATIENCE_S, lambda: self._has_begun() or self._has_ended()):
            time.sleep(kill.after_s)
            pids = self.pids()
            hit = not self._has_ended() and self._shoot(kill, pids)
        began = time.monotonic()
        _within(PATIENCE_S, self._has_ended)
        status = self._process.poll()
        everyone = [*pids.values(), *self.pids().values()]
        _within(GONE_S, lambda: not any(map(_is_alive, everyone)))
        stayed = tuple(pid for pid in dict.fromkeys(everyone) if _is_alive(pid))
        self._sweep_up()
        return Outcome(hit, status, time.monotonic() - began, stayed)

    def _has_begun(self) -> bool:
        return len(self.pids()) == self._ranks

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def _shoot(self, kill: Kill, pids: dict[int, int]) -> bool:
        number = signal.SIGKILL if kill.victim.startswith("kill") else signal.SIGTERM
        if kill.victim.endswith("launcher"):
            victims = [self._process.pid]
        else:
            victims = list(pids.values()) if kill.victim == "all" else [pids[kill.rank]]
        try:
            for victim in victims:
                os.kill(victim, number)
        except ProcessLookupError:
            return False
        return True

    def _sweep_up(self) -> None:
        """End whatever is left, so that it does not disturb what comes next."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in self.pids().values():
            if _is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


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
