"""Processes to kill, one at a time, forked in turn by several zygotes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Lane", "Victim", "environment", "is_deserted"]

BENCH = Path(__file__).resolve().parent.parent
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_GONE_S = 10.0


def environment() -> dict[str, str]:
    """The environment of processes that train: one thread, and the modules of this folder can be imported."""
    path = os.pathsep.join(filter(None, [str(BENCH), os.environ.get("PYTHONPATH")]))
    return os.environ | _ONE_THREAD | {"PYTHONPATH": path}


class Zygote:
    """A process of `killing.zygote`.

    Args:
        module: what the forked processes run.
        hash_seed: the seed of its string hashes, which differ from process to process in real life.
    """

    def __init__(self, module: str, hash_seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "killing.zygote", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment() | {"PYTHONHASHSEED": str(hash_seed)},
            bufsize=0,
        )
        self._read = b""

    def ask(self, request: dict[str, Any]) -> int:
        """Start a process; returns its id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return self.answer("pid")

    def answer(self, key: str) -> int:
        """The next answer, waited for."""
        while not self.has_answer(timeout_s=None):
            pass
        line, self._read = self._read.split(b"\n", 1)
        answer: dict[str, int] = json.loads(line)
        return answer[key]

    def has_answer(self, timeout_s: float | None = 0.0) -> bool:
        """Whether a whole answer is there, or comes within the time."""
        assert self._process.stdout is not None
        if b"\n" not in self._read and select.select([self._process.stdout], [], [], timeout_s)[0]:
            data = self._process.stdout.read(4096)
            if not data:
                raise RuntimeError(f"the zygote ended with status {self._process.wait()}")
            self._read += data
        return b"\n" in self._read

    def close(self) -> None:
        """End it, and what it forked."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Victim:
    """A training process, the leader of a group of its own."""

    def __init__(self, zygote: Zygote, request: dict[str, Any]) -> None:
        self._zygote = zygote
        self.pid = zygote.ask(request)
        if self.pid <= 1 or self.pid == os.getpgrp():
            raise RuntimeError(f"the zygote named process {self.pid}: a kill would hit others")
        self._status: int | None = None

    def send(self, number: signal.Signals, *, group: bool) -> bool:
        """Send a signal to the process or to its group; False if there is nobody."""
        try:
            (os.killpg if group else os.kill)(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        if self._status is None and self._zygote.has_answer():
            self._status = self._zygote.answer("status")
        return self._status is not None

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the exit status (negative: the signal that ended it); None if it does not come in time."""
        end = time.monotonic() + timeout_s
        while not self.has_ended() and time.monotonic() < end:
            time.sleep(0.001)
        return self._status

    def end(self) -> None:
        """Kill whatever is left of its group, and wait for the process."""
        self.send(signal.SIGKILL, group=True)
        self.wait(_GONE_S)


def is_deserted(group: int) -> bool:
    """Whether every process of a group goes, loader workers too; they get a few seconds for that."""
    end = time.monotonic() + _GONE_S
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


class Lane:
    """Starts processes out of several zygotes in turn, so that neighbours in a run do not share one.

    Args:
        module: what the processes run.
        number: distinguishes the lanes of a campaign.
        zygotes: how many zygotes take turns.
    """

    def __init__(self, module: str, number: int, zygotes: int = 2) -> None:
        self._zygotes = [Zygote(module, hash_seed=1 + number * zygotes + index) for index in range(zygotes)]
        self._turns = itertools.cycle(self._zygotes)

    def __enter__(self) -> Self:
        for zygote in self._zygotes:
            zygote.answer("ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for zygote in self._zygotes:
            with contextlib.suppress(OSError):
                zygote.close()

    def start(self, request: dict[str, Any]) -> Victim:
        """Start a process that runs the request."""
        return Victim(next(self._turns), request)
