"""What the doctor finds out about python, torch, GPUs and the speed of the file system."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from mtf_slurm.cluster.check import Check
from mtf_slurm.cluster.programs import Ran, run_program
from mtf_slurm.errors import ClusterUnreachableError
from mtf_utils.atomic import write_text

__all__ = ["ask_torch", "check_python", "check_speed"]

PROBE_TIMEOUT_S: Final = 120.0
BLOCK: Final = 1 << 20
BLOCKS: Final = 32
SMALL_FILES: Final = 20
SLOW_MB_PER_S: Final = 50.0
SLOW_MS: Final = 50.0

# In a process of its own: torch takes seconds and memory to load, and a broken one may take the process down.
_PROBE: Final = """
import json, torch
cuda = torch.cuda.is_available()
devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
mps = torch.backends.mps.is_available()
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "devices": devices, "mps": mps,
                  "threads": torch.get_num_threads()}))
"""


def ask_torch() -> Ran:
    """Have another process load torch and tell what it can use."""
    try:
        return run_program((sys.executable, "-c", _PROBE), timeout_s=PROBE_TIMEOUT_S)
    except ClusterUnreachableError as error:  # it took too long
        return Ran(-1, err=str(error))


def check_python(ask: Callable[[], Ran] = ask_torch) -> Iterator[Check]:
    """The interpreter, torch and the GPUs.

    Args:
        ask: loads torch and tells of it.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", "ok", f"{version}, {sys.executable}")
    if importlib.util.find_spec("torch") is None:
        remedy = "only training needs it: pip install mtf-trainer for the jobs' python"
        yield Check("torch", "note", "not installed here", remedy)
    else:
        yield from _torch(ask())
    if importlib.util.find_spec("mtf_trainer") is None:
        yield Check("mtf_trainer", "note", "not installed here", "only training needs it: pip install mtf-trainer")
    else:
        yield Check("mtf_trainer", "ok", "jobs use the same python unless the command says otherwise")


def _torch(answer: Ran) -> Iterator[Check]:
    try:
        found: dict[str, Any] = json.loads(answer.out) if answer.status == 0 else {}
    except ValueError:
        found = {}
    if not found:
        said = (answer.err.strip().splitlines() or ["it ends without a word"])[-1]
        yield Check("torch", "problem", f"cannot be loaded: {said}", "install it again, for this python")
        return
    built = f"for CUDA {found['cuda']}" if found["cuda"] else "without CUDA"
    yield Check("torch", "ok", f"{found['version']}, {built}, {found['threads']} CPU threads")
    driver = shutil.which("nvidia-smi")
    if found["devices"]:
        yield Check("GPUs", "ok", f"{len(found['devices'])}: {', '.join(dict.fromkeys(found['devices']))}")
    elif found["mps"]:
        yield Check("GPUs", "ok", "Apple's, by MPS")
    elif driver and not found["cuda"]:
        remedy = "install a build of torch for CUDA: see https://pytorch.org/get-started"
        yield Check("GPUs", "problem", "there is a driver of NVIDIA's, and torch was built without CUDA", remedy)
    elif driver:
        remedy = "see nvidia-smi; the driver may be too old for this CUDA, or CUDA_VISIBLE_DEVICES may hide them"
        yield Check("GPUs", "problem", "there is a driver of NVIDIA's, and torch sees no GPU", remedy)
    else:
        yield Check("GPUs", "note", "none on this machine", "training here uses the CPU; jobs have what they ask for")


def check_speed(folder: Path, clock: Callable[[], float] = time.monotonic) -> Iterator[Check]:
    """How fast checkpoints and receipts can be written durably.

    Args:
        folder: where to write; what is written is left to the caller to remove.
        clock: a monotonic clock, in seconds.
    """
    block, began = os.urandom(BLOCK), clock()
    with (folder / "large").open("wb") as file:
        for _ in range(BLOCKS):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    rate = BLOCK * BLOCKS / 1e6 / max(clock() - began, 1e-6)
    began = clock()
    for number in range(SMALL_FILES):
        write_text(folder / f"small-{number}", "1")
    each_ms = (clock() - began) / SMALL_FILES * 1e3
    said = f"{rate:.0f} MB/s for large files, {each_ms:.1f} ms for a small one, on the disk each time"
    yield judge_speed(rate, each_ms, said)


def judge_speed(rate: float, each_ms: float, said: str) -> Check:
    """Whether a file system is fast enough not to be in training's way."""
    if rate < SLOW_MB_PER_S:
        return Check("speed", "note", said, "checkpoints take long: keep runs on a faster one (-o), or save less often")
    if each_ms > SLOW_MS:
        return Check("speed", "note", said, "large sweeps are slow to plan here: keep runs on another one (-o)")
    return Check("speed", "ok", said)
