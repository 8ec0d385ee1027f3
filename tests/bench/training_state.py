"""A model with AdamW of a given size, its training step, and the ways in which others save it."""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import xxhash
from torch import nn

__all__ = ["PEERS", "Training", "read_and_hash", "saved_by_torch", "write_and_sync"]

WIDTH = 640
TOKENS = 512
CHUNK = 4 << 20


class Training:
    """A model of about `parameters` parameters with AdamW, of which a small part is trained, on the CPU.

    So a step is long enough to copy the state in, as in real training, and steady enough to be compared.
    """

    def __init__(self, parameters: int) -> None:
        torch.manual_seed(0)
        used = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, WIDTH))
        size = sum(parameter.numel() for parameter in used.parameters())
        layers = [nn.Linear(WIDTH, 4 * WIDTH) for _ in range(max(1, 2 * round(parameters / size) - 2))]
        self.model = nn.ModuleDict({"used": used, "rest": nn.ModuleList(layers)})
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)
        self.batch = torch.randn(TOKENS, WIDTH)
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad()
        state = [value for item in self.optimizer.state.values() for value in item.values()]
        self.tensors: list[torch.Tensor] = [p.detach() for p in self.model.parameters()] + state
        self.nbytes = sum(tensor.nbytes for tensor in self.tensors)
        self.memory = mmap.mmap(-1, self.nbytes + CHUNK)
        self._address = torch.frombuffer(self.memory, dtype=torch.uint8).data_ptr()
        self.copy()

    def step(self, before_update: Callable[[], None] = lambda: None) -> float:
        """One training step; returns its seconds."""
        began = time.perf_counter()
        self.model["used"](self.batch).square().mean().backward()
        before_update()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - began

    def copy(self) -> None:
        """Copy the state into memory that is already mapped."""
        address = self._address
        for tensor in self.tensors:
            ctypes.memmove(address, tensor.data_ptr(), tensor.nbytes)
            address += tensor.nbytes

    def state(self) -> dict[str, object]:
        """What has to be saved."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


def write_and_sync(training: Training, folder: Path) -> None:
    """Write as many bytes as the state has, and sync them: what no checkpoint can do without."""
    view = memoryview(training.memory)[: training.nbytes]
    with (folder / "bare").open("xb", buffering=0) as file:
        for start in range(0, len(view), CHUNK):
            file.write(view[start : start + CHUNK])
        os.fsync(file.fileno())


def read_and_hash(path: Path) -> list[torch.Tensor]:
    """Read the files of a folder into memory and hash them: what no verified load can do without."""
    blocks = []
    for file in sorted(path.iterdir()):
        digest, block = xxhash.xxh3_128(), torch.empty(file.stat().st_size, dtype=torch.uint8)
        view: memoryview = block.numpy().data
        with file.open("rb", buffering=0) as stream:
            for start in range(0, len(view), CHUNK):
                count = stream.readinto(view[start : start + CHUNK])
                digest.update(view[start : start + count])
        blocks.append(block)
    return blocks


def saved_by_torch(training: Training, folder: Path) -> Callable[[], bool]:
    """`torch.save`, synced and renamed."""
    with (folder / "torch.tmp").open("wb") as file:
        torch.save(training.state(), file)
        file.flush()
        os.fsync(file.fileno())
    (folder / "torch.tmp").rename(folder / "torch")
    return lambda: True


def saved_by_dcp(training: Training, folder: Path) -> Iterator[Callable[[], Callable[[], bool]]]:
    """`torch.distributed.checkpoint.async_save` with a stager that keeps its memory, its fastest way."""
    import torch.distributed as dist
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
    from torch.distributed.checkpoint.state_dict_saver import AsyncSaveResponse, async_save

    place = (folder / "rendezvous").as_uri()
    dist.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    options = StagingOptions(
        use_pinned_memory=False, use_shared_memory=True, use_async_staging=False, use_non_blocking_copy=False
    )
    stager = DefaultStager(options)

    def save() -> Callable[[], bool]:
        shutil.rmtree(folder / "dcp", ignore_errors=True)
        response = async_save(training.state(), checkpoint_id=folder / "dcp", async_stager=stager)
        future = response.upload_completion if isinstance(response, AsyncSaveResponse) else response

        def done() -> bool:
            if future.done():
                future.result()
            return bool(future.done())

        return done

    try:
        yield save
    finally:
        stager.close()
        dist.destroy_process_group()


def saved_by_accelerate(training: Training, folder: Path) -> Iterator[Callable[[], Callable[[], bool]]]:
    """`Accelerator.save_state`; not synced."""
    from accelerate import Accelerator  # type: ignore[import-not-found,unused-ignore]

    accelerator = Accelerator(cpu=True)
    accelerator.prepare(training.model, training.optimizer)

    def save() -> Callable[[], bool]:
        accelerator.save_state(str(folder / "accelerate"))
        return lambda: True

    yield save


def saved_by_transformers(training: Training, folder: Path) -> Iterator[Callable[[], Callable[[], bool]]]:
    """What `transformers.Trainer` writes: the model in safetensors, the optimizer by `torch.save`; not synced."""
    from safetensors.torch import save_file

    def save() -> Callable[[], bool]:
        (folder / "hf").mkdir(exist_ok=True)
        save_file(training.model.state_dict(), folder / "hf" / "model.safetensors")
        torch.save(training.optimizer.state_dict(), folder / "hf" / "optimizer.pt")
        return lambda: True

    yield save


def saved_by_lightning(training: Training, folder: Path) -> Iterator[Callable[[], Callable[[], bool]]]:
    """What Lightning's `ModelCheckpoint` calls for the same state, written by its own IO plug-in; not synced."""
    from lightning.fabric.plugins.io.torch_io import (  # type: ignore[import-not-found,unused-ignore]
        TorchCheckpointIO,
    )

    plugin = TorchCheckpointIO()

    def save() -> Callable[[], bool]:
        plugin.save_checkpoint(training.state(), folder / "lightning.ckpt")
        return lambda: True

    yield save


PEERS = {
    "DCP async_save, stager kept": saved_by_dcp,
    "as transformers.Trainer saves": saved_by_transformers,
}
for _module, _name, _saver in (
    ("accelerate", "Accelerator.save_state", saved_by_accelerate),
    ("lightning", "Lightning's checkpoint IO", saved_by_lightning),
):
    if importlib.util.find_spec(_module):
        PEERS[_name] = _saver
