"""Nested state as a JSON tree and named tensors, exactly: what comes back is bitwise what went in.

What JSON can say, it says in plain JSON. The rest are tagged objects, whose first key begins with `$`; a dict that
JSON cannot hold, or that has such a key itself, is written as a `$dict`, so that nothing is ambiguous.
`mtf_trainer.checkpoint.decoding` is the way back.
"""

from __future__ import annotations

import base64
import math
import struct
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch

from mtf_trainer.checkpoint import dtypes
from mtf_trainer.checkpoint.strictjson import dumps
from mtf_trainer.errors import CheckpointError

__all__ = ["EXACT_INT", "MAX_DEPTH", "dense_strides", "encode"]

EXACT_INT: Final = 2**53
"""Integers up to here are exact in every JSON reader; larger ones are written as hexadecimal text."""

MAX_DEPTH: Final = 100

_RESERVED = "__metadata__"  # a safetensors header uses this name for itself
_SCALARS = (bool, int, float, complex, str, bytes)
_NATIVE_ARRAYS = frozenset("?bBhHiIlLqQefd")


def encode(tree: Any, *, where: str = "state") -> tuple[Any, dict[str, torch.Tensor]]:
    """Split nested state into a JSON tree and the tensors that the tree names.

    Tensors are not copied: those of the result share memory with the state where their layout allows it. A tensor
    that occurs more than once (same memory, same layout) is stored once. In a flat state dict every tensor is named
    by its own key.

    Args:
        tree: dicts, lists, tuples, sets, numbers, strings, bytes, None, tensors, numpy arrays and scalars,
            `torch.Size`, dtypes and devices, in any nesting.
        where: what to call the tree in errors.

    Raises:
        CheckpointError: something in the tree cannot be stored; says where, what, and what to do.
    """
    encoder = _Encoder(where, tree)
    return encoder.encode(tree, ()), encoder.tensors


