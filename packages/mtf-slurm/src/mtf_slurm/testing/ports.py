"""Where daemons listen: free ports to give to them, and whether they do."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mtf_slurm.testing.errors import ClusterError

__all__ = ["is_listening", "reserve_ports"]

LOWEST: Final = 10_000
TRIES: Final = 200

# Source: proc(5), net/tcp_states.h and net.h of Linux
_TCP_LISTEN: Final = "0A"
_UNIX_ACCEPTS: Final = 0x10000


@contextlib.contextmanager
def reserve_ports(count: int) -> Iterator[int]:
    """Hold adjacent ports that nobody uses, until the block ends; yields the first.

    They are free on every address: Slurm can be bound to one only where the host's own name resolves to it. And they
    lie below the range that the kernel takes the ports of outgoing connections from, so that a daemon that is away for
    a moment finds its port free when it comes back.

    Raises:
        ClusterError: there are no such ports.
    """
    ceiling = _first_ephemeral_port() - count
    for _ in range(TRIES if ceiling > LOWEST else 0):
        first = random.randrange(LOWEST, ceiling)  # noqa: S311 - spreads, hides nothing
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("", port))
            except OSError:  # one of them is taken
                continue
            yield first
            return
    raise ClusterError(f"no {count} adjacent free ports between {LOWEST} and {ceiling + count}")


def _first_ephemeral_port() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])


def is_listening(where: Path | int) -> bool:
    """Whether someone listens on a socket file or a port; tells without a connection, which would be logged.

    Args:
        where: the file, or the port of any IPv4 address.
    """
    if isinstance(where, int):
        return _port_is_listening(where)
    for line in Path("/proc/net/unix").read_text("utf-8", "replace").splitlines()[1:]:
        words = line.split(maxsplit=7)
        if len(words) == 8 and words[7] == str(where) and int(words[3], 16) & _UNIX_ACCEPTS:
            return True
    return False


def _port_is_listening(port: int) -> bool:
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        if words[3] == _TCP_LISTEN and int(words[1].rpartition(":")[2], 16) == port:
            return True
    return False
