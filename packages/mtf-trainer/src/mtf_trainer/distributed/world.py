"""How many processes train together and which one this is: what torchrun or srun says in the environment."""

from __future__ import annotations

import os
import re
import socket
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mtf_trainer.errors import TrainerError

__all__ = ["World", "find_world", "first_host", "is_resolvable"]

PORTS: Final = range(10_000, 30_000)
"""Ports that Linux hands out to nobody by itself; the port of a job step is one of these."""


@dataclass(frozen=True)
class World:
    """The ranks of a run.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
        local_rank: its number on its node, from 0.
        address: of the node of rank 0; empty when there is one rank.
        port: at which rank 0 is to be met.
        launcher: what started them: `torchrun`, `srun`, or nothing.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = ""
    port: int = 0
    launcher: str = ""

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0


def is_resolvable(host: str) -> bool:
    """Whether this machine knows the address of a host."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def find_world(environ: Mapping[str, str] | None = None, *, resolves: Callable[[str], bool] = is_resolvable) -> World:
    """The ranks as the environment describes them; one rank if it says nothing.

    What torchrun sets (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT`) goes before what srun sets for
    the tasks of a step. `MASTER_ADDR` and `MASTER_PORT` count there, too, if someone set them.

    Args:
        environ: the environment.
        resolves: whether the name of a host is known here.

    Raises:
        TrainerError: the variables do not make sense together.

    Source: torchrun's documentation, "Environment Variables"; srun(1), "OUTPUT ENVIRONMENT VARIABLES".
    """
    values = os.environ if environ is None else environ
    if "RANK" in values and "WORLD_SIZE" in values:
        return _checked(values, "torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", resolves)
    # In a batch script SLURM_PROCID is set as well, but there is no step: what runs there runs once.
    if "SLURM_PROCID" in values and "SLURM_STEP_NUM_TASKS" in values:
        return _checked(values, "srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", resolves)
    if values.get("WORLD_SIZE", "1") != "1":
        raise TrainerError(f"WORLD_SIZE={values['WORLD_SIZE']} without RANK: start the ranks with torchrun or srun")
    return World()


def _checked(
    values: Mapping[str, str],
    launcher: str,
    rank_key: str,
    size_key: str,
    local_key: str,
    resolves: Callable[[str], bool],
) -> World:
    rank, size = _number(values, rank_key), _number(values, size_key)
    if rank >= size:
        raise TrainerError(f"{rank_key}={rank} with {size_key}={size}: ranks count from 0 to {size - 1}")
    if size == 1:
        return World()
    return World(
        rank=rank,
        size=size,
        local_rank=_number(values, local_key) if local_key in values else 0,
        address=values.get("MASTER_ADDR") or _slurm_address(values, resolves),
        port=_number(values, "MASTER_PORT") if "MASTER_PORT" in values else _slurm_port(values),
        launcher=launcher,
    )


def _number(values: Mapping[str, str], key: str) -> int:
    if not values[key].isdecimal():
        raise TrainerError(f"{key}={values[key]!r}: expected a number")
    return int(values[key])


def _slurm_address(values: Mapping[str, str], resolves: Callable[[str], bool]) -> str:
    """The first node of the step, where rank 0 is; by its address if its name means nothing to this machine."""
    host = first_host(values.get("SLURM_STEP_NODELIST", ""))
    if host and resolves(host):
        return host
    address = values.get("SLURM_LAUNCH_NODE_IPADDR", "")
    if not address:
        found = f"the name of the first node, {host!r}, cannot be resolved" if host else "no node is named"
        raise TrainerError(f"{found}: set MASTER_ADDR to an address of the node of rank 0")
    return address


def _slurm_port(values: Mapping[str, str]) -> int:
    """A port that every task of the step works out for itself, and a task of another step hardly ever."""
    step = [values.get(key, "") for key in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")]
    if not step[0]:
        raise TrainerError("neither MASTER_PORT nor SLURM_JOB_ID is set: the ranks cannot find each other")
    return PORTS[zlib.crc32(".".join(step).encode()) % len(PORTS)]


def first_host(nodes: str) -> str:
    """The first host of a list as Slurm writes it: `a`, `a,b`, `node[03-05,9]`, `r[1-2]n[01-10]`."""
    first = re.match(r"(?:[^,\[\]]+|\[[^\]]*\])+", nodes)
    return "" if first is None else re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0])
