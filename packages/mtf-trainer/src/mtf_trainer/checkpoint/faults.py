"""What goes wrong with checkpoints: damage, for which an older one stands in, and failures, for which none does."""

from __future__ import annotations

import errno
from pathlib import Path

from mtf_trainer.errors import CheckpointError

__all__ = ["DamagedCheckpointError", "damaged", "os_failure", "read_failure"]

_DAMAGE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO, errno.ENXIO})
"""Errors of opening or reading that no second attempt will cure: the content is not there."""

_REMEDIES = {
    errno.ENOSPC: "free some space, or keep fewer checkpoints (checkpoint.keep_last, checkpoint.save_top_k)",
    errno.EDQUOT: "free some of your quota, or keep fewer checkpoints (checkpoint.keep_last, checkpoint.save_top_k)",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EACCES: "check who owns the folder and its permissions",
    errno.EPERM: "check who owns the folder and its permissions",
    errno.EROFS: "choose a checkpoint.checkpoint_dir that can be written",
}


class DamagedCheckpointError(CheckpointError):
    """A checkpoint's content is not what was written: incomplete, altered, or never a checkpoint."""


def damaged(path: Path, fault: str) -> DamagedCheckpointError:
    """The error for the file or folder at `path`; `fault` says what is wrong with it."""
    return DamagedCheckpointError(f"{path}: {fault}", path=path)


def os_failure(action: str, path: Path, error: OSError) -> CheckpointError:
    """The error for a call of the operating system that failed while doing `action` to `path`."""
    remedy = _REMEDIES.get(error.errno or 0)
    text = f"cannot {action} {path}: {error.strerror or error}" + (f"; {remedy}" if remedy else "")
    return CheckpointError(text, path=path)


def read_failure(path: Path, error: OSError) -> CheckpointError:
    """The error for a file that cannot be read: damage if its content is gone, else a failure."""
    if error.errno == errno.ENOENT:
        return damaged(path, "this file is missing")
    if error.errno == errno.ELOOP:
        return damaged(path, "a symbolic link is not accepted inside a checkpoint")
    if error.errno in _DAMAGE:
        return damaged(path, f"cannot be read: {error.strerror or error}")
    return os_failure("read", path, error)
