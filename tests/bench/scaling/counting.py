"""Calls of `mtf` in processes of their own: how long, how much memory, how many files and folders.

`python counting.py WORD...` is such a process: it calls `mtf` and writes what it counted, as JSON, to the file that
MTF_COUNTS names.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COUNTS = "MTF_COUNTS"
LISTINGS = ("os.listdir", "os.scandir")


@dataclass(frozen=True)
class Call:
    """What one call took.

    Attributes:
        runs: of the sweep.
        what: was called.
        seconds: from the start of the process to its end, interpreter included.
        megabytes: of memory at most.
        files: opened to be read, the interpreter's own modules excepted.
        listings: of folders.
    """

    runs: int
    what: str
    seconds: float
    megabytes: float = 0.0
    files: int | None = None
    listings: int | None = None

    @property
    def per_run(self) -> float:
        """Files and folders for each run."""
        return ((self.files or 0) + (self.listings or 0)) / self.runs

    def __str__(self) -> str:
        line = f"{self.runs:>6}  {self.what:<22} {self.seconds:>8.2f}"
        if self.megabytes:
            line += f" {self.megabytes:>6.0f}"
        return line if self.files is None else f"{line} {self.files:>11} {self.listings:>15} {self.per_run:>8.2f}"


def call(runs: int, what: str, words: Sequence[str]) -> Call:
    """Call `mtf` twice: once for the time and the memory, once to count.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts.json"
        start = time.perf_counter()
        _run(words, os.environ | {COUNTS: str(counts)})
        seconds = time.perf_counter() - start
        memory = json.loads(counts.read_text())["megabytes"]
        if words[0] == "run":  # what writes is not called twice
            return Call(runs, what, seconds, memory)
        _run(words, os.environ | {COUNTS: str(counts), "MTF_COUNT_FILES": "1"})
        counted: dict[str, Any] = json.loads(counts.read_text())
    return Call(runs, what, seconds, memory, counted["files"], counted["listings"])


def _run(words: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, __file__, *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"mtf {' '.join(words)} ended with status {done.returncode}: {done.stderr[-2000:]}")


class Counter:
    """Listens to what the interpreter says of its own doings (`sys.addaudithook`)."""

    def __init__(self) -> None:
        self.files = self.listings = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            reads = mode in ("r", "rb") if mode else not flags & (os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY)
            if (
                reads
                and isinstance(path, str | bytes | os.PathLike)
                and not os.fsdecode(path).endswith((".py", ".pyc"))
            ):
                self.files += 1
        elif event in LISTINGS:
            self.listings += 1


def peak_megabytes() -> float:
    """The most memory that this process has had; what getrusage tells begins with that of its parent on Linux."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main() -> None:
    """Call `mtf`, and note what it took."""
    from mtf_utils.cli import main as mtf

    counter = Counter()
    if os.environ.get("MTF_COUNT_FILES"):  # it has a price, so nothing is timed with it
        sys.addaudithook(counter)
    status = mtf(sys.argv[1:])
    counts = {"megabytes": peak_megabytes(), "files": counter.files, "listings": counter.listings}
    Path(os.environ[COUNTS]).write_text(json.dumps(counts), encoding="utf-8")
    sys.exit(status)


if __name__ == "__main__":
    main()
