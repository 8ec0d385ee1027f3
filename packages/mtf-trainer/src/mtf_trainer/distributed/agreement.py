"""One stop for all ranks: when one is told to go, all leave at the same boundary; when one fails, all end.

All ranks pass the same boundaries in the same order, and each counts them. A thread of every rank looks into a store
now and then. Once it finds that some rank was told to stop, it holds its loop at the next boundary, says which one the
loop has reached, and waits for the same of all others. The first boundary that no rank has passed is where all leave:
every loop goes on to it. Until then the loop does no more than to count.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Protocol

from mtf_trainer.distributed.channel import POLL_S, Channel
from mtf_trainer.distributed.roll_call import RollCall
from mtf_trainer.errors import TrainerError
from mtf_trainer.preemption import StopFlag

__all__ = ["LAUNCHER_GONE", "Agreement", "Members", "cannot_go_on"]

LAUNCHER_GONE: Final = "the end of the launcher"
"""What takes the place of a signal's name when the process that started the ranks is gone."""

LOOK_S: Final = 0.1
"""Seconds between two looks into the store; with many ranks more, so that it answers at most 2000 a second."""

HEAR_S: Final = 2.0
"""How long the news of a failure may take."""

_log = logging.getLogger(__name__)


class Members(Protocol):
    """What is needed of a team."""

    rank: int
    size: int
    launcher: str
    met: int
    timeout: timedelta

    def channel(self, purpose: str, *, patience_s: float | None = None) -> Channel:
        """A connection for one thread, which it may take so long to make."""


def cannot_go_on(why: str) -> TrainerError:
    """What a rank ends with because another one has."""
    return TrainerError(f"the ranks cannot go on: {why}")


class Agreement:
    """This rank's part in it.

    Args:
        team: all ranks.
        flag: set when this rank is told to stop; when another is, it is set here too.
        patience_s: how long a rank may take to answer, and to end by itself once another has failed.
        end: ends the process at once; called with the exit status when it is too late for anything else.
    """

    def __init__(
        self, team: Members, flag: StopFlag, *, patience_s: float, end: Callable[[int], Any] = os._exit
    ) -> None:
        self._team = team
        self._flag = flag
        self._patience_s = patience_s
        self._end = end
        self._channel = team.channel("agreement")
        self._roll_call = RollCall(
            team.rank,
            team.size,
            lambda: (self._passed, team.met),
            lambda: team.channel("agreement"),
            patience_s=team.timeout.total_seconds(),
        )
        self._passed = 0
        self._held = False
        self._target: int | None = None
        self._failure: str | None = None
        self._settled = threading.Event()
        self._closed = threading.Event()
        self._parent = os.getppid() if team.launcher == "torchrun" else None
        self._thread = threading.Thread(target=self._watch, name="agreement", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def is_due(self) -> bool:
        """Count a boundary; whether this is one to leave at. To be asked once at each of them.

        Raises:
            TrainerError: another rank has failed.
        """
        self._passed += 1
        if not self._held:
            return False
        self._settled.wait()
        if self._failure is not None:
            raise cannot_go_on(self._failure)
        return self._target is not None and self._passed >= self._target

    def gather(self, what: str) -> None:
        """Wait until every rank has come to something that only makes sense if every rank does it.

        Raises:
            TrainerError: one has gone on without it, has failed, or does not come.
        """
        self._roll_call.gather(what)

    def fail(self, error: BaseException) -> None:
        """Tell the others that this rank ends with an error, unless it does so because another one has."""
        if self._failure is not None:
            return
        try:
            channel = self._team.channel("agreement", patience_s=HEAR_S)
            channel.tell_once("failure", f"rank {self._team.rank}: {type(error).__name__}: {error}")
            channel.tell("news", True)
            if self._team.rank == 0:  # the store ends with this process
                end = time.monotonic() + HEAR_S
                others = [f"heard/{rank}" for rank in range(1, self._team.size)]
                while not channel.has(*others) and time.monotonic() < end:
                    time.sleep(POLL_S)
        except RuntimeError as lost:
            _log.debug("nobody can be told of it: %s", lost)

    def failure(self) -> str | None:
        """What another rank has said of its failure; one that just failed gets a moment to say it."""
        self._settled.wait(HEAR_S)
        return self._failure

    def close(self) -> None:
        """Look no longer."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        pause_s = max(LOOK_S, self._team.size / 2000)
        try:
            while not self._closed.wait(pause_s):
                self._look()
        except _GaveUp:
            pass
        except RuntimeError as error:  # the store's
            if not self._closed.is_set():
                _log.debug("the store is gone: %s", error)
                self._mourn("rank 0 has ended without a word; its log says more")

    def _look(self) -> None:
        if self._parent is not None and os.getppid() != self._parent:
            self._flag.request(LAUNCHER_GONE)
        if self._flag.requested and self._target is None:
            self._channel.tell_once("stop", self._flag.signal_name)
            self._channel.tell("news", True)
        if not self._channel.has("news"):  # one question is all that it costs while nothing happens
            return
        if self._channel.has("called") and (missed := self._roll_call.look(self._channel)) is not None:
            self._channel.tell_once("failure", missed)
        if self._channel.has("failure"):
            self._mourn(self._channel.read("failure"))
        if self._target is None and self._channel.has("stop"):
            self._settle(self._channel.read("stop"))

    def _settle(self, signal_name: str) -> None:
        self._flag.request(signal_name)
        # The loop counts before it looks whether it is held, and here it is held before the count is read: so either
        # the loop waits at the boundary that it has just counted, or that boundary is in the count.
        self._held = True
        self._channel.tell(f"passed/{self._team.rank}", self._passed)
        places = {f"passed/{rank}": rank for rank in range(self._team.size)}
        self._target = 1 + max(self._channel.await_all(places, self._patience(places)))
        self._settled.set()

    def _patience(self, places: dict[str, int]) -> Callable[[], None]:
        end = time.monotonic() + self._patience_s

        def check() -> None:
            if self._closed.is_set():
                raise _GaveUp
            if self._channel.has("failure"):
                self._mourn(self._channel.read("failure"))
            if time.monotonic() > end:
                silent = [str(rank) for name, rank in places.items() if not self._channel.has(name)]
                self._mourn(f"no answer from rank {', '.join(silent)} within {self._patience_s:g} s")

        return check

    def _mourn(self, why: str) -> None:
        """Let this rank end: its loop by itself if it comes to a boundary, else the whole process."""
        if not why.startswith(f"rank {self._team.rank}:"):
            with contextlib.suppress(RuntimeError):  # there is nobody left to hear it
                self._channel.tell(f"heard/{self._team.rank}", True)
            self._failure = why
            self._held = True
            self._settled.set()
            if not self._closed.wait(self._patience_s):
                _log.error("rank %d ends, because %s", self._team.rank, why)
                logging.shutdown()
                self._end(1)
        raise _GaveUp


class _GaveUp(Exception):  # noqa: N818 - not a fault
    """There is nothing more to look for."""
