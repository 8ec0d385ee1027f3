"""Where the project is, and whether it has the folders that it needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

__all__ = [
    "ProjectRootError",
    "ensure_directory_exists",
    "get_project_root",
    "given_path",
    "project_structure_problems",
    "validate_project_structure",
]

_MARKERS = ("pyproject.toml", ".git", "configs/")
_CONFIG_SUFFIXES = (".yaml", ".yml", ".json")


class ProjectRootError(FileNotFoundError):
    """No folder from the start upwards looks like the root of a project."""


def given_path(name: str, value: Any, what: str) -> Path:
    """A path that somebody gave as an argument, as it was given.

    Args:
        name: of the argument.
        value: what was given.
        what: what is expected, as in `"the folder of the runs"`.

    Raises:
        TypeError: it is no path.
        ValueError: it is empty.
    """
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str):
        raise TypeError(f"{name}={value!r:.60}: expected {what}, as a string or a Path")
    if not path:
        raise ValueError(f"{name}='': expected {what}; '.' is the working directory")
    return Path(path)


def get_project_root(start: str | os.PathLike[str] | None = None) -> Path:
    """The nearest folder, from `start` upwards, that holds a `pyproject.toml`, a `.git` or a folder `configs`.

    Args:
        start: a folder, or a file such as `__file__`; the working directory by default.

    Raises:
        ProjectRootError: there is none, or `start` does not exist.
    """
    first = Path.cwd() if start is None else Path(start).expanduser().resolve()
    if not first.exists():
        raise ProjectRootError(f"{first} does not exist, so no project root can be searched from there")
    for folder in (first, *first.parents):
        if any(_has_marker(folder, marker) for marker in _MARKERS):
            return folder
    raise ProjectRootError(
        f"no project root: neither {first} nor a folder above it holds one of {', '.join(_MARKERS)}; "
        "start inside the project, or name its root"
    )


def validate_project_structure(root: str | os.PathLike[str]) -> bool:
    """Whether experiments can be kept and run below `root`; what is missing is logged at DEBUG.

    `project_structure_problems` returns the reasons.
    """
    from mtf_utils.logs import get_logger  # here, because the package is to load without logging

    problems = project_structure_problems(root)
    for problem in problems:
        get_logger(__name__).debug("not a complete project: %s", problem)
    return not problems


def project_structure_problems(root: str | os.PathLike[str]) -> list[str]:
    """What keeps `root` from being a project: one sentence each, none when it is complete.

    A project is a folder with a folder `configs` that holds a configuration file (YAML or JSON) at any depth, and
    whose `experiments`, if it is there, is a folder, too.
    """
    root = Path(root)
    if not root.is_dir():
        return [f"{root} is not a folder"]
    problems = []
    configs, experiments = root / "configs", root / "experiments"
    if not configs.is_dir():
        problems.append(f"{configs} is not a folder; configurations are kept there")
    elif not any(path.suffix.lower() in _CONFIG_SUFFIXES for path in configs.rglob("*")):
        problems.append(f"{configs} holds no configuration file ({', '.join(_CONFIG_SUFFIXES)})")
    if os.path.lexists(experiments) and not experiments.is_dir():
        problems.append(f"{experiments} is not a folder; runs are kept there")
    return problems


def ensure_directory_exists(path: str | os.PathLike[str]) -> Path:
    """Create the folder and its parents where they are missing, and return it.

    Raises:
        NotADirectoryError: something that is not a folder is in the way; the message names it.
        OSError: the folder cannot be created.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        obstacle = next((p for p in (folder, *folder.parents) if os.path.lexists(p) and not p.is_dir()), folder)
        kind = "a broken link" if obstacle.is_symlink() and not obstacle.exists() else "a file"
        message = f"cannot create the folder {folder}: {obstacle} is {kind}; move it away or choose another folder"
        raise NotADirectoryError(message) from error
    return folder


def _has_marker(folder: Path, marker: str) -> bool:
    path = folder / marker
    return path.is_dir() if marker.endswith("/") else path.exists()
