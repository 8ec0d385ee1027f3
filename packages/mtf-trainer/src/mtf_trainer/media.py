"""Images that a run logs: files beside the metrics, named by the record that speaks of them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import torch

from mtf_trainer.errors import TrainerError

__all__ = ["to_png"]

KINDS = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels and the PNG colour types: grey, grey with alpha, RGB, RGB with alpha."""


def to_png(name: str, image: Any) -> bytes:
    """An image as the bytes of a PNG file, the same ones every time.

    Args:
        name: for errors.
        image: a figure (anything with `savefig`), or values of shape (height, width), (height, width, channels) or
            (channels, height, width): floats from 0 to 1, or bytes. Values outside are cut off.

    Raises:
        TrainerError: it is none of these.
    """
    if hasattr(image, "savefig"):
        buffer = io.BytesIO()
        image.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()
    values = image.detach().cpu().float().numpy() if _is_floating(image) else np.asarray(_on_host(image))
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim == 3 and values.shape[-1] not in KINDS and values.shape[0] in KINDS:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[-1] not in KINDS or 0 in values.shape:
        raise TrainerError(
            f"image {name!r}: shape {tuple(values.shape)}; expected (height, width), (height, width, channels) or "
            "(channels, height, width) with 1 to 4 channels: log the images of a batch one by one"
        )
    return _encode(_as_bytes(name, values))


def _is_floating(image: Any) -> bool:
    return isinstance(image, torch.Tensor) and image.is_floating_point()


def _on_host(image: Any) -> Any:
    return image.detach().cpu() if isinstance(image, torch.Tensor) else image


def _as_bytes(name: str, values: Any) -> Any:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(values.dtype, np.floating):
        return (np.nan_to_num(values).clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    raise TrainerError(f"image {name!r}: values of type {values.dtype}; expected floats from 0 to 1, or bytes")


def _encode(values: Any) -> bytes:
    """Write a PNG file. Source: PNG specification, third edition, sections 5 and 11."""
    height, width, channels = values.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = values.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, KINDS[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
