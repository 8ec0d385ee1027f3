"""Packages of a repository that are installed in editable mode: the interpreter knows them by their absolute paths."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import site
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["Editable", "editable_folders", "editables", "site_folders"]

# Source: the package `editables`, which hatchling, pdm and others write these files with
_REDIRECTED: Final = re.compile(r"map_module\('([^'\\]+)', '([^'\\]+)'\)")


@dataclass(frozen=True)
class Editable:
    """Where modules are imported from.

    Attributes:
        place: a folder inside the repository, relative to its root: that of the module, if it has a name, else one on
            the interpreter's path.
        module: the name that is imported; None is everything in the folder.
    """

    place: PurePosixPath
    module: str | None = None

    @property
    def folder(self) -> PurePosixPath | None:
        """What in PYTHONPATH would find the same; None if nothing does, because the folder has another name."""
        if self.module is None:
            return self.place
        return self.place.parent if self.place.stem == self.module.rpartition(".")[2] else None


def site_folders() -> list[Path]:
    """Where this interpreter looks for what is installed."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [Path(folder) for folder in dict.fromkeys(folders)]


def editables(root: Path, folders: Iterable[Path], python_path: str = "") -> list[Editable]:
    """What is imported from inside a repository by its absolute path.

    It comes from PYTHONPATH, from `.pth` files, and from the modules that builders write for editable installs.

    Args:
        root: of the working tree.
        folders: see `site_folders`.
        python_path: the value of PYTHONPATH.
    """
    top = root.resolve()
    named = [(None, Path(entry)) for entry in python_path.split(os.pathsep) if entry]
    found: dict[Editable, None] = {}
    for module, path in (*named, *(each for folder in folders for each in _named_in(folder))):
        if path.is_absolute() and path.resolve().is_relative_to(top):
            found[Editable(PurePosixPath(path.resolve().relative_to(top)), module)] = None
    return list(found)


def editable_folders(found: Iterable[Editable]) -> list[PurePosixPath]:
    """The folders that stand for them in PYTHONPATH, where there are such."""
    return list(dict.fromkeys(each.folder for each in found if each.folder is not None))


def _named_in(folder: Path) -> Iterator[tuple[str | None, Path]]:
    with contextlib.suppress(OSError):  # what cannot be read is nothing to the interpreter either
        for file in sorted(folder.glob("*.pth")):
            yield from ((None, Path(line.strip())) for line in file.read_text("utf-8", "replace").splitlines())
        for file in sorted(folder.glob("__editable___*_finder.py")):
            yield from _mapped_in(file.read_text("utf-8", "replace"))
        for file in sorted(folder.glob("_editable_impl_*.py")):
            for module, path in _REDIRECTED.findall(file.read_text("utf-8", "replace")):
                place = Path(path)
                yield module, place.parent if place.name == "__init__.py" else place


def _mapped_in(source: str) -> Iterator[tuple[str | None, Path]]:
    """The modules of setuptools' table."""
    with contextlib.suppress(SyntaxError, ValueError):
        for node in ast.parse(source).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if not any(isinstance(target, ast.Name) and target.id == "MAPPING" for target in targets):
                continue
            mapping = ast.literal_eval(getattr(node, "value", None) or ast.Constant(None))
            for name, place in mapping.items() if isinstance(mapping, dict) else ():
                yield str(name), Path(str(place))