def dense_strides(shape: Iterable[int], strides: Iterable[int]) -> bool:
    """Whether a layout is a permutation of a contiguous one: no holes, no overlap."""
    expected = 1
    for stride, size in sorted((stride, size) for size, stride in zip(shape, strides, strict=True) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


class _Encoder:
    def __init__(self, where: str, tree: Any) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._where = where
        self._seen: dict[tuple[Any, ...], tuple[str, torch.Tensor]] = {}
        self._reserved = {_RESERVED}
        if isinstance(tree, dict):
            self._reserved |= {key for key, item in tree.items() if isinstance(key, str)}

    def encode(self, value: Any, path: tuple[Any, ...]) -> Any:
        """One value; `path` holds the keys that lead to it."""
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind in _SCALARS:
            return _scalar(value)
        if len(path) > MAX_DEPTH:
            raise self._error(path[:5], f"is nested more than {MAX_DEPTH} levels deep", "does it contain itself?")
        if kind is dict or kind is OrderedDict:
            return self._dict(value, path)
        if kind is list or kind is tuple:
            items = [self.encode(item, (*path, index)) for index, item in enumerate(value)]
            return items if kind is list else {"$tuple": items}
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path)
        if isinstance(value, np.ndarray | np.generic):
            return self._numpy(value, path)
        if kind is set or kind is frozenset:
            return self._set(value, path)
        if kind is torch.Size:
            return {"$size": list(value)}
        if kind is torch.dtype:
            return {"$dtype": dtypes.dtype_name(value)}
        if kind is torch.device:
            return {"$device": str(value)}
        raise self._error(path, f"is a {_type_name(kind)}, which cannot be stored", _remedy(value))

    def _dict(self, value: dict[Any, Any], path: tuple[Any, ...]) -> Any:
        items = [(key, self.encode(item, (*path, key))) for key, item in value.items()]
        if all(type(key) is str and not key.startswith("$") and _is_text(key) for key, _ in items):
            return dict(items)
        return {"$dict": [[self._key(key, path), item] for key, item in items]}

    def _key(self, key: Any, path: tuple[Any, ...]) -> Any:
        if key is None or type(key) is bool:
            return key
        if type(key) in _SCALARS:
            return _scalar(key)
        if type(key) is tuple:
            return {"$tuple": [self._key(item, path) for item in key]}
        raise self._error(
            path, f"has a key of type {_type_name(type(key))}: {key!r:.80}", "use a string or a number as key"
        )

    def _set(self, value: set[Any] | frozenset[Any], path: tuple[Any, ...]) -> Any:
        items = [self._key(item, path) for item in value]
        return {"$set" if type(value) is set else "$frozenset": sorted(items, key=dumps)}

    def _tensor(self, value: torch.Tensor, path: tuple[Any, ...]) -> Any:
        self._check_tensor(value, path)
        tensor = value.detach().resolve_conj().resolve_neg()
        stored = dtypes.to_stored(tensor)
        if stored is None:
            raise self._error(path, f"is a tensor of dtype {tensor.dtype}", "convert it to one that can be stored")
        tag: dict[str, Any] = {"$tensor": self._place(stored, tensor, path)}
        if stored is not tensor:
            tag["dtype"] = dtypes.dtype_name(tensor.dtype)
        if not tensor.is_contiguous() and tensor.numel() and dense_strides(tensor.shape, tensor.stride()):
            tag["strides"] = list(tensor.stride())
        return tag

    def _check_tensor(self, value: torch.Tensor, path: tuple[Any, ...]) -> None:
        if not (type(value) is torch.Tensor or isinstance(value, torch.nn.Parameter | torch.nn.Buffer)) or (
            type(value).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
        ):
            remedy = "store value.full_tensor() or value.as_subclass(torch.Tensor), whichever holds the numbers"
            raise self._error(path, f"is a {_type_name(type(value))}, a tensor subclass", remedy)
        if torch.nn.parameter.is_lazy(value):
            raise self._error(
                path, "is a lazy parameter without a shape", "run one batch through the model before fit()"
            )
        if value.is_meta:
            raise self._error(path, "is a tensor on the meta device, which holds no numbers", "materialise it first")
        if value.layout is not torch.strided or value.is_nested or value.is_quantized:
            layout = "nested" if value.is_nested else "quantized" if value.is_quantized else str(value.layout)
            raise self._error(path, f"is a {layout} tensor", "store value.to_dense(), or its parts, as plain tensors")

    def _place(self, stored: torch.Tensor, tensor: torch.Tensor, path: tuple[Any, ...]) -> str:
        """The name under which the tensor is stored: that of an earlier one with the same memory and layout, if any."""
        if not tensor.numel():
            return self._store(stored, path)
        layout = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if layout not in self._seen:
            # The tensor is held as well: were it freed, another one could come to lie at the same address.
            self._seen[layout] = (self._store(stored, path), tensor)
        return self._seen[layout][0]

    def _store(self, stored: torch.Tensor, path: tuple[Any, ...]) -> str:
        if len(path) == 1 and type(path[0]) is str and _is_text(path[0]) and path[0] != _RESERVED:
            name = path[0]
        else:
            stem = ".".join(str(key) for key in path).encode("utf-8", "backslashreplace").decode() or "value"
            name, number = stem, 1
            while name in self.tensors or name in self._reserved:
                number += 1
                name = f"{stem}#{number}"
        self.tensors[name] = stored
        return name

    def _numpy(self, value: np.ndarray[Any, Any] | np.generic, path: tuple[Any, ...]) -> Any:
        dtype = value.dtype
        plain = isinstance(value, np.generic) or type(value) in (np.ndarray, np.memmap)
        if not plain or dtype.hasobject or dtype.fields is not None or dtype.subdtype is not None:
            kind = _type_name(type(value)) if not plain else f"numpy array of dtype {dtype}"
            raise self._error(path, f"is a {kind}", "store it as plain arrays of numbers, or as a list")
        if isinstance(value, np.generic):
            if dtype.kind in "USV":
                raise self._error(path, f"is a {_type_name(type(value))}", "store str(value) or bytes(value)")
            return {"$scalar": value.tobytes().hex(), "dtype": dtype.str}
        name = self._store(_array_as_tensor(value), path)
        return {"$array": name, "dtype": dtype.str, "shape": list(value.shape)}

    def _error(self, path: tuple[Any, ...], fault: str, remedy: str) -> CheckpointError:
        place = self._where + "".join(f"[{key!r}]" for key in path)
        return CheckpointError(f"{place} {fault}: {remedy}")


def _scalar(value: Any) -> Any:
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": _special_float(value)}
    if type(value) is int:
        return value if -EXACT_INT <= value <= EXACT_INT else {"$int": hex(value)}
    if type(value) is str:
        return value if _is_text(value) else {"$str": value.encode("utf-8", "surrogatepass").hex()}
    if type(value) is complex:
        return {"$complex": [_scalar(value.real), _scalar(value.imag)]}
    if type(value) is bytes:
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    return value


def _special_float(value: float) -> str:
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return "nan:" + struct.pack(">d", value).hex()


def _is_text(value: str) -> bool:
    """Whether the string can be written as UTF-8; a lone surrogate cannot."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _array_as_tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    if array.dtype.char in _NATIVE_ARRAYS and array.dtype.isnative:
        usable = array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
        return torch.from_numpy(np.asarray(array) if usable else np.array(array, order="C", subok=False))
    return torch.from_numpy(np.frombuffer(array.tobytes(), dtype=np.uint8).copy())


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _remedy(value: Any) -> str:
    if hasattr(value, "state_dict"):
        return "store its state_dict()"
    for base in (dict, list, tuple, str, int, float):
        if isinstance(value, base):
            return f"store it as a plain {base.__name__}: {base.__name__}(value)"
    return "store what is needed to rebuild it, as dicts, lists, numbers, strings and tensors"
