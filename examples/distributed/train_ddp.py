"""A training of one's own that works on several nodes: DistributedDataParallel, started by srun, once for each rank.

Everything comes from what Slurm and the launcher set: ranks from SLURM_PROCID and SLURM_NTASKS, the address of the
first node from SLURM_LAUNCH_NODE_IPADDR (no name has to resolve), a free port through the folder of the attempt.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel

PREEMPTED = 75  # the state is saved, run me again
TIMEOUT = timedelta(seconds=120)
RUN = Path(os.environ["MTF_RUN_DIR"])
RANK, RANKS = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
PARAMS = json.loads(Path(os.environ["MTF_CONFIG"]).read_text("utf-8"))["custom_params"]

told_to_stop = False


def stop(number: int, frame: FrameType | None) -> None:
    """A preemption is coming: it is honoured at the end of the step."""
    global told_to_stop
    told_to_stop = True


def meet() -> None:
    """Find the other ranks: the first one opens a port, and says which in the folder of this attempt."""
    place = RUN / "attempts" / os.environ["MTF_ATTEMPT"] / "rendezvous"
    if RANK == 0:
        address = os.environ["SLURM_LAUNCH_NODE_IPADDR"]
        store = dist.TCPStore(address, 0, RANKS, is_master=True, timeout=TIMEOUT, wait_for_workers=False)  # type: ignore[attr-defined]
        new = place.with_name(".rendezvous")
        new.write_text(f"{address} {store.port}", "utf-8")
        new.rename(place)
    else:
        end = time.monotonic() + TIMEOUT.total_seconds()
        while not place.exists():
            if time.monotonic() > end:
                raise TimeoutError(f"rank 0 did not write {place} within {TIMEOUT}")
            next(place.parent.iterdir(), None)  # so that an NFS client looks again
            time.sleep(0.05)
        address, port = place.read_text("utf-8").split()
        store = dist.TCPStore(address, int(port), RANKS, is_master=False, timeout=TIMEOUT)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=RANK, world_size=RANKS, timeout=TIMEOUT)


def make_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's share of a batch: a function of the step and the rank, so that nothing of it has to be saved."""
    random = torch.Generator().manual_seed(step * RANKS + RANK)
    inputs = torch.randn(16, 8, generator=random)
    return inputs, inputs.sum(dim=1, keepdim=True).sin()


def check_gradients(model: torch.nn.Module) -> None:
    """Whether every rank has the same gradients, to the bit."""
    mine = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    all_of_them = [torch.empty_like(mine) for _ in range(RANKS)]
    dist.all_gather(all_of_them, mine)
    if not all(torch.equal(mine, other) for other in all_of_them):
        raise RuntimeError(f"rank {RANK}: the gradients differ from rank to rank")


def some_rank_was_told() -> bool:
    """Whether to stop: one answer for all ranks, or they would stop at different steps."""
    told = torch.tensor([float(told_to_stop)])
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return bool(told.item())


def save(model: torch.nn.Module, step: int) -> None:
    """Rank 0 saves for all; the others wait until it is there."""
    if RANK == 0:
        folder = RUN / "checkpoints"
        folder.mkdir(exist_ok=True)
        new = folder / f".{step}.new"
        save_file(model.state_dict(), new)
        new.rename(folder / f"{step}.safetensors")
    dist.barrier()


def main() -> int:
    """Train, or go on training; the status says how it ended."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, stop)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    done = max((int(path.stem) for path in (RUN / "checkpoints").glob("*.safetensors")), default=0)
    if done:
        model.load_state_dict(load_file(RUN / "checkpoints" / f"{done}.safetensors"))
    meet()
    # else DDP lays its buckets out anew after the first step of a process, and what a training that was continued sums
    # up in another order than one that was not differs in the last bit
    ddp = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    print(f"rank {RANK} of {RANKS} on {os.environ['SLURMD_NODENAME']} begins at step {done}", flush=True)
    for step in range(done + 1, PARAMS["steps"] + 1):
        inputs, wanted = make_batch(step)
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(ddp(inputs), wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        check_gradients(ddp)
        optimizer.step()
        if some_rank_was_told():
            save(model, step)
            print(f"rank {RANK} was told to stop; saved after step {step}", flush=True)
            return PREEMPTED
    save(model, PARAMS["steps"])
    dist.destroy_process_group()
    print(f"rank {RANK} is done", flush=True)
    return 0


def leave(status: int) -> NoReturn:
    """End at once: all is saved and said, and gloo's threads may abort a process that is shut down step by step."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main())
