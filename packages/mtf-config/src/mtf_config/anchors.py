"""Paths that a file names relative to itself: made absolute when it is read, so that they mean the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["TEMPLATE_KEY", "anchor_path", "anchored"]

TEMPLATE_KEY: Final = "slurm.template_path"
"""The dotted key whose value is such a path."""


def anchored(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration with its paths made absolute.

    Args:
        data: as a file says it; it is not changed.
        folder: that the file lies in.
    """
    section, _, key = TEMPLATE_KEY.partition(".")
    inner = data.get(section)
    if not isinstance(inner, Mapping) or key not in inner:
        return dict(data)
    return dict(data) | {section: dict(inner) | {key: anchor_path(inner[key], folder)}}


def anchor_path(value: Any, folder: Path) -> Any:
    """A path made absolute; what is none, or refers to another key, is left to whoever checks and resolves it."""
    if not isinstance(value, str) or not value or "${" in value or "\0" in value:
        return value
    path = folder.absolute() / Path(value).expanduser()
    return str(path.resolve() if ".." in path.parts else path)
