"""The words of a run's command: what may stand in braces, which the launcher fills in when the run starts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any, Final

from mtf_utils.names import nearest

__all__ = ["PLACEHOLDERS", "command_problems", "known_placeholders"]

PLACEHOLDERS: Final = ("python", "config", "run_dir", "name")
"""What stands in braces: `{python}`. Doubled braces, `{{python}}`, mean the word itself."""

_PLACEHOLDER: Final = re.compile(r"\{\{[A-Za-z_]\w*\}\}|\{([A-Za-z_]\w*)\}")


def command_problems(command: Any) -> Iterator[tuple[int | None, str]]:
    """What is wrong with a command, each with the number of the word where the command is a list of words.

    Args:
        command: a line, or a list of words; that these are strings is checked elsewhere.
    """
    words = command
    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError as error:
            yield None, f"cannot be split into words as a shell does: {error}"
            return
    if not isinstance(words, list):
        return
    if not any(isinstance(word, str) and word.strip() for word in words):
        yield None, "expected a command, found nothing"
    for index, word in enumerate(words):
        for name in _PLACEHOLDER.findall(word) if isinstance(word, str) else ():
            if name and name not in PLACEHOLDERS:
                yield None if isinstance(command, str) else index, _unknown(name)


def known_placeholders(name: str) -> str:
    """What to write instead of an unknown one: the nearest, or all there are."""
    guess = nearest(name, PLACEHOLDERS)
    return f"did you mean {{{guess}}}?" if guess else "known are " + ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)


def _unknown(name: str) -> str:
    return f"unknown placeholder {{{name}}} ({known_placeholders(name)}); to mean it literally, write {{{{{name}}}}}"
