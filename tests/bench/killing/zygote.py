"""Forks a process for every training that may be killed, out of one that has imported all it needs.

`python -m killing.zygote MODULE` imports the module, then reads requests from its input, one JSON object a line. For
each it forks a process in a group of its own, which calls the module's `run(request)` and ends as any Python process
does. Two lines answer: `{"pid": …}` at once, `{"status": …}` when it has ended.

The forked process is as good as a fresh one: nothing but imports has happened before, in a single thread. What forks of
one zygote share is the seed of string hashes, so attempts of one run should come from different zygotes.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.002


def main() -> None:
    """Serve until the input ends; in a forked process, train."""
    module = importlib.import_module(sys.argv[1])
    if threads() > 1:
        sys.exit(f"importing {sys.argv[1]} started {threads() - 1} threads: what is forked would lack them")
    adopt_orphans()
    say({"ready": os.getpid()})
    request = serve()
    if request is not None:
        module.run(request)


def threads() -> int:
    """How many threads this process has, as far as the system tells."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 1


def adopt_orphans() -> None:
    """Become the parent of loader workers whose parent was killed, to reap them: not every container's init does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def serve() -> dict[str, Any] | None:
    """Fork for each request. Returns the request in the forked process, and None when the input has ended."""
    current: int | None = None
    try:
        while True:
            if select.select([sys.stdin], [], [], _POLL_S)[0]:
                line = sys.stdin.readline()
                if not line:
                    return None
                request: dict[str, Any] = json.loads(line)
                forked = os.fork()
                if forked == 0:
                    detach(request)
                    return request
                current = forked
                with contextlib.suppress(OSError):  # both do it: whoever is late finds it done
                    os.setpgid(current, current)
                say({"pid": current})
            current = reap(current)
    finally:
        if current is not None:
            os.killpg(current, signal.SIGKILL)


def detach(request: dict[str, Any]) -> None:
    """Give the forked process a group of its own, and send what it says to the file `log` of the request."""
    os.setpgid(0, 0)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(nothing)


def reap(current: int | None) -> int | None:
    """Collect the processes that have ended, and report the one that was asked for."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == current:
                say({"status": os.waitstatus_to_exitcode(ended[1])})
                current = None
    return current


def say(answer: dict[str, Any]) -> None:
    """Answer with a line."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
