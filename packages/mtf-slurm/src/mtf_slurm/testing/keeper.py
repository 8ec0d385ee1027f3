"""The keeper: the process above all of a cluster's processes, which ends them when they are no longer wanted.

It starts the daemons on request and is their subreaper: whatever a daemon or a job leaves behind becomes the keeper's
child, in whichever session or environment it runs. So nothing escapes when the cluster is stopped, or when the
process that owns it is gone, however that ended.

It runs as a script of its own and needs the standard library only, so that it is there within milliseconds. A request
is one line of JSON on its socket, and so is the answer:

    {"do": "start", "name": …, "argv": […], "environ": {…}, "output": path}  → {"pid": …}
    {"do": "signal", "name": …, "signal": number}                            → {}
    {"do": "kill", "name": …}                                                → {}: it is gone
    {"do": "state"}                                                          → {"running": {…}, "ended": {…}}
    {"do": "stop"}                                                           → {"left": […]}: nothing runs any more

A request that fails is answered {"error": …}.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Source: linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

REQUEST_TIMEOUT_S = 5.0
# A process may take a while to die when the machine is busy; one in an uninterruptible wait does not die at all.
END_TIMEOUT_S = 20.0
POLL_S = 0.005


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process.

    Raises:
        OSError: the kernel refuses.

    Source: prctl(2)
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def parents() -> dict[int, int]:
    """The parent of every process."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # gone meanwhile
                stat = Path(entry.path, "stat").read_bytes()
                found[int(entry.name)] = int(stat.rpartition(b")")[2].split()[1])
    return found


def descendants(of: int) -> list[int]:
    """Every process below another one."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found, todo = [], [of]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


class Keeper:
    """The daemons of one cluster, by name."""

    def __init__(self) -> None:
        self.running: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self.stopping = False

    def start(self, name: str, argv: list[str], environ: dict[str, str], output: str) -> dict[str, Any]:
        """Start a daemon, which must stay in the foreground."""
        self.reap()
        if name in self.running:
            return {"error": f"{name} is running already, as process {self.running[name]}"}
        with Path(output).open("ab") as file:
            daemon = subprocess.Popen(
                argv, env=environ, stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=_die_with_parent
            )
        daemon.returncode = 0  # reaped here, together with all others: Popen must not wait for it
        self.running[name] = daemon.pid
        self.ended.pop(name, None)
        return {"pid": daemon.pid}

    def signal(self, name: str, number: int) -> dict[str, Any]:
        """Send a daemon a signal."""
        self.reap()
        if name not in self.running:
            return {"error": f"{name} is not running"}
        os.kill(self.running[name], number)
        return {}

    def kill(self, name: str) -> dict[str, Any]:
        """End a daemon, with no chance to say good-bye."""
        answer = self.signal(name, signal.SIGKILL)
        deadline = time.monotonic() + END_TIMEOUT_S
        while name in self.running and time.monotonic() < deadline:
            time.sleep(POLL_S)
            self.reap()
        return {"error": f"{name} does not end"} if name in self.running else answer

    def state(self) -> dict[str, Any]:
        """The processes of the daemons that run, the exit statuses of the others (minus the signal, if one it was)."""
        self.reap()
        return {"running": self.running, "ended": self.ended}

    def stop(self) -> dict[str, Any]:
        """End every process below this one; what is left in spite of that is listed."""
        self.stopping = True
        deadline = time.monotonic() + END_TIMEOUT_S
        while True:
            self.reap()
            left = descendants(os.getpid())
            if not left or time.monotonic() > deadline:
                return {"left": left}
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_S)

    def reap(self) -> None:
        """Take note of every child that has ended."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                for name in [name for name, pid in self.running.items() if pid == ended[0]]:
                    del self.running[name]
                    self.ended[name] = os.waitstatus_to_exitcode(ended[1])

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        verb = request.pop("do", None)
        if verb not in ("start", "signal", "kill", "state", "stop"):
            return {"error": f"unknown request {verb!r}"}
        if "signal" in request:
            request["number"] = request.pop("signal")
        try:
            done: dict[str, Any] = getattr(self, verb)(**request)
        except (OSError, TypeError) as error:
            return {"error": str(error)}
        return done


def _die_with_parent() -> None:
    """The last resort, for the keeper's own violent end."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(listener: socket.socket, keeper: Keeper, owner: int | None) -> socket.socket | None:
    """Answer requests until told to stop; returns the connection that asked, or None if the owner is gone."""
    wake, alarm = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(keeper, "stopping", True))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    sources = [listener.fileno(), wake, *([owner] if owner is not None else [])]
    while not keeper.stopping:
        ready = select.select(sources, [], [])[0]
        if owner in ready:
            break
        if wake in ready:
            os.read(wake, 4096)
            keeper.reap()
        if listener.fileno() in ready and (waiting := _serve_one(listener, keeper)):
            return waiting
    keeper.stop()
    return None


def _serve_one(listener: socket.socket, keeper: Keeper) -> socket.socket | None:
    connection = listener.accept()[0]
    connection.settimeout(REQUEST_TIMEOUT_S)
    try:
        request = json.loads(connection.makefile("rb").readline())
        answer = keeper.answer(request)
        if keeper.stopping and not answer.get("left"):
            return connection  # answered when everything is tidied up
        connection.sendall(json.dumps(answer).encode() + b"\n")
    except (OSError, ValueError) as error:  # whoever asked has gone, or speaks another language
        sys.stderr.write(f"keeper: {error}\n")
    connection.close()
    return None


def main(folder: str, owner_pid: str, remove: str) -> int:
    """Keep the cluster in a folder.

    Args:
        folder: the folder.
        owner_pid: the process that the cluster must not outlive, which is the parent of this one; 0 for none.
        remove: "1" when the folder goes with the cluster.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    owner = int(owner_pid)
    watched = os.pidfd_open(owner) if owner else None
    if owner and os.getppid() != owner:
        return 1  # it is gone already, and the number may be someone else's
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    path = Path(folder, "keeper.sock")
    everyone = os.umask(0o077)  # whoever may connect may start programs
    listener.bind(str(path))
    os.umask(everyone)
    listener.listen(16)
    os.write(sys.stdout.fileno(), b"ready\n")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whoever waits for the line sees the end of the pipe, too
    waiting = serve(listener, Keeper(), watched)
    listener.close()
    path.unlink(missing_ok=True)
    if remove == "1":
        shutil.rmtree(folder, ignore_errors=True)
    if waiting is not None:
        with contextlib.suppress(OSError), waiting:
            waiting.sendall(b'{"left": []}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
