"""Keeps the ledger: begins an attempt or refuses it, and says in the end whether there should be another."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mtf_trainer.guard.ledger import AttemptRecord, Ending, Ledger, furthest, series, verdict
from mtf_trainer.guard.place import Fault, Place
from mtf_trainer.guard.trail import Samples, Trail, read_mark
from mtf_utils import rundir
from mtf_utils.rundir import RunDirectoryError

__all__ = ["LEDGER", "REMEDY", "TRAIL", "Guard"]

logger = logging.getLogger(__name__)

LEDGER: Final = "ledger.json"
TRAIL: Final = "ledger.trail"
REMEDY: Final = (
    "the same again would end the same way: change what is wrong, or start it once more to try regardless, since "
    "attempts are counted anew from here"
)

MAX_LENGTH: Final = 300
_EXCEPTION: Final = re.compile(r"[A-Za-z_][\w.]*(?:: .*)?$")
_PROCESS: Final = secrets.token_hex(6)


class Guard:
    """The ledger of one run, kept by the process that speaks for it.

    An attempt is a process: of several calls of `fit` in one, as in a notebook, the last one counts. Trouble with the
    ledger's own files is logged, and never ends a training.

    Args:
        directory: of the run.
        writes: whether this process keeps the ledger.
        clock: the time in UTC.
    """

    def __init__(self, directory: Path, *, writes: bool, clock: Callable[[], str] = rundir.now) -> None:
        self.path = directory / LEDGER
        self.trail = Trail(directory / TRAIL)
        self._writes = writes
        self._clock = clock
        self._ledger = Ledger()
        self._record: AttemptRecord | None = None
        self._furthest = Place()

    def begin(self, start: Place, *, circumstances: str, is_new: bool, is_chosen: bool, samples: Samples) -> str | None:
        """Begin an attempt.

        Args:
            start: where training begins.
            circumstances: a digest of what an attempt depends on.
            is_new: whether there is no checkpoint.
            is_chosen: whether somebody chose the checkpoint.
            samples: which samples a batch holds, where that is known.

        Returns:
            Why it must not be made; None if it may, and has begun.
        """
        if not self._writes:
            return None
        self._ledger = self._read()
        if is_new and furthest(self._ledger.attempts) != Place():  # what became of another training
            self._ledger = Ledger()
        self._ledger.drop(_process())
        self._hear_the_silent(start)
        latest = self._ledger.latest
        went_back = latest is not None and latest.start.is_beyond(start)
        record = self._record = self._new_record(start, circumstances, anew=is_chosen or went_back)
        refusal = verdict(self._ledger.attempts) if record.continues(latest) else None
        self._ledger.add(record)
        self._furthest = furthest(series(self._ledger.attempts))
        if refusal is not None:
            record.exception = refusal
            self._end(record, Ending.STOPPED, start)
            return refusal
        self._write()
        self.trail.open(record.process, closely_until=self._where_silence_fell(), samples=samples)
        return None

    def _read(self) -> Ledger:
        try:
            return Ledger.read(self.path) or Ledger()
        except (RunDirectoryError, OSError) as error:
            logger.warning("what became of earlier attempts is not known, they are counted anew: %s", error)
            return Ledger()

    def _hear_the_silent(self, start: Place) -> None:
        """Find out about the latest attempt what it could not say itself."""
        latest = self._ledger.latest
        if latest is None or not latest.is_silent:
            return
        before = furthest(series(self._ledger.attempts))
        mark = read_mark(self.trail.path)
        if mark is not None and mark.process == latest.process:
            latest.end, latest.fault, latest.lead = mark.place, mark.fault, mark.lead
            latest.advanced = mark.place.is_beyond(before)
        latest.advanced = latest.advanced or start.is_beyond(latest.start)

    def _where_silence_fell(self) -> Place | None:
        """Up to where every step is to be marked, because the latest silent attempt ended there."""
        latest = next((each for each in reversed(self._ledger.attempts[:-1]) if each.is_silent), None)
        if latest is None:
            return None
        place, lead = latest.end or latest.start, latest.lead
        return place if lead == 0 else Place(epoch=place.epoch, batch=place.batch + lead, step=place.step + lead)

    def _new_record(self, start: Place, circumstances: str, *, anew: bool) -> AttemptRecord:
        run = rundir.current_run()
        return AttemptRecord(
            process=_process(),
            host=socket.gethostname(),
            pid=os.getpid(),
            number=run[1].number if run and run[1] else None,
            circumstances=circumstances,
            started_at=self._clock(),
            anew=anew,
            start=start,
        )

    def failed(self, error: BaseException, end: Place, fault: Fault, *, saved: Place) -> str | None:
        """Note that the attempt ended with an exception.

        Args:
            error: the exception.
            end: how far the attempt came.
            fault: what was under way.
            saved: of the latest checkpoint.

        Returns:
            Why there should be no further attempt; None if there may be.
        """
        record = self._record
        if record is None:
            return None
        record.exception = _one_line(error)
        record.fault = fault
        record.advanced = end.is_beyond(self._furthest) or saved.is_beyond(record.start)
        return self._judge(record, Ending.FAILED, end)

    def preempted(self, end: Place, *, moved: bool) -> str | None:
        """Note that the attempt was told to stop, and saved.

        Args:
            end: how far it came.
            moved: whether it did anything at all.

        Returns:
            Why there should be no further attempt; None if there may be.
        """
        record = self._record
        if record is None:
            return None
        record.advanced = moved
        return self._judge(record, Ending.PREEMPTED, end)

    def _judge(self, record: AttemptRecord, ending: Ending, end: Place) -> str | None:
        record.ending = ending
        reason = verdict(self._ledger.attempts)
        self._end(record, Ending.STOPPED if reason else ending, end)
        return reason

    def stopped(self, reason: str, end: Place) -> None:
        """Note that there should be no further attempt, for a reason that the ledger does not know."""
        if self._record is not None:
            self._record.exception = reason
            self._end(self._record, Ending.STOPPED, end)

    def finished(self, end: Place) -> None:
        """Note that training is complete."""
        if self._record is not None:
            self._record.advanced = True
            self._end(self._record, Ending.FINISHED, end)

    def withdraw(self) -> None:
        """Take the attempt back: somebody ended it on purpose."""
        if self._record is not None:
            self._ledger.drop(self._record.process)
            self._close()

    def _end(self, record: AttemptRecord, ending: Ending, end: Place) -> None:
        record.ending, record.end, record.ended_at = ending, end, self._clock()
        self._close()

    def _close(self) -> None:
        self._record = None
        self._write()
        try:
            self.trail.remove()
        except OSError as error:
            logger.warning("%s cannot be removed: %s", self.trail.path, error)

    def _write(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._ledger.write(self.path)
        except OSError as error:
            logger.warning("%s cannot be written, so this attempt may not be counted: %s", self.path, error)


def _process() -> str:
    return f"{_PROCESS}-{os.getpid()}"  # a forked process has the same memory


def _one_line(error: BaseException) -> str:
    text = str(error)
    if "Original Traceback" in text:  # from a loader worker: what it says comes last, then notes
        said = [line for line in text.splitlines() if _EXCEPTION.match(line)]
        return said[-1][:MAX_LENGTH] if said else type(error).__name__
    text = " ".join(text.split())
    return f"{type(error).__name__}: {text}"[:MAX_LENGTH] if text else type(error).__name__
