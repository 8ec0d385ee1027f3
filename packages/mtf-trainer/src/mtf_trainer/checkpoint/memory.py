"""Host memory in huge pages, where the system has them: mapping it costs a fraction of the time."""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable

import torch

__all__ = ["mapped_block", "use_huge_pages"]

_WORTHWHILE = 4 << 20


def mapped_block(count: int) -> torch.Tensor:
    """Fresh memory of `count` bytes, uint8, every page of which is mapped.

    Raises:
        OSError: there is not so much.
    """
    block = torch.frombuffer(mmap.mmap(-1, max(count, mmap.PAGESIZE)), dtype=torch.uint8)
    use_huge_pages(block)
    ctypes.memset(block.data_ptr(), 0, block.numel())
    return block


def use_huge_pages(tensor: torch.Tensor) -> None:
    """Advise the system to map a large fresh tensor on the CPU in huge pages; a system that has none ignores it.

    Source: madvise(2).
    """
    advise = _madvise()
    if advise is None or tensor.nbytes < _WORTHWHILE:
        return
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    advise(start, end - start, mmap.MADV_HUGEPAGE)


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    function = getattr(ctypes.CDLL(None), "madvise", None)
    if function is None or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    advise: Callable[[int, int, int], int] = function
    return advise
