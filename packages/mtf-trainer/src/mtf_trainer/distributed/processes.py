"""A team of several processes: the process group, and a store for what must not wait for it."""

from __future__ import annotations

import atexit
import json
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from mtf_trainer.checkpoint.publishing import Crew
from mtf_trainer.distributed.channel import Channel
from mtf_trainer.distributed.crew import RankCrew
from mtf_trainer.distributed.roll_call import TOGETHER
from mtf_trainer.distributed.team import Team
from mtf_trainer.distributed.world import World
from mtf_trainer.errors import CheckpointError, TrainerError
from mtf_utils.sections import DistributedConfig

__all__ = ["ProcessTeam", "assemble", "is_lost", "why_lost"]

T = TypeVar("T")

BLOCK: Final = 4096
"""Bytes that every rank gives at once; what is longer goes a second way."""

_LENGTH = struct.Struct("<q")


class ProcessTeam(Team):
    """This process and the others.

    Args:
        world: who they are.
        config: how long to wait for them.
        device: of this rank, which decides what carries the gradients.

    Attributes:
        met: how often the ranks have gathered.
        timeout: how long to wait for them.

    Raises:
        TrainerError: they cannot be reached.
    """

    def __init__(self, world: World, config: DistributedConfig, device: torch.device) -> None:
        self.rank, self.size, self.local_rank = world.rank, world.size, world.local_rank
        self.launcher = world.launcher
        self.met = 0
        self.timeout = timedelta(minutes=config.timeout_minutes)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            _join(world, device, self.timeout)
        # A group of its own, for host memory: what is told here never gets in the way of gradients.
        self._group = dist.new_group(backend="gloo", timeout=self.timeout)
        self._server, self._place = self._serve(world)

    def _serve(self, world: World) -> tuple[TCPStore | None, tuple[str, int]]:
        """A store on the first rank, which lives as long as this team: a closed connection tells of its end."""
        server = None
        if self.is_first:
            address = world.address or "localhost"
            server = TCPStore(address, 0, None, True, self.timeout, wait_for_workers=False)
        address, port = self.gather([world.address or "localhost", server.port if server else 0])[0]
        return server, (address, port)

    def channel(self, purpose: str, *, patience_s: float | None = None) -> Channel:
        """A connection of one's own to what the ranks leave for each other; for one thread.

        Args:
            purpose: what it is for; the others use the same word.
            patience_s: how long to try; None: as long as a rank waits for the others.
        """
        address, port = self._place
        timeout = self.timeout if patience_s is None else timedelta(seconds=patience_s)
        store = TCPStore(address, port, None, False, timeout, wait_for_workers=False)
        return Channel(PrefixStore(purpose, store))

    def crew(self) -> Crew:
        """See `Team.crew`."""
        return RankCrew(
            self.rank, self.size, lambda: self.channel("checkpoints"), patience_s=self.timeout.total_seconds()
        )

    def gather(self, value: Any) -> list[Any]:
        """See `Team.gather`."""
        self.met += 1
        data = json.dumps(value).encode()
        longest, block = len(data), BLOCK
        while True:
            received = self._gather_bytes(data, block)
            longest = max(_LENGTH.unpack_from(each)[0] for each in received)
            if longest <= block - _LENGTH.size:
                break
            block = longest + _LENGTH.size
        return [json.loads(each[_LENGTH.size :][: _LENGTH.unpack_from(each)[0]]) for each in received]

    def _gather_bytes(self, data: bytes, block: int) -> list[bytes]:
        content = (_LENGTH.pack(len(data)) + data)[:block].ljust(block, b"\0")
        received = [torch.empty(block, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(received, torch.frombuffer(bytearray(content), dtype=torch.uint8), group=self._group)
        return [each.numpy().tobytes() for each in received]

    def on_first(self, work: Callable[[], T]) -> T | None:
        """See `Team.on_first`."""
        result: T | None = None
        error: BaseException | None = None
        if self.is_first:
            try:
                result = work()
            except Exception as caught:  # noqa: BLE001 - raised again once the others know
                error = caught
        told = self.gather(None if error is None else f"{type(error).__name__}: {error}")[0]
        if error is not None:
            raise error
        if told is not None:
            raise CheckpointError(f"rank 0 could not go on: {told}")
        return result

    def share_tensors(self, tensors: Iterable[torch.Tensor]) -> None:
        """See `Team.share_tensors`."""
        for tensor in tensors:
            held = tensor.detach().cpu().contiguous()
            dist.broadcast(held, 0, group=self._group)
            if not self.is_first:
                with torch.no_grad():
                    tensor.copy_(held)

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Team.add_up`."""
        total = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=self._group)
        return total

    def close(self) -> None:
        """Let go of the store and the group, once every rank is through with them.

        The group's threads end here and now: one that lets go of a tensor while the interpreter ends aborts it.
        """
        self.gather(None)
        self._server = None
        dist.destroy_process_group(self._group)
        self._group = None


def _join(world: World, device: torch.device, timeout: timedelta) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    place = f"tcp://{world.address}:{world.port}"
    try:
        if world.launcher == "torchrun":
            dist.init_process_group(backend, timeout=timeout)
        else:
            dist.init_process_group(backend, place, timeout, world.size, world.rank)
    except (RuntimeError, ValueError) as error:
        raise TrainerError(
            f"rank {world.rank} of {world.size} cannot meet the others at {place}: {str(error).rstrip('.')}. "
            "Do all ranks run, with the same distributed.strategy, and is that the node of rank 0? "
            "MASTER_ADDR and MASTER_PORT say where to meet"
        ) from error
    atexit.register(_part)


def _part() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def is_lost(error: Exception) -> bool:
    """Whether an error says that another rank cannot be reached."""
    text = str(error)
    return isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text


def why_lost(error: Exception, config: DistributedConfig) -> str:
    """What such an error means, where no rank has said why it ended."""
    if re.search(r"timed? ?out", str(error), re.IGNORECASE):
        limit = f"distributed.timeout_minutes={config.timeout_minutes:g}"
        late = f"takes longer than {limit} for what this one waits for"
        return f"another rank hangs, {late}, or goes another way: {TOGETHER}"
    return "a rank has ended without a word; its log or the launcher says more"


def assemble(config: DistributedConfig, world: World, device: torch.device) -> ProcessTeam:
    """Meet the other ranks; a process group that is there already is used as it is."""
    if dist.is_initialized():
        world = replace(world, rank=dist.get_rank(), size=dist.get_world_size())
    return ProcessTeam(world, config, device)
