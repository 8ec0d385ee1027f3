"""What is wrong with a value, where, and how an error shows it."""

from __future__ import annotations

import copyreg
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["KeyPath", "Problem", "SettingsError", "describe", "dotted"]

KeyPath = tuple[str | int, ...]

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a value.

    Attributes:
        path: the keys that lead to the value, outermost first.
        message: what is wrong and what was expected, as a sentence without the place.
        value: the value found.
        suggestion: the nearest valid name, when there is one.
        about_key: whether the key itself is wrong (unknown, missing) rather than its value.
    """

    path: KeyPath
    message: str
    value: Any = None
    suggestion: str | None = None
    about_key: bool = False

    def __str__(self) -> str:
        text = f"{dotted(self.path)}: {self.message}" if self.path else self.message
        return f"{text} (did you mean {self.suggestion!r}?)" if self.suggestion else text


class SettingsError(ValueError):
    """Settings that cannot be accepted; `problems` lists every reason."""

    def __init__(self, problems: Iterable[Problem], *, subject: str = "settings") -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.subject = subject
        super().__init__(self._render())

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call __init__ with the rendered text when the error comes back from another process.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def _render(self) -> str:
        if len(self.problems) == 1:
            return f"{self.subject}: {self.problems[0]}"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        return f"{self.subject}: {len(self.problems)} problems{lines}"


def describe(value: Any) -> str:
    """A value as an error shows it: its kind and, cut to a bearable length, itself."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 200:  # Python refuses to print very large ones
        return f"an integer of about {math.ceil(value.bit_length() * math.log10(2))} digits"
    if isinstance(value, str):
        return f"the string {_cut(repr(value[: _SHOWN_CHARACTERS + 1]))}"
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def dotted(path: KeyPath) -> str:
    """A key path as people write it: `training.epochs`, `tags[0]`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else (f".{key}" if text else str(key))
    return text
