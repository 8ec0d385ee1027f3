"""The ledger of a run's attempts, and what it says about another one: records and pure functions."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from mtf_trainer.guard.place import Fault, Place
from mtf_utils.rundir import Record
from mtf_utils.settings import Settings, about

__all__ = ["MAX_FUTILE", "AttemptRecord", "Ending", "Ledger", "furthest", "series", "verdict"]

MAX_FUTILE: Final = 3
"""After so many attempts in a row that come to nothing, another one makes no sense."""

MAX_KEPT: Final = 100


class Ending(enum.StrEnum):
    """How an attempt ended."""

    NONE = "none"
    """It has not ended, or could not say so: killed, or crashed."""
    PREEMPTED = "preempted"
    """Told to stop, and saved."""
    FAILED = "failed"
    """By an exception."""
    STOPPED = "stopped"
    """It was the one too many, and said so."""
    FINISHED = "finished"
    """Training was complete."""


@dataclass(kw_only=True)
class AttemptRecord(Settings):
    """One attempt: a process that trained."""

    process: str = field(metadata=about("Which process it was; unique."))
    host: str = field(metadata=about("Where it ran."))
    pid: int = field(metadata=about("Its process id there.", minimum=1))
    number: int | None = field(default=None, metadata=about("Its folder in `attempts`; null without a launcher."))
    circumstances: str = field(metadata=about("A digest of code, settings, data and software."))
    started_at: str = field(metadata=about("Time of the start, UTC."))
    ended_at: str | None = field(default=None, metadata=about("Time of the end, UTC; null if it could not say."))
    anew: bool = field(
        default=False, metadata=about("Whether somebody stepped in before it: what was, counts no more.")
    )
    ending: Ending = field(default=Ending.NONE, metadata=about("How it ended."))
    start: Place = field(metadata=about("Where it began."))
    end: Place | None = field(default=None, metadata=about("How far it came; null if unknown."))
    fault: Fault | None = field(default=None, metadata=about("At which batch it failed; null if unknown."))
    lead: int = field(
        default=0, metadata=about("How many batches further it may have come without saying so.", minimum=0)
    )
    exception: str | None = field(default=None, metadata=about("The exception in one line; null without one."))
    advanced: bool = field(
        default=False, metadata=about("Whether it left a later checkpoint, or came further than all before it.")
    )

    def continues(self, earlier: AttemptRecord | None) -> bool:
        """Whether it is one more of the same: nothing changed since the earlier attempt, and nobody stepped in."""
        if earlier is None or self.anew or earlier.is_last:
            return False
        return self.circumstances == earlier.circumstances

    def may_have_ended_at(self, batch: Fault) -> bool:
        """Whether it ended at that batch, or without a word where nothing speaks against it.

        A process that is killed from outside may well be so at one batch several times, but not at one instruction.
        """
        if self.fault is not None:
            return self.fault.is_same_batch(batch) and (not self.is_silent or self.fault.may_be_same_phase(batch))
        if not self.is_silent or self.end is None or batch.stage != "train":
            return False
        return self.end.epoch == batch.epoch and 0 <= batch.batch - self.end.batch <= self.lead

    def came_behind(self, batch: Fault) -> bool:
        """Whether it came to a later batch of training than that one."""
        return batch.stage == "train" and self.end is not None and self.end.is_behind(batch)

    @property
    def is_last(self) -> bool:
        """Whether nothing had to follow it."""
        return self.ending in (Ending.STOPPED, Ending.FINISHED)

    @property
    def is_silent(self) -> bool:
        """Whether it could not say how it ended."""
        return self.ending is Ending.NONE


@dataclass(kw_only=True)
class Ledger(Record):
    """`ledger.json`: what became of the attempts at a run. Written by the trainer's rank 0."""

    attempts: list[AttemptRecord] = field(default_factory=list, metadata=about("In order; the latest hundred."))

    @property
    def latest(self) -> AttemptRecord | None:
        """The last attempt."""
        return self.attempts[-1] if self.attempts else None

    def add(self, record: AttemptRecord) -> None:
        """Add an attempt."""
        self.attempts = [*self.attempts[1 - MAX_KEPT :], record]

    def drop(self, process: str) -> None:
        """Take back the attempt of a process."""
        self.attempts = [each for each in self.attempts if each.process != process]


def furthest(attempts: Iterable[AttemptRecord]) -> Place:
    """How far any of the attempts came."""
    result = Place()
    for attempt in attempts:
        for place in (attempt.start, attempt.end):
            if place is not None and place.is_beyond(result):
                result = place
    return result


def series(attempts: Sequence[AttemptRecord]) -> list[AttemptRecord]:
    """The latest attempts that belong together: nothing changed between them, nobody stepped in."""
    together: list[AttemptRecord] = []
    for attempt in reversed(attempts):
        if together and not together[-1].continues(attempt):
            break
        together.append(attempt)
    return together[::-1]


def verdict(attempts: Sequence[AttemptRecord]) -> str | None:
    """Why another attempt makes no sense; None if it does.

    Args:
        attempts: of a run, all of them ended.
    """
    latest = series(attempts)
    if not latest or latest[-1].is_last:
        return None
    at_one_batch = list(_ended_at_one_batch(latest))
    if len(at_one_batch) >= MAX_FUTILE:
        return f"{MAX_FUTILE} attempts ended at the same batch: {_fullest(at_one_batch)}; {_how(latest[-1])}"
    futile = latest[-MAX_FUTILE:]
    if len(futile) == MAX_FUTILE and not any(attempt.advanced for attempt in futile):
        ends = "; ".join(f"{_where(attempt)}: {_how(attempt)}" for attempt in futile)
        return f"{MAX_FUTILE} attempts in a row came no further than before, nor to a checkpoint: {ends}"
    return None


def _ended_at_one_batch(latest: Sequence[AttemptRecord]) -> Iterator[Fault]:
    """The faults of the latest attempts, as long as they are at one batch.

    Preemptions between them do not matter, unless one came after the batch was done.
    """
    batch: Fault | None = None
    for attempt in reversed(latest):
        if attempt.ending is Ending.PREEMPTED:
            if batch is not None and attempt.came_behind(batch):
                return
            continue
        if batch is not None and not attempt.may_have_ended_at(batch):
            return
        if batch is None or batch.phase is None:
            batch = attempt.fault or batch
        if batch is None:
            return
        yield attempt.fault or batch


def _fullest(faults: Sequence[Fault]) -> Fault:
    """The fault of which the most is known."""
    return max(faults, key=lambda each: (each.sample is not None, each.samples is not None, each.phase is not None))


def _where(attempt: AttemptRecord) -> str:
    return str(attempt.fault or attempt.end or attempt.start)


def _how(attempt: AttemptRecord) -> str:
    if attempt.ending is Ending.PREEMPTED:
        return "told to stop"
    return attempt.exception or "ended without a word, as by SIGKILL, for want of memory, or by a crash in native code"
