"""The output of a run: the end of one attempt's log, or everything as it comes, from attempt to attempt."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from mtf_slurm.errors import SLURMError
from mtf_utils.rundir import RunDirectory

__all__ = ["LogReader", "choose_attempt", "follow", "tail_start"]

BLOCK_BYTES: Final = 64 * 1024
POLL_S: Final = 0.5


def choose_attempt(run: RunDirectory, number: int | None) -> int | None:
    """The number of the attempt that is asked for; None asks for the last, and is returned if there is none yet.

    Raises:
        SLURMError: there is no attempt of that number.
    """
    attempts = [attempt.number for attempt in run.attempts()]
    if number is None:
        return attempts[-1] if attempts else None
    if number not in attempts:
        listed = f"there are {', '.join(map(str, attempts))}" if attempts else "it has not started yet"
        raise SLURMError(f"{run.name} has no attempt {number}; {listed}")
    return number


def tail_start(path: Path, lines: int) -> int:
    """The position in a file where its last lines begin; 0 if there is no such file, or if it has no more lines."""
    try:
        with path.open("rb") as file:
            start = end = file.seek(0, 2)
            if lines == 0:
                return end
            text = b""
            # one more line break than lines: the one that ends the line before them, or the file
            while start > 0 and text.count(b"\n") <= lines:
                step = min(BLOCK_BYTES, start)
                start -= step
                file.seek(start)
                text = file.read(step) + text
    except FileNotFoundError:
        return 0
    wanted = text.splitlines(keepends=True)[-lines:]
    return end - sum(map(len, wanted))


class LogReader:
    """Reads a log that is being written, from a position on.

    Args:
        path: of the log, which need not be there yet.
        position: where to begin, in bytes.
    """

    def __init__(self, path: Path, position: int = 0) -> None:
        self.path = path
        self._position = position
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self) -> Iterator[str]:
        """What was written since the last call, in pieces."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            if file.seek(0, 2) < self._position:  # written anew
                self._position = 0
            file.seek(self._position)
            while block := file.read(BLOCK_BYTES):
                self._position += len(block)
                yield self._decoder.decode(block)


def follow(
    run: RunDirectory,
    attempt: int | None,
    is_over: Callable[[], bool],
    *,
    only: bool = False,
    start: int = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """The text of a run's logs as it is written, until the run is over.

    Args:
        run: its folder.
        attempt: where to begin; None is the first that there will be.
        is_over: whether nothing more is to come.
        only: whether to stop at the end of that attempt; otherwise later ones follow.
        start: from which byte of the first log on.
        sleep: waits for some seconds.
    """
    reader = LogReader(run.log_file(attempt), start) if attempt is not None else None
    while True:
        # asked before reading: whatever was written until then is read below
        over = is_over()
        numbers = [found.number for found in run.attempts()]
        if attempt is None and numbers:
            attempt = numbers[0]
            reader = LogReader(run.log_file(attempt))
        if attempt is None or reader is None:
            if over:
                return
            sleep(POLL_S)
            continue
        ended = over or run.attempt(attempt).finished_file.exists()
        yield from reader.read()
        later = [number for number in numbers if number > attempt]
        if later and not only:
            attempt = later[0]
            reader = LogReader(run.log_file(attempt))
            yield f"==> attempt {attempt} <==\n"
        elif over or (only and (ended or later)):
            return
        else:
            sleep(POLL_S)
