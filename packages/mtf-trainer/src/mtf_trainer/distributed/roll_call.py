"""What makes sense only if every rank does it: where one goes on without it, that shows before anybody waits long."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from mtf_trainer.distributed.channel import Channel
from mtf_trainer.errors import TrainerError

__all__ = ["TOGETHER", "RollCall"]

TOGETHER: Final = "save_checkpoint() has to be called by every rank"
"""What keeps the saves of all ranks in one order."""

ASK_AFTER_S: Final = 1.0
"""How long to wait before the others are asked where they are."""


class RollCall:
    """This rank's part in it.

    Args:
        rank: this one.
        size: how many there are.
        place: how far this rank has come, in numbers that grow and are the same on all ranks at the same place.
        connect: makes a connection for the thread that asks.
        patience_s: how long to wait for another rank that may still come.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        place: Callable[[], tuple[int, ...]],
        connect: Callable[[], Channel],
        *,
        patience_s: float,
    ) -> None:
        self._rank = rank
        self._size = size
        self._place = place
        self._connect = connect
        self._patience_s = patience_s
        self._calls = 0

    def gather(self, what: str) -> None:
        """Wait until every rank has come here.

        Raises:
            TrainerError: one has gone on without it, has failed, or does not come.
        """
        channel, call, place = self._channel, self._calls + 1, list(self._place())
        channel.tell(self._answer(call, self._rank), place)
        self._calls = call
        answers = {self._answer(call, rank): rank for rank in range(self._size)}
        begun, asked = time.monotonic(), False

        def check() -> None:
            nonlocal asked
            if channel.has("failure"):
                raise TrainerError(channel.read("failure"))
            waited_s = time.monotonic() - begun
            if waited_s > ASK_AFTER_S and not asked:
                asked = True
                channel.tell("called", {"call": call, "place": place, "rank": self._rank, "what": what})
                channel.tell("news", True)
            if waited_s > self._patience_s:
                silent = ", ".join(str(rank) for name, rank in answers.items() if not channel.has(name))
                raise TrainerError(f"{what} waited {self._patience_s:g} s for rank {silent}: {TOGETHER}")

        if channel.await_all(answers, check) != [place] * self._size:
            raise TrainerError(f"{what} was called by the ranks at different places: {TOGETHER}")
        channel.forget([self._answer(call - 1, self._rank)])  # everybody has read it

    def look(self, channel: Channel) -> str | None:
        """What is wrong, if this rank has gone on where another one waits for it; for the thread that looks."""
        told: dict[str, Any] = channel.read("called")
        if self._place() <= tuple(told["place"]) or self._calls >= told["call"]:  # the place first: it is left last
            return None
        return f"rank {told['rank']} called {told['what']}, and rank {self._rank} went on without it: {TOGETHER}"

    @cached_property
    def _channel(self) -> Channel:
        return self._connect()

    @staticmethod
    def _answer(call: int, rank: int) -> str:
        return f"call/{call}/{rank}"
