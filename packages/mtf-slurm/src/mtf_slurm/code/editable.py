"""Folders of a repository that are installed in editable mode: the interpreter knows them by their absolute paths."""

from __future__ import annotations

import ast
import contextlib
import os
import site
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

__all__ = ["editable_folders", "site_folders"]


def site_folders() -> list[Path]:
    """Where this interpreter looks for what is installed."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [Path(folder) for folder in dict.fromkeys(folders)]


def editable_folders(root: Path, folders: Iterable[Path], python_path: str = "") -> list[PurePosixPath]:
    """The folders inside a repository that modules are imported from by their absolute paths, relative to its root.

    They come from PYTHONPATH, from `.pth` files, and from the tables that setuptools makes for editable installs.

    Args:
        root: of the working tree.
        folders: see `site_folders`.
        python_path: the value of PYTHONPATH.
    """
    top = root.resolve()
    found: dict[PurePosixPath, None] = {}
    paths = [Path(entry) for entry in python_path.split(os.pathsep) if entry]
    for path in (*paths, *(path for folder in folders for path in _named_in(folder))):
        if path.is_absolute() and path.resolve().is_relative_to(top):
            found[PurePosixPath(path.resolve().relative_to(top))] = None
    return list(found)


def _named_in(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):  # what cannot be read is nothing to the interpreter either
        for file in sorted(folder.glob("*.pth")):
            yield from (Path(line.strip()) for line in file.read_text("utf-8", "replace").splitlines())
        for file in sorted(folder.glob("__editable___*_finder.py")):
            yield from _mapped_in(file.read_text("utf-8", "replace"))


def _mapped_in(source: str) -> Iterator[Path]:
    """The folders that hold the packages of setuptools' table; one that was renamed is not found in any folder."""
    with contextlib.suppress(SyntaxError, ValueError):
        for node in ast.parse(source).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if not any(isinstance(target, ast.Name) and target.id == "MAPPING" for target in targets):
                continue
            mapping = ast.literal_eval(getattr(node, "value", None) or ast.Constant(None))
            for name, place in mapping.items() if isinstance(mapping, dict) else ():
                if Path(str(place)).stem == str(name).rpartition(".")[2]:
                    yield Path(str(place)).parent
