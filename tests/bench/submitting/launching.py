"""The launcher as a process of its own, which may be told to kill itself at one of its steps.

`python -m submitting.launching JSON` submits a batch and prints what came of it as JSON; the steps of the journal are
the files that it writes, renames, locks and removes and the programs of Slurm that it starts, seen by an audit hook.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent.parent
BASE: dict[str, Any] = {"model": {"name": "none"}, "data": {"dataset_name": "none"}, "optimizer": {"name": "none"}}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a launcher is to do.

    Attributes:
        folder: of the project; what is submitted lies in `out` there.
        memory: by the name of each experiment, what it asks for in MB; equal ones share an array.
        command: what a run executes.
        limit: how many run at a time.
        alone: whether each experiment is submitted by itself.
        kill_at: the step, from 1, before which the launcher kills itself; 0: it does not.
        kill_after_s: if it is a start of sbatch, how long after that start instead.
    """

    folder: str
    memory: dict[str, int]
    command: list[str] = dataclasses.field(default_factory=lambda: ["true"])
    limit: int | None = None
    alone: bool = False
    kill_at: int = 0
    kill_after_s: float = 0.0

    def start(self, environ: dict[str, str]) -> subprocess.Popen[str]:
        """Start a launcher."""
        words = [sys.executable, "-m", "submitting.launching", json.dumps(dataclasses.asdict(self))]
        return subprocess.Popen(
            words, cwd=BENCH, env=os.environ | environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def carry_out(self, environ: dict[str, str]) -> dict[str, Any] | None:
        """Have a launcher do it, and return what it says; None if it was killed.

        Raises:
            RuntimeError: it failed.
        """
        return answer(self.start(environ))


def answer(launcher: subprocess.Popen[str]) -> dict[str, Any] | None:
    """What a launcher says when it is done; None if it was killed."""
    out, err = launcher.communicate()
    if launcher.returncode == -signal.SIGKILL:
        return None
    if launcher.returncode != 0:
        raise RuntimeError(f"the launcher ended with status {launcher.returncode}: {err.strip()}")
    found: dict[str, Any] = json.loads(out)
    return found | {"said": err.splitlines()}


class _Steps:
    """Counts the steps of this process that concern a folder or Slurm, and kills it at one of them."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._folder = str(Path(order.folder) / "out")
        self.seen: list[str] = []
        self.first_sbatch: float | None = None

    def __call__(self, event: str, arguments: Sequence[Any]) -> None:
        step = self._step(event, arguments)
        if step == "sbatch" and self.first_sbatch is None:
            self.first_sbatch = time.monotonic()
        if step:
            self.seen.append(step)
            if len(self.seen) == self._order.kill_at:
                self._kill(step)

    def _step(self, event: str, arguments: Sequence[Any]) -> str:
        if event == "subprocess.Popen":
            return str(arguments[1][0]) if arguments[1][0] in ("sbatch", "squeue", "scontrol", "sacct") else ""
        if event in ("fcntl.flock", "os.fsync"):
            return event
        if event in ("os.rename", "os.remove", "os.mkdir") or (event == "open" and _writes(arguments)):
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
            return f"{event} {path.removeprefix(self._folder)}" if path.startswith(self._folder) else ""
        return ""

    def _kill(self, step: str) -> None:
        if step == "sbatch" and self._order.kill_after_s:
            threading.Timer(self._order.kill_after_s, os.kill, [os.getpid(), signal.SIGKILL]).start()
        else:
            os.kill(os.getpid(), signal.SIGKILL)


def _writes(arguments: Sequence[Any]) -> bool:
    return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(arguments[2], int) else False


class _Lines:
    """A display that writes what is said to standard error."""

    def update(self, runs: Sequence[object]) -> None:
        """Nothing is shown of the runs."""

    def say(self, text: str) -> None:
        """Write it."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    """Carry out the order on the command line."""
    from mtf_config import ExperimentConfig
    from mtf_slurm import SLURMLauncher

    order = Order(**json.loads(sys.argv[1]))
    folder = Path(order.folder)
    launcher = SLURMLauncher(None, folder / "out", project_root=folder, command=order.command, display=_Lines())
    experiments = [
        ExperimentConfig.from_dict(
            BASE | {"experiment_name": name, "slurm": {"mem": f"{memory}M", "time_limit": "10:00"}}
        )
        for name, memory in order.memory.items()
    ]
    steps = _Steps(order)
    sys.addaudithook(steps)
    if order.alone:
        job_ids = {item.experiment_name: launcher.submit_experiment(item) for item in experiments}
        failed: dict[str, str] = {}
    else:
        batch = launcher.submit_experiment_batch(experiments, max_concurrent_jobs=order.limit)
        job_ids, failed = dict(batch.job_ids), dict(batch.failed)
    sending_s = time.monotonic() - steps.first_sbatch if steps.first_sbatch else 0.0
    json.dump({"job_ids": job_ids, "failed": failed, "steps": steps.seen, "sending_s": sending_s}, sys.stdout)


if __name__ == "__main__":
    main()
