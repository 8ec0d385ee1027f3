"""Host memory that snapshots are copied into: reserved ahead, used again, filled while training goes on.

What nothing writes to before the next update (parameters, the optimizer's state) is copied by the thread that writes
the checkpoint, while the loop computes gradients. Everything else is copied before the loop goes on. On CUDA the first
kind is copied by a stream of its own, which the next update waits for on the device, and the second in the order of
the current stream, so that the host waits for neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from mtf_trainer.checkpoint.folder import EncodedSnapshot
from mtf_trainer.checkpoint.memory import mapped_block
from mtf_trainer.errors import CheckpointError

__all__ = ["Copies", "Staging"]

_ALIGNMENT = 64
_PIECE = 64 << 20


class Staging:
    """Copies snapshots into one block of host memory.

    Copying into memory that is already mapped costs a fraction of copying into fresh memory, so the block is kept,
    and can be reserved before it is needed. One snapshot is held at a time: the next `begin` writes over it.
    """

    def __init__(self) -> None:
        self._block = torch.empty(0, dtype=torch.uint8)
        self._reserving: threading.Thread | None = None

    def reserve(self, count: int, *, pinned: bool) -> None:
        """Get memory for a snapshot of about `count` bytes, in a thread; `begin` waits for it."""

        def work() -> None:
            with contextlib.suppress(CheckpointError):  # whoever needs the memory asks again and hears why
                self._block = _allocate(count + count // 64 + (1 << 20), pinned)

        self._reserving = threading.Thread(target=work, name="checkpoint-memory", daemon=True)
        self._reserving.start()

    def begin(self, snapshot: EncodedSnapshot, steady: Iterable[torch.Tensor] = ()) -> Copies:
        """Copy what may change at any moment, and leave what is steady to `Copies.finish`.

        Args:
            snapshot: what to copy.
            steady: live tensors that nothing writes to before `Copies.join` has returned.
        """
        if self._reserving is not None:
            self._reserving.join()
            self._reserving = None
        places = {tensor.data_ptr() for tensor in steady if not tensor.is_inference()}
        pinned, size = False, 0
        for tensors in snapshot.tensors.values():
            for tensor in tensors.values():
                pinned = pinned or tensor.is_cuda
                size += _rounded(tensor.nbytes)
        if size > self._block.numel() or (pinned and not self._block.is_pinned()):
            self._block = torch.empty(0, dtype=torch.uint8)  # let go of the old one first
            self._block = _allocate(size, pinned)
        return Copies(snapshot, self._block, places)

    def release(self) -> None:
        """Give the memory back."""
        if self._reserving is not None:
            self._reserving.join()
        self._block = torch.empty(0, dtype=torch.uint8)


@dataclass
class _Pending:
    """A tensor whose copy is left to the writer's thread."""

    section: str
    name: str
    tensor: torch.Tensor
    offset: int
    version: int


@dataclass
class _Device:
    """A CUDA device from which something is copied: the order of its copies."""

    device: torch.device
    begun: torch.cuda.Event
    done: torch.cuda.Event | None = field(default=None)


class Copies:
    """One snapshot on its way into the block.

    Attributes:
        nbytes: the size of its tensors.
    """

    def __init__(self, snapshot: EncodedSnapshot, block: torch.Tensor, places: set[int]) -> None:
        self.nbytes = snapshot.nbytes
        self._block = block
        self._pending: list[_Pending] = []
        self._tensors: dict[str, dict[str, torch.Tensor]] = {}
        self._finished = threading.Event()
        self._snapshot = snapshot.with_tensors({})
        offset, devices = 0, set()
        for section, tensors in snapshot.tensors.items():
            copies = self._tensors[section] = {}
            for name, tensor in tensors.items():
                if tensor.is_cuda:
                    devices.add(tensor.device)
                # Of other accelerators nothing is known about the order of copies: there the loop waits.
                if tensor.data_ptr() in places and tensor.numel() and tensor.device.type in ("cpu", "cuda"):
                    copies[name] = tensor  # holds the name's place in the order
                    self._pending.append(_Pending(section, name, tensor, offset, tensor._version))
                else:
                    copies[name] = self._slot(tensor, offset).copy_(tensor, non_blocking=tensor.is_cuda)
                offset += _rounded(tensor.nbytes)
        self._devices = [_Device(device, _mark(torch.cuda.current_stream(device))) for device in devices]
        if not self._pending:
            self._finished.set()

    def finish(self) -> EncodedSnapshot:
        """Copy the rest and wait for it, in the writer's thread; returns the snapshot that nothing else refers to."""
        try:
            with contextlib.ExitStack() as streams:
                sides = [_side_stream(each) for each in self._devices]
                for stream in sides:
                    streams.enter_context(torch.cuda.stream(stream))
                for item in self._pending:
                    self._tensors[item.section][item.name] = self._copy(item)
                for each, stream in zip(self._devices, sides, strict=True):
                    each.done = _mark(stream)
        finally:
            self._finished.set()
        for each in self._devices:
            each.begun.synchronize()
            if each.done is not None:
                each.done.synchronize()
        return self._snapshot.with_tensors(self._tensors)

    def join(self) -> str | None:
        """Make the loop, or its device, wait until the live tensors have been copied.

        Returns:
            None if all is well; else the name of a tensor that was written to in the meantime, so that its copy may
            be neither what it was before nor what it is now. Not every write can be seen: see `overlap_copy`.
        """
        self._finished.wait()
        for each in self._devices:
            if each.done is not None:
                torch.cuda.current_stream(each.device).wait_event(each.done)
        for item in self._pending:
            if item.tensor._version != item.version:
                return f"{item.section}.{item.name}"
        return None

    @property
    def overlaps(self) -> bool:
        """Whether anything is left to copy for the writer's thread."""
        return bool(self._pending)

    def _copy(self, item: _Pending) -> torch.Tensor:
        slot, tensor = self._slot(item.tensor, item.offset), item.tensor
        if tensor.is_cuda or not tensor.is_contiguous():
            return slot.copy_(tensor, non_blocking=True)
        # Not `copy_`, which would start computing threads for this thread too; this one lets the interpreter go on.
        for start in range(0, tensor.nbytes, _PIECE):
            count = min(_PIECE, tensor.nbytes - start)
            ctypes.memmove(slot.data_ptr() + start, tensor.data_ptr() + start, count)
        return slot

    def _slot(self, tensor: torch.Tensor, offset: int) -> torch.Tensor:
        if not tensor.numel():
            return torch.empty(tensor.shape, dtype=tensor.dtype)
        return self._block[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)


def _rounded(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT


def _mark(stream: torch.cuda.Stream) -> torch.cuda.Event:
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(stream)
    return event


_side_streams: dict[torch.device, torch.cuda.Stream] = {}


def _side_stream(each: _Device) -> torch.cuda.Stream:
    if each.device not in _side_streams:
        _side_streams[each.device] = torch.cuda.Stream(each.device)  # type: ignore[no-untyped-call]
    stream = _side_streams[each.device]
    stream.wait_event(each.begun)
    return stream


def _allocate(count: int, pinned: bool) -> torch.Tensor:
    try:
        return torch.empty(count, dtype=torch.uint8, pin_memory=True) if pinned else mapped_block(count)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"cannot get {count} bytes of host memory to copy the state into: {error}; set checkpoint.async_save=false"
        ) from error
