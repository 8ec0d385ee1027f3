"""How each dtype is stored: natively where every safetensors reader knows it, else as a view of one that it knows."""

from __future__ import annotations

from typing import Final

import torch

__all__ = ["BY_NAME", "NAMES", "as_bytes", "dtype_name", "from_stored", "named_dtype", "to_stored"]

NAMES: Final = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""The dtypes that are stored as they are, with their names in a safetensors header."""

BY_NAME: Final = {name: dtype for dtype, name in NAMES.items()}

_AS_REAL: Final = {torch.complex32: torch.float16, torch.complex64: torch.float32, torch.complex128: torch.float64}
"""Stored as pairs of real numbers, in a last dimension of 2."""

_NEWER: Final = ("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2")
_AS_BYTES: Final = frozenset(getattr(torch, name) for name in _NEWER if hasattr(torch, name))
"""Stored as uint8: each is one byte wide, and not known to every reader or every release of torch."""


def to_stored(tensor: torch.Tensor) -> torch.Tensor | None:
    """A view of the tensor in the dtype it is stored in; None when the dtype cannot be stored."""
    if tensor.dtype in NAMES:
        return tensor
    if tensor.dtype in _AS_REAL:
        return torch.view_as_real(tensor)
    if tensor.dtype in _AS_BYTES:
        return tensor.view(torch.uint8)
    return None


def from_stored(stored: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Undo `to_stored`.

    Raises:
        ValueError: the stored tensor cannot stand for one of `dtype`.
    """
    if dtype in _AS_REAL and stored.dtype == _AS_REAL[dtype] and stored.ndim > 0 and stored.shape[-1] == 2:
        return torch.view_as_complex(stored)
    if dtype in _AS_BYTES and stored.dtype == torch.uint8:
        return stored.view(dtype)
    raise ValueError(f"stored as {dtype_name(stored.dtype)}, which cannot stand for {dtype_name(dtype)}")


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype inside torch: `float32`."""
    return str(dtype).removeprefix("torch.")


def named_dtype(name: str) -> torch.dtype:
    """The dtype of that name.

    Raises:
        ValueError: this release of torch has none.
    """
    dtype = getattr(torch, name, None) if name.isidentifier() else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch {torch.__version__} has no dtype {name!r}")
    return dtype


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor in row-major order, uint8 of shape (n,); its own memory if it lies so."""
    flat = tensor.detach().contiguous().reshape(-1)
    # A tensor without elements may have any strides, also such that cannot be viewed.
    return flat.view(torch.uint8) if flat.numel() else torch.empty(0, dtype=torch.uint8)
