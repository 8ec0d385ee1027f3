"""A project to begin with: a training that runs at once, its configuration, a sweep, tests, and real data."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Final

from mtf_utils import atomic

__all__ = ["ProjectExistsError", "project_files", "write_project"]

_SUFFIX: Final = ".tmpl"
"""Of files that no tool is to take for a part of this package."""

_HIDDEN: Final = {"gitignore": ".gitignore"}


class ProjectExistsError(FileExistsError):
    """Files of the project are there already; nothing was written.

    Attributes:
        files: those that are there.
    """

    def __init__(self, folder: Path, files: list[str]) -> None:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        super().__init__(f"{folder} has {', '.join(files[:3])}{more} already, and nothing is overwritten")
        self.files = files


def project_files() -> dict[str, bytes]:
    """The files of a new project: relative path → content."""
    return dict(sorted(_read(resources.files("mtf_config").joinpath("template"), PurePosixPath())))


def _read(folder: Traversable, place: PurePosixPath) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, place / entry.name)
        else:
            name = entry.name.removesuffix(_SUFFIX)
            yield str(place / _HIDDEN.get(name, name)), entry.read_bytes()


def write_project(folder: Path) -> list[str]:
    """Write a new project into a folder, which is made if needed, and return the relative paths of its files.

    Raises:
        ProjectExistsError: one of its files is there.
        OSError: something cannot be written.
    """
    files = project_files()
    if there := [name for name in files if (folder / name).is_symlink() or (folder / name).exists()]:
        raise ProjectExistsError(folder, there)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, content)
    return list(files)
