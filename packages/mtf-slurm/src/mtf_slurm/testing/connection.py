"""Start a cluster's keeper, and ask it for something."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from mtf_slurm.testing import keeper
from mtf_slurm.testing.errors import ClusterError
from mtf_slurm.testing.layout import Layout

__all__ = ["KeeperConnection", "end_marked"]

# Longer than the keeper itself takes for the slowest of its answers.
ANSWER_TIMEOUT_S: Final = 2 * keeper.END_TIMEOUT_S


class KeeperConnection:
    """The keeper of the cluster in a folder, which answers while the cluster is up.

    Args:
        layout: the cluster's folder.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._process: subprocess.Popen[str] | None = None

    def start(self, *, owned: bool, remove: bool) -> None:
        """Start the keeper.

        Args:
            owned: whether the cluster goes when this process ends, however it ends.
            remove: whether the folder goes with the cluster.

        Raises:
            ClusterError: it did not start.
        """
        # isolated and without site-packages: up in a few hundredths of a second
        script = [sys.executable, "-I", "-S", keeper.__file__, str(self._layout.root)]
        words = [*script, str(os.getpid() if owned else 0), str(int(remove))]
        errors = self._layout.logs / "keeper.out"
        with errors.open("ab") as file:
            self._process = subprocess.Popen(
                words,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            said = pipe.readline()
        if said != "ready\n":
            self._process.wait()
            reason = errors.read_text("utf-8", "replace").strip().splitlines() or ["it does not say why"]
            raise ClusterError(f"the keeper did not start: {reason[-1]}")

    def is_up(self) -> bool:
        """Whether there is a keeper."""
        try:
            self.ask("state")
        except ClusterError:
            return False
        return True

    def ask(self, what: str, **details: Any) -> dict[str, Any]:
        """Send a request, see `mtf_slurm.testing.keeper`, and return the answer.

        Raises:
            ClusterError: nobody answers, or the answer is that it failed.
        """
        request = json.dumps({"do": what} | details).encode() + b"\n"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(ANSWER_TIMEOUT_S)
                connection.connect(str(self._layout.keeper_socket))
                connection.sendall(request)
                line = connection.makefile("rb").readline()
        except OSError as error:
            raise ClusterError(f"no cluster is up in {self._layout.root}: {error.strerror or error}") from error
        if not line:
            raise ClusterError(f"the keeper of {self._layout.root} ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ClusterError(f"{self._layout.root}: {answer['error']}")
        return answer

    def stop(self) -> None:
        """End every process of the cluster, and the keeper; returns when they are gone.

        Raises:
            ClusterError: a process does not go.
        """
        try:
            left = self.ask("stop")["left"]
        except ClusterError:
            if self._layout.keeper_socket.exists() and self.is_up():
                raise
            left = end_marked(self._layout.slurm_conf)  # the daemons died with the keeper, jobs may not have
        if self._process is not None:
            self._process.wait()
            self._process = None
        if left:
            raise ClusterError(f"{self._layout.root}: these processes do not end: {left}")


def end_marked(slurm_conf: Path) -> list[int]:
    """SIGKILL what carries the cluster's SLURM_CONF in its environment as a daemon or a job does, and no keeper keeps.

    Returns:
        What could not be ended.
    """
    left = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environ = (entry / "environ").read_bytes().split(b"\0")
            is_step = b"slurmstepd" in (entry / "cmdline").read_bytes()
        except OSError:  # gone, or another user's
            continue
        is_job = any(variable.startswith(b"SLURM_JOB_ID=") for variable in environ)
        if f"SLURM_CONF={slurm_conf}".encode() not in environ or not (is_job or is_step):
            continue
        try:
            os.kill(int(entry.name), signal.SIGKILL)
        except ProcessLookupError:
            continue
        except PermissionError:
            left.append(int(entry.name))
    return left
