"""Where the training is, in a file that outlives the process: for attempts that cannot say how they ended."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mtf_trainer.guard.place import Fault, Place
from mtf_trainer.phases import TrainerPhase
from mtf_trainer.state import ResumeState

__all__ = ["Mark", "Trail", "read_mark"]

logger = logging.getLogger(__name__)

SHARE: Final = 0.005
"""How much of the training's time may go into leaving marks."""

MAX_BATCHES: Final = 1000
MAX_BYTES: Final = 1 << 16

Samples = Callable[[Mapping[str, Any]], list[Any] | None]
"""Which samples the batch of a fault holds, where that is known."""


@dataclass(frozen=True)
class Mark:
    """What the file says.

    Attributes:
        process: who wrote it.
        place: how far it was, or further.
        fault: the batch that was under way; None if not every batch was marked.
        lead: how many batches further it may have been.
    """

    process: str
    place: Place
    fault: Fault | None
    lead: int


class Trail:
    """Writes down which batch comes next, as often as that costs next to nothing, or else at every boundary.

    The write goes to the page cache, which is enough: what ends a process leaves that alone. It may fail without harm.

    Args:
        path: the file, of a few hundred bytes that are written again and again.
        clock: seconds from an arbitrary point.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.path = path
        self.state: ResumeState | None = None
        self._until: Place | None = None
        self._clock = clock
        self._process = ""
        self._samples: Samples = _unknown
        self._descriptor: int | None = None
        self._length = 0
        self._left: float = math.inf
        self._every = 1
        self._cost_s = 0.0
        self._marked_at = math.nan

    def open(self, process: str, *, closely_until: Place | None, samples: Samples) -> None:
        """Begin to write.

        Args:
            process: who this is.
            closely_until: up to there mark every boundary, whatever it costs; None: as often as it costs nothing.
            samples: asked when marking closely.
        """
        self.close()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            self._give_up(error)
            return
        self._process, self._until, self._samples = process, closely_until, samples
        self._length, self._every, self._marked_at = 0, 1, math.nan
        self._left = 1 if closely_until is None else math.inf

    def batch(self) -> None:
        """Called before every batch: marks it if that is due."""
        self._left -= 1
        if self._left <= 0:
            self._pace()

    def boundaries(self, phases: Iterator[TrainerPhase]) -> Iterator[TrainerPhase]:
        """The same boundaries, each marked if that was asked for."""
        return phases if self._until is None else self._marked(phases, self._until)

    def _marked(self, phases: Iterator[TrainerPhase], until: Place) -> Iterator[TrainerPhase]:
        for phase in phases:
            if self.state is not None and Place.of(self.state).is_beyond(until):
                break
            self.mark()
            yield phase
        else:
            return
        self._until, self._left = None, 1
        yield phase
        yield from phases

    def mark(self) -> None:
        """Write down what is under way."""
        if self._descriptor is None or self.state is None:
            return
        fault = Fault.fields_of(self.state)
        if self._until is None:
            fault["phase"] = None  # nobody says when that is over
        else:
            fault["samples"] = self._samples(fault)
        place, lead = Place.fields_of(self.state), self._every - 1
        said = {"process": self._process, "place": place, "fault": fault, "lead": lead}
        line = json.dumps(said, default=repr).encode()
        try:
            os.pwrite(self._descriptor, line.ljust(self._length) + b"\n", 0)
        except OSError as error:
            self._give_up(error)
        self._length = max(self._length, len(line))

    def _pace(self) -> None:
        """Mark, and choose after how many batches to do so again."""
        began = self._clock()
        batch_s = (began - self._marked_at) / self._every
        if batch_s > 0:  # not before two marks
            self._every = max(1, min(MAX_BATCHES, math.ceil(self._cost_s / (SHARE * batch_s))))
        self.mark()
        self._cost_s = self._clock() - began
        self._marked_at = began
        self._left = self._every if self._descriptor is not None else math.inf

    def _give_up(self, error: OSError) -> None:
        logger.warning("%s cannot be written (%s): a crash of this attempt cannot be placed", self.path, error)
        self.close()

    def close(self) -> None:
        """Write no longer; what was written stays."""
        self._left = math.inf
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Write no longer, and leave nothing: the attempt can speak for itself.

        Raises:
            OSError: the file cannot be removed.
        """
        self.close()
        self.path.unlink(missing_ok=True)


def read_mark(path: Path) -> Mark | None:
    """What the file says; None if there is none, or it is damaged."""
    try:
        with path.open("rb") as file:
            said: Any = json.loads(file.read(MAX_BYTES).splitlines()[0])
        lead = int(said["lead"])
        fault = None if lead else Fault.from_dict(said["fault"])
        return Mark(str(said["process"]), Place.from_dict(said["place"]), fault, lead)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        logger.info("%s says nothing that can be understood: %s", path, error)
        return None


def _unknown(fault: Mapping[str, Any]) -> None:
    return None
