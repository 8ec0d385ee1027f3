"""What it costs several ranks to agree on a stop: `python tests/bench/agreement_cost.py [--ranks N]`.

Ranks train a tiny model under DDP over gloo, in blocks of steps that take turns, in an order drawn anew each time,
between three ways to learn of a stop: not at all, the agreement of the trainer, and the usual collective in every step.
A fourth is once more nothing at all: what differs there is what the measurement cannot tell. Printed is the time of a
step of each, with the median of its ratios to the first and where that would be 95 times of 100 were the blocks drawn
anew; and the same of the processor's time of all threads, which means more where the machine has other work.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mtf_trainer import DistributedConfig
from mtf_trainer.distributed import find_world
from mtf_trainer.distributed.agreement import Agreement
from mtf_trainer.distributed.processes import assemble
from mtf_trainer.preemption import StopFlag

BOUNDARIES_A_STEP = 7
"""Boundaries that the loop passes from one batch to the next."""


def main() -> None:
    """Start the ranks, or be one of them."""
    parser = argparse.ArgumentParser(prog="agreement_cost", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=150, help="blocks of each way (default: 150)")
    parser.add_argument("--steps", type=int, default=50, help="steps of a block (default: 50)")
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        measure(arguments.blocks, arguments.steps)
        return
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={arguments.ranks}"]
    os.execv(sys.executable, [*words, *sys.argv])


def measure(blocks: int, steps: int) -> None:
    """Time the three ways in turn, on this rank; the first one prints."""
    torch.set_num_threads(1)
    team = assemble(DistributedConfig(), find_world(), torch.device("cpu"))
    step = make_step()
    ways: dict[str, Callable[[Callable[[], bool]], object]] = {
        "none": lambda due: None,
        "agreement": lambda due: [due() for _ in range(BOUNDARIES_A_STEP)],
        "collective": lambda due: ask_all(),
        "none, again": lambda due: None,
    }
    draw = random.Random(0)  # the same on all ranks
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(blocks + 1):
        for name in draw.sample(sorted(ways), len(ways)):
            way = ways[name]
            agreement = Agreement(team, StopFlag(), patience_s=10)
            if name == "agreement":
                agreement.start()
            dist.barrier()
            began, used = time.perf_counter(), time.process_time()
            for _ in range(steps):
                step()
                way(agreement.is_due)
            times[name].append(((time.perf_counter() - began) / steps, (time.process_time() - used) / steps))
            agreement.close()
    if team.is_first:
        for name, taken in times.items():
            in_all, working = (compared(taken, times["none"], which) for which in (0, 1))
            print(f"{name:<12} {in_all} a step; processor {working}")
    team.close()


def compared(own: list[tuple[float, float]], bare: list[tuple[float, float]], which: int) -> str:
    """A median, that of the ratios, and between what it lies; the first block warms up."""
    pairs = [(mine[which], other[which]) for mine, other in zip(own[1:], bare[1:], strict=True)]
    ratios = [mine / other for mine, other in pairs]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(1000))
    spread = f"{statistics.median(ratios):.3f} ({medians[25]:.3f} .. {medians[975]:.3f})"
    return f"{statistics.median(mine for mine, _ in pairs) * 1e6:.0f} us, {spread}"


def make_step() -> Callable[[], None]:
    """A training step of about a millisecond."""
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    inputs, targets = torch.randn(32, 32), torch.randn(32, 1)

    def step() -> None:
        loss = nn.functional.mse_loss(ddp(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def ask_all() -> None:
    """Whether any rank was told to stop, as it is usually found out."""
    told = torch.zeros(1)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    bool(told.item())


if __name__ == "__main__":
    main()
