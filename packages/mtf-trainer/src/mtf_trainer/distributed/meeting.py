"""What all ranks bring together where they meet: at a record, at the end of a validation, and of an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mtf_trainer.distributed.team import Team
from mtf_trainer.metrics import Means, combined
from mtf_trainer.state import ResumeState

__all__ = ["Meeting"]


@dataclass(slots=True, kw_only=True)
class Meeting:
    """The means of all ranks, and what one rank decides for all: its clock, or that training is to end early.

    Whatever is told here every rank hears at the same place, in a run that is killed and continued too.

    Attributes:
        team: the ranks.
        state: where this one stands.
        save_every_minutes: after how long a checkpoint is due; None: never.
    """

    team: Team
    state: ResumeState
    save_every_minutes: float | None
    clock: Callable[[], float] = time.monotonic
    _saved_at: float = field(init=False)
    _is_late: bool = False

    def __post_init__(self) -> None:
        self._saved_at = self.clock()
        if self.team.size == 1:  # perhaps one of several ranks had asked, before they were stopped
            self.hear_of_stop()

    def merged(self, means: Means, period: int = 0) -> dict[str, float]:
        """The means over the batches of all ranks."""
        if self.team.size == 1:
            return means.means(period)
        told = self.team.gather({"sums": means.copy_sums(period), "late": self._is_due(), "stop": self._asks()})
        self._is_late = told[0]["late"]  # the first rank's clock counts
        self.state.stop_requested = any(each["stop"] for each in told)
        return combined([each["sums"] for each in told])

    def request_stop(self) -> None:
        """Ask for an early end, which comes once all ranks know of it."""
        self.state.stop_asked = True
        if self.team.size == 1:
            self.hear_of_stop()

    def hear_of_stop(self) -> None:
        """Have an early end that any rank has asked for be that of all."""
        self.state.stop_requested = any(self.team.gather(self._asks()))

    def _asks(self) -> bool:
        return self.state.stop_asked or self.state.stop_requested

    def time_to_save(self) -> bool:
        """Whether the clock asks for a checkpoint: of several ranks, that of the first one when they last met."""
        return self._is_due() if self.team.size == 1 else self._is_late

    def has_saved(self) -> None:
        """Begin to count anew."""
        self._saved_at, self._is_late = self.clock(), False

    def _is_due(self) -> bool:
        minutes = self.save_every_minutes
        return minutes is not None and self.clock() - self._saved_at >= 60 * minutes
