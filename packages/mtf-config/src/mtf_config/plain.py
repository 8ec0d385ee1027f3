"""Plain data: what YAML and JSON both have, and nothing else."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

from mtf_utils.problems import KeyPath, Problem, describe

__all__ = ["copy_plain", "plain_problems", "to_plain"]


def copy_plain(value: Any) -> Any:
    """A copy of dicts and lists all the way down; anything else is taken as it is."""
    if isinstance(value, dict):
        return {key: copy_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy_plain(item) for item in value]
    return value


def to_plain(value: Any) -> Any:
    """A copy in which what has a plain equal is replaced by it.

    Tuples become lists, enum members their values, paths strings, and the scalars and arrays of numeric libraries
    Python's numbers and lists. What has none stays, for `plain_problems` to report.
    """
    kind = type(value)
    if kind in (str, int, float, bool, type(None)):
        return value
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "to_dict"):
        return to_plain(value.to_dict())
    if hasattr(value, "tolist"):  # a NumPy scalar or array, or a tensor
        return to_plain(value.tolist())
    for base in (bool, int, float, str):  # enum members and other subclasses
        if isinstance(value, base):
            return base(getattr(value, "value", value))
    return value


def plain_problems(value: Any, path: KeyPath) -> Iterator[Problem]:
    """Everything within a value that a file could not hold."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _text_problems(key, (*path, key), about_key=True)
                yield from plain_problems(item, (*path, key))
            else:
                message = f"expected a string as key, found {describe(key)}; put it in quotes"
                yield Problem((*path, str(key)), message, item, about_key=True)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from plain_problems(item, (*path, index))
    elif type(value) is str:
        yield from _text_problems(value, path, about_key=False)
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(path, f"expected a finite number, found {value}", value)
    elif value is not None and type(value) not in (int, float, bool):
        message = f"expected plain data (strings, numbers, booleans, lists, mappings), found {describe(value)}"
        yield Problem(path, message, value)


def _text_problems(text: str, path: KeyPath, *, about_key: bool) -> Iterator[Problem]:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"the character U+{ord(text[error.start]):04X} is half of one (a surrogate); no file can hold it"
            yield Problem(path, message, text, about_key=about_key)
