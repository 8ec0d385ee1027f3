"""Files that are either there whole or not there: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

__all__ = ["fsync_directory", "write_bytes", "write_json", "write_text"]


def write_bytes(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Replace the file at `path` by `data`; a reader sees the old content or the new, never a part.

    The parent folder must exist. `mode` is subject to the umask, as with `open`.

    Raises:
        OSError: the file cannot be written; whatever was at `path` is unchanged.

    Source: rename(2), fsync(2): the rename is atomic, and durable once the folder is synced.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_directory(path.parent)


def write_text(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Like `write_bytes`, for text in UTF-8."""
    write_bytes(path, text.encode("utf-8"), mode=mode)


def write_json(path: Path, value: Any) -> None:
    """Like `write_bytes`, for a value as indented standard JSON.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON does not have.
        TypeError: the value is not made of what JSON has.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8"))


def fsync_directory(path: Path) -> None:
    """Make renames and deletions inside the folder durable; does nothing where folders cannot be synced."""
    if os.name == "nt":  # Windows opens no folders, and its renames need no second step
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
