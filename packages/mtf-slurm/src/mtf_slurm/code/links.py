"""Inputs that git ignores, as links from the code that jobs run to the project (`slurm.link`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from mtf_slurm.errors import JobSubmissionError

__all__ = ["check_links", "link_inputs"]


def check_links(project_root: Path, links: Iterable[str]) -> None:
    """Refuse what is not there, or not inside the project.

    The last part of a path may be a link to anywhere: a project's `data` often is.

    Raises:
        JobSubmissionError: names every bad path, and says why.
    """
    bad = [f"{link!r} {why}" for link in dict.fromkeys(links) if (why := _objection(project_root, link))]
    if bad:
        raise JobSubmissionError(f"slurm.link: {'; '.join(bad)}; expected paths of {project_root}, relative to it")


def _objection(project_root: Path, link: str) -> str:
    path = PurePosixPath(link)
    if path.is_absolute() or ".." in path.parts or path == PurePosixPath() or "\0" in link:
        return "is no path inside the project"
    place = project_root / path
    if not place.exists():
        return "leads nowhere" if place.is_symlink() else "does not exist"
    if not place.parent.resolve().is_relative_to(project_root.resolve()):
        return f"lies outside the project, in {place.parent.resolve()}"
    return ""


def link_inputs(copy: Path, project_root: Path, links: Sequence[str]) -> None:
    """Let the copy of a project refer to the project for these paths; what is linked already stays.

    Of a folder that the copy has itself, because git tracks a part of it, the rest is linked, entry by entry.

    Args:
        copy: the place of the project in the snapshot's copy.
        project_root: the project.
        links: checked paths.

    Raises:
        JobSubmissionError: the copy has a file of that name.
        OSError: a link cannot be made.
    """
    for link in links:
        relative = PurePosixPath(link)
        _link(copy / relative, project_root / relative, link)


def _link(place: Path, target: Path, name: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        place.symlink_to(target)
        return
    if place.is_symlink() and os.fspath(place.readlink()) == os.fspath(target):
        return
    if place.resolve() == target.resolve():  # in a folder that is linked itself
        return
    if not place.is_dir() or place.is_symlink() or not target.is_dir():
        raise JobSubmissionError(f"slurm.link: {name!r} is a part of the snapshot; link what git ignores only")
    _link_rest(place, target)


def _link_rest(folder: Path, target: Path) -> None:
    for entry in target.iterdir():
        place = folder / entry.name
        with contextlib.suppress(FileExistsError):  # of the snapshot, or linked before
            place.symlink_to(entry)
            continue
        if entry.is_dir() and not entry.is_symlink() and place.is_dir() and not place.is_symlink():
            _link_rest(place, entry)
