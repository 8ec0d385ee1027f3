"""Folders of a repository that are installed in editable mode: the interpreter knows them by their absolute paths."""

from __future__ import annotations

import contextlib
import os
import site
import sysconfig
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

__all__ = ["editable_folders", "site_folders"]


def site_folders() -> list[Path]:
    """Where this interpreter looks for `.pth` files."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [Path(folder) for folder in dict.fromkeys(folders)]


def editable_folders(root: Path, folders: Iterable[Path], python_path: str = "") -> list[PurePosixPath]:
    """The folders inside a repository that `.pth` files or PYTHONPATH name, relative to its root.

    Args:
        root: of the working tree.
        folders: see `site_folders`.
        python_path: the value of PYTHONPATH.
    """
    lines = [entry for entry in python_path.split(os.pathsep) if entry]
    for file in (file for folder in folders for file in sorted(folder.glob("*.pth"))):
        with contextlib.suppress(OSError):  # one that cannot be read is none for the interpreter either
            lines += file.read_text("utf-8", "replace").splitlines()
    found: dict[PurePosixPath, None] = {}
    for line in lines:
        path = Path(line.strip())
        if path.is_absolute() and path.resolve().is_relative_to(root.resolve()):
            found[PurePosixPath(path.resolve().relative_to(root.resolve()))] = None
    return list(found)
