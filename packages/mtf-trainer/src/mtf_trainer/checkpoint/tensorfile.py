"""Tensors in a safetensors file, written and read in pieces, with a hash of each.

Source: the safetensors format, https://huggingface.co/docs/safetensors/index#format: the length of the header as a
little-endian u64, the header as JSON, the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from mtf_trainer.checkpoint import dtypes
from mtf_trainer.checkpoint.deadline import Deadline
from mtf_trainer.checkpoint.faults import damaged
from mtf_trainer.checkpoint.files import FileEntry, MemberReader, digest
from mtf_trainer.checkpoint.memory import use_huge_pages
from mtf_trainer.checkpoint.strictjson import loads
from mtf_trainer.checkpoint.writing import MemberWriter
from mtf_trainer.errors import CheckpointError

__all__ = ["read_plain_tensors", "read_tensors", "write_plain_tensors", "write_tensors"]

MAX_HEADER: Final = 100_000_000
"""The longest header that the format's own library accepts, in bytes."""

_METADATA = "__metadata__"


@dataclass(frozen=True)
class _Slot:
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], deadline: Deadline
) -> FileEntry:
    """Create a safetensors file, durable on return.

    Args:
        path: the file; must not exist.
        tensors: strided tensors on any device, of dtypes that are stored as they are.
        metadata: strings for the header.
        deadline: when to give up.

    Raises:
        CheckpointError: the file cannot be written.
    """
    _require_little_endian()
    # Widest elements first, so that each tensor begins at a multiple of its element size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    hashes: dict[str, str] = {}
    with MemberWriter(path, deadline) as writer:
        writer.write(_header(ordered, metadata))
        for name, tensor in ordered:
            hashes[name] = writer.write(_bytes_of(tensor))
        return replace(writer.finish(), tensors=hashes)


def write_plain_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Create a safetensors file that stands alone, durable on return.

    Raises:
        CheckpointError: a dtype has no name in the format, or the file cannot be written.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in dtypes.NAMES:
            known = ", ".join(dtypes.BY_NAME)
            raise CheckpointError(f"{name!r} is {tensor.dtype}, which safetensors does not have; it has: {known}")
    write_tensors(path, tensors, {"format": "pt", **metadata}, Deadline(None))


def read_tensors(path: Path, entry: FileEntry) -> dict[str, torch.Tensor]:
    """Read and verify a safetensors file; each tensor has memory of its own.

    Raises:
        DamagedCheckpointError: the file is not what was written.
        CheckpointError: the file cannot be read.
    """
    with MemberReader(path, size=entry.size) as reader:
        tensors, _ = _read_all(reader)
        if reader.hexdigest() != entry.xxh3:
            raise damaged(path, _which(tensors, entry))
    return tensors


def read_plain_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file that may come from anywhere; there is nothing to verify it with.

    Names that its header maps to others, as for tied weights, are given the same tensor.

    Raises:
        DamagedCheckpointError: it is not a whole file in this format.
        CheckpointError: it cannot be read.
    """
    with MemberReader(path, size=None) as reader:
        tensors, metadata = _read_all(reader)
    return tensors | {name: tensors[other] for name, other in metadata.items() if other in tensors}


def _read_all(reader: MemberReader) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    _require_little_endian()
    slots, metadata = _read_header(reader)
    tensors = {}
    for slot in slots:
        tensors[slot.name] = tensor = _allocate(reader.path, slot)
        reader.read_into(_bytes_of(tensor))
    return tensors, metadata


def _require_little_endian() -> None:
    if sys.byteorder != "little":
        raise CheckpointError(
            "checkpoints hold little-endian numbers; this processor is big-endian, which is not supported"
        )


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The tensor's bytes in row-major order; they are the tensor's own memory if it lies so on the CPU."""
    view: memoryview = dtypes.as_bytes(tensor.to("cpu")).numpy().data
    return view


def _header(ordered: list[tuple[str, torch.Tensor]], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    offset = 0
    for name, tensor in ordered:
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": dtypes.NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise CheckpointError(f"{len(ordered)} tensors need a header of {len(text)} bytes; {MAX_HEADER} are possible")
    return struct.pack("<Q", len(text)) + text


def _read_header(reader: MemberReader) -> tuple[list[_Slot], dict[str, str]]:
    if reader.size < 8:
        raise damaged(reader.path, f"has {reader.size} bytes, too few for a safetensors file")
    (length,) = struct.unpack("<Q", reader.read(8))
    if length > min(MAX_HEADER, reader.size - 8):
        raise damaged(reader.path, f"claims a header of {length} bytes in a file of {reader.size}")
    try:
        header = loads(reader.read(length))
        if not isinstance(header, dict):
            raise ValueError("not a JSON object")
        metadata = header.pop(_METADATA, {})
        if not isinstance(metadata, dict):
            raise TypeError(f"its {_METADATA} is not a JSON object")
        slots = [_slot(name, item) for name, item in header.items()]
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(reader.path, f"its header is not valid: {error}") from error
    slots.sort(key=lambda slot: (slot.begin, slot.end))
    offset = 0
    for slot in slots:
        if slot.begin != offset:
            raise damaged(reader.path, f"the tensor {slot.name!r} begins at {slot.begin} where {offset} is expected")
        offset = slot.end
    if offset != reader.size - 8 - length:
        raise damaged(reader.path, f"its tensors claim {offset} bytes where {reader.size - 8 - length} are")
    return slots, {key: value for key, value in metadata.items() if isinstance(value, str)}


def _slot(name: str, item: dict[str, Any]) -> _Slot:
    shape, (begin, end), dtype = item["shape"], item["data_offsets"], item["dtype"]
    if dtype not in dtypes.BY_NAME:
        raise ValueError(f"the tensor {name!r} has the unknown dtype {dtype!r}")
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, begin, end)):
        raise ValueError(f"the tensor {name!r} has an impossible shape or place")
    size = math.prod(shape) * dtypes.BY_NAME[dtype].itemsize
    if end - begin != size:
        raise ValueError(f"the tensor {name!r} of {size} bytes is said to occupy {end - begin}")
    return _Slot(name, dtypes.BY_NAME[dtype], tuple(shape), begin, end)


def _allocate(path: Path, slot: _Slot) -> torch.Tensor:
    try:
        tensor = torch.empty(slot.shape, dtype=slot.dtype)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise damaged(path, f"the tensor {slot.name!r} cannot have the shape {list(slot.shape)}") from error
    use_huge_pages(tensor)
    return tensor


def _which(tensors: Mapping[str, torch.Tensor], entry: FileEntry) -> str:
    """Name what differs, once it is known that something does."""
    written = entry.tensors or {}
    wrong = [name for name, tensor in tensors.items() if digest(_bytes_of(tensor)) != written.get(name)]
    if not wrong:
        return "the bytes of its header are not those that were written"
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"the bytes of the tensor {wrong[0]!r}{more} are not those that were written"
