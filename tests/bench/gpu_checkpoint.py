"""Saves in the background from a CUDA device: exactness, and what they cost the loop.

Run it as `python tests/bench/gpu_checkpoint.py [--parameters N] [--saves N]` on a machine with a GPU; it ends with
status 1 if a checkpoint differs from the state at its boundary. Each save is followed by training steps that change
every parameter as early as they may; the state at the boundary is kept on the device to compare.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from mtf_trainer.checkpoint import CheckpointStore, Kind, Snapshot, read_checkpoint
from mtf_utils.sections import CheckpointConfig

WIDTH = 1024


def main() -> int:
    """Train, save, compare, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=int, default=50_000_000)
    parser.add_argument("--saves", type=int, default=9)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no CUDA device")
        return 2
    device = torch.device("cuda")
    layers = max(1, arguments.parameters // (WIDTH * WIDTH))
    model = nn.Sequential(*[nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)) for _ in range(layers)])
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = torch.randn(256, WIDTH, device=device)
    calls: list[float] = []

    def step(store: CheckpointStore | None = None) -> None:
        model(batch).square().mean().backward()
        if store is not None:
            began = time.perf_counter()
            store.join_copies()
            calls.append(time.perf_counter() - began)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def state() -> dict[str, object]:
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    def steady() -> list[torch.Tensor]:
        parameters = [parameter.detach() for parameter in model.parameters()]
        return parameters + [value for item in optimizer.state.values() for value in item.values()]

    def timed(count: int, store: CheckpointStore | None = None) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(count):
            step(store)
        torch.cuda.synchronize()
        return (time.perf_counter() - began) / count

    step()
    pinned = torch.empty(sum(tensor.nbytes for tensor in steady()), dtype=torch.uint8, pin_memory=True)
    saves: list[float] = []
    quiet: list[float] = []
    busy: list[float] = []
    copies: list[float] = []
    durable: list[float] = []
    wrong, config = 0, CheckpointConfig(keep_last=1)
    with tempfile.TemporaryDirectory() as place, CheckpointStore(Path(place), config, run_id="bench") as store:
        for number in range(arguments.saves + 1):
            quiet.append(timed(20))
            torch.cuda.synchronize()
            began, offset = time.perf_counter(), 0
            for tensor in steady():
                slot = pinned[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                slot.copy_(tensor, non_blocking=True)
                offset += tensor.nbytes
            torch.cuda.synchronize()
            copies.append(time.perf_counter() - began)
            expected = {name: value.clone() for name, value in model.state_dict().items()}
            moments = [(value["exp_avg"].clone(), value["exp_avg_sq"].clone()) for value in optimizer.state.values()]
            torch.cuda.synchronize()
            calls.clear()
            began = time.perf_counter()
            snapshot = Snapshot({}, state(), 0, number, steady=steady())
            store.save_in_background(snapshot, kind=Kind.PERIODIC)
            call_s = time.perf_counter() - began
            busy.append(timed(20, store))
            path = store.wait()
            durable.append(time.perf_counter() - began)
            saves.append(call_s + sum(calls))
            assert path is not None
            found = read_checkpoint(path).sections
            same = all(torch.equal(value.cpu(), found["model"][name]) for name, value in expected.items())
            for (first, second), item in zip(moments, found["optimizer"]["state"].values(), strict=True):
                same = same and torch.equal(first.cpu(), item["exp_avg"])
                same = same and torch.equal(second.cpu(), item["exp_avg_sq"])
            wrong += not same
    for name, values in {
        "device to pinned memory": copies,
        "loop's time in save code": saves,
        "step": quiet,
        "step after a save": busy,
        "until durable": durable,
    }.items():
        print(f"{name:<28} {1000 * statistics.median(values[1:]):10.2f} ms")
    print(f"{wrong} of {arguments.saves + 1} checkpoints differ from the state at their boundary")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
