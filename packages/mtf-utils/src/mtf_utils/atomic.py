"""Files that are either there whole or not there: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

__all__ = ["fsync_directory", "refuse_special", "write_bytes", "write_json", "write_text"]


def write_bytes(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Replace the file at `path` by `data`; a reader sees the old content or the new, never a part.

    The parent folder must exist. The file has `mode` less the umask, whatever the old one had; a link at `path` is
    replaced, not followed. A process that is killed in here may leave a `.<name>.*.tmp` behind, which nobody reads.

    Raises:
        OSError: the file cannot be written; whatever was at `path` is unchanged. Only if the folder cannot be synced
            at the end the new content is in place, and may not outlive a crash of the machine.

    Source: rename(2), fsync(2): the rename is atomic, and durable once the folder is synced.
    """
    # A long name is cut: the temporary one must not exceed what the file system takes when the name itself does not.
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
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
        ValueError: the value holds NaN, an infinity, a cycle or half a character, which JSON does not have.
        TypeError: the value is not made of what JSON has.
        OSError: as with `write_bytes`.
    """
    try:
        data = (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{path}: cannot be written as JSON: {error}") from error
    write_bytes(path, data)


def refuse_special(path: Path) -> None:
    """Refuse a place that somebody names for a file where a device, a pipe or a stream is: it would be replaced.

    Raises:
        FileExistsError: there is one, such as `/dev/null` or `/dev/stdout`.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # nothing is there, or whoever writes is told
        return
    is_stream = path.is_symlink() and str(path.readlink()).startswith("/proc/")
    if is_stream or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FileExistsError(errno.EEXIST, "is no file, and would be replaced by one; name a file", str(path))


def fsync_directory(path: Path) -> None:
    """Make renames and deletions inside the folder durable; does nothing where folders cannot be synced.

    Raises:
        OSError: the folder cannot be opened or synced.
    """
    if os.name == "nt":  # Windows opens no folders, and its renames need no second step
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that do not know the operation
            raise
    finally:
        os.close(descriptor)
