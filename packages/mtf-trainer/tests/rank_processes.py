"""Starts the ranks of a training as a launcher does, and waits for their end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
LIMIT_S = 180.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Look until it is so."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


class RankProcesses:
    """The ranks of one training; those that are left are killed at the end of the block.

    Args:
        script: in this folder.
        folder: of the run.
        ranks: how many.
        options: further words.
    """

    def __init__(self, script: str, folder: Path, ranks: int, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.logs = [folder / f"log-{rank}" for rank in range(ranks)]
        meeting = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
        self.processes = []
        for rank, log in enumerate(self.logs):
            with log.open("w") as output:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, str(HERE / script), str(folder), *options],
                        stdout=output,
                        stderr=output,
                        env=os.environ | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
                    )
                )

    def __enter__(self) -> RankProcesses:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def statuses(self) -> list[int]:
        """How every rank ended; waits for it."""
        wait_for(lambda: all(process.poll() is not None for process in self.processes), "the ranks to end")
        return [process.returncode for process in self.processes]

    def said(self) -> str:
        """What they said."""
        return "\n".join(log.read_text() for log in self.logs)


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


def train(script: str, folder: Path, ranks: int, *options: str, status: int = 0) -> None:
    """Train until every rank has ended as it should."""
    with RankProcesses(script, folder, ranks, *options) as started:
        assert started.statuses() == [status] * ranks, started.said()
