"""The way back from a JSON tree and named tensors to nested state: see `mtf_trainer.checkpoint.encoding`.

The tree may come from anywhere: nothing in it is executed, imported, or trusted about sizes.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from mtf_trainer.checkpoint import dtypes
from mtf_trainer.checkpoint.encoding import dense_strides
from mtf_trainer.checkpoint.faults import DamagedCheckpointError

__all__ = ["decode"]

_HEX_INT = re.compile(r"-?0x[0-9a-f]+")
_NUMPY_DTYPE = re.compile(r"[<>|=]?[biufcmMSU][0-9]+(\[[0-9]*[a-zA-Z]+\])?")


def decode(json_tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Put nested state together again.

    Args:
        json_tree: the tree that `encode` returned, or the same read from JSON.
        tensors: the tensors that the tree names; they become part of the result without a copy where possible.

    Returns:
        The state: tensors that were one come back as one; those on a device come back wherever `tensors` lie.

    Raises:
        DamagedCheckpointError: the tree is not one that `encode` writes, or does not fit the tensors.
    """
    decoder = _Decoder(tensors)
    try:
        return decoder.decode(json_tree)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, RuntimeError) as error:
        if isinstance(error, DamagedCheckpointError):
            raise
        raise DamagedCheckpointError(f"the state cannot be decoded: {type(error).__name__}: {error}") from error


class _Decoder:
    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors
        self._built: dict[str, torch.Tensor] = {}
        self._tags: dict[str, Callable[..., Any]] = {
            "$dict": self._dict,
            "$tuple": lambda items: tuple(self.decode(item) for item in items),
            "$set": lambda items: self._unique(items, set),
            "$frozenset": lambda items: self._unique(items, frozenset),
            "$int": _int,
            "$float": _float,
            "$str": lambda text: bytes.fromhex(text).decode("utf-8", "surrogatepass"),
            "$complex": self._complex,
            "$bytes": lambda text: base64.b64decode(text, validate=True),
            "$size": torch.Size,
            "$dtype": dtypes.named_dtype,
            "$device": torch.device,
            "$tensor": self._tensor,
            "$array": self._array,
            "$scalar": _numpy_scalar,
        }

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if not any(key.startswith("$") for key in value):
            return {key: self.decode(item) for key, item in value.items()}
        first = next(iter(value))
        if first not in self._tags:
            raise ValueError(f"unknown tag {first!r}; written by a newer release?")
        arguments = {key: item for key, item in value.items() if key != first}
        return self._tags[first](value[first], **arguments)

    def _dict(self, items: list[list[Any]]) -> dict[Any, Any]:
        result = {self.decode(key): self.decode(item) for key, item in items}
        if len(result) != len(items):
            raise ValueError("a $dict repeats a key")
        return result

    def _complex(self, parts: list[Any]) -> complex:
        real, imaginary = (self.decode(part) for part in parts)
        if type(real) is not float or type(imaginary) is not float:
            raise ValueError(f"the parts of a complex number are {parts!r:.80}")
        return complex(real, imaginary)

    def _unique(self, items: list[Any], kind: Callable[[list[Any]], Any]) -> Any:
        result = kind([self.decode(item) for item in items])
        if len(result) != len(items):
            raise ValueError("a set repeats an item")
        return result

    def _stored(self, name: str) -> torch.Tensor:
        if name not in self._tensors:
            raise ValueError(f"the tensor {name!r} is missing")
        return self._tensors[name]

    def _tensor(self, name: str, dtype: str | None = None, strides: list[int] | None = None) -> torch.Tensor:
        if name not in self._built:
            tensor = self._stored(name)
            if dtype is not None:
                tensor = dtypes.from_stored(tensor, dtypes.named_dtype(dtype))
            self._built[name] = tensor if strides is None else _restride(tensor, name, strides)
        return self._built[name]

    def _array(self, name: str, dtype: str, shape: list[int]) -> np.ndarray[Any, Any]:
        kind = _numpy_dtype(dtype)
        if kind.itemsize == 0:
            return np.zeros(shape, dtype=kind)
        raw = dtypes.as_bytes(self._stored(name)).numpy()
        return raw.copy().view(kind).reshape(shape)


def _restride(tensor: torch.Tensor, name: str, strides: list[int]) -> torch.Tensor:
    if len(strides) != tensor.ndim or not dense_strides(tensor.shape, strides):
        raise ValueError(f"the tensor {name!r} of shape {list(tensor.shape)} cannot have the strides {strides}")
    result = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype)
    return result.copy_(tensor)


def _int(text: str) -> int:
    if not _HEX_INT.fullmatch(text):
        raise ValueError(f"not an integer: {text[:40]!r}")
    return int(text, 16)


def _float(text: str) -> float:
    if text in ("inf", "-inf"):
        return float(text)
    if not re.fullmatch("nan:[0-9a-f]{16}", text):
        raise ValueError(f"not a special float: {text[:40]!r}")
    value: float = struct.unpack(">d", bytes.fromhex(text[4:]))[0]
    return value


def _numpy_dtype(text: str) -> np.dtype[Any]:
    if not _NUMPY_DTYPE.fullmatch(text):
        raise ValueError(f"not a numpy dtype: {text[:40]!r}")
    return np.dtype(text)


def _numpy_scalar(text: str, dtype: str) -> np.generic:
    kind = _numpy_dtype(dtype)
    data = bytes.fromhex(text)
    if len(data) != kind.itemsize:
        raise ValueError(f"a numpy scalar of dtype {dtype} has {len(data)} bytes")
    scalar: np.generic = np.frombuffer(data, dtype=kind)[0]
    return scalar
