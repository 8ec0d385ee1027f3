"""Switches of torch that decide what is computed: set for a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

import torch

from mtf_trainer.errors import TrainerError

__all__ = ["explain", "settings"]

_WORKSPACE: Final = "CUBLAS_WORKSPACE_CONFIG"


@contextlib.contextmanager
def settings(*, deterministic: bool, benchmark: bool, matmul_precision: str | None) -> Iterator[None]:
    """Apply the switches inside the block and put back what was set before; a precision of None changes nothing."""
    precision = torch.get_float32_matmul_precision()
    workspace = os.environ.get(_WORKSPACE)
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )
    if deterministic:
        # cuBLAS reads this when its first handle is made; without it some of its calls refuse to run.
        os.environ.setdefault(_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.deterministic = deterministic
    if matmul_precision is not None:
        torch.set_float32_matmul_precision(matmul_precision)
    try:
        yield
    finally:
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before[2:]


def explain(error: RuntimeError) -> None:
    """Say what to do if torch refused an operation because it has no deterministic algorithm.

    Raises:
        TrainerError: it did; the error is its cause.
    """
    if "does not have a deterministic implementation" in str(error):
        operation = str(error).split(" ", 1)[0]
        raise TrainerError(
            f"{operation} has no deterministic implementation on this device; replace it, or give up exact results "
            "with deterministic=False"
        ) from error
