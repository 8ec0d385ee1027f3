"""The words of a run's command: what may stand in braces, which the launcher fills in when the run starts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any, Final

from mtf_utils.names import nearest

__all__ = ["PLACEHOLDERS", "command_problems", "word_problems"]

PLACEHOLDERS: Final = ("python", "config", "run_dir", "name")
"""What stands in braces: `{python}`. Doubled braces, `{{python}}`, mean the word itself."""

_REFERENCE: Final = re.compile(r"(?<!\$)\$\{env:[^}]*\}?")
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
        for wrong in word_problems(word) if isinstance(word, str) else ():
            yield None if isinstance(command, str) else index, wrong


def word_problems(word: str) -> Iterator[str]:
    """What is wrong with a word of a command: what stands in braces is known, or is that text itself."""
    for name in _PLACEHOLDER.findall(word):
        if name and name not in PLACEHOLDERS:
            yield _unknown(name)
    for reference in _REFERENCE.findall(word):
        yield (
            f"{reference!r}: no variable is looked up in a command, which everyone on the machine can read; have the "
            f"script look it up (custom_params of the experiment may hold the reference); to mean it literally, write "
            f"${reference}"
        )


def _unknown(name: str) -> str:
    guess = nearest(name, PLACEHOLDERS)
    known = "known are " + ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
    hint = f"did you mean {{{guess}}}?" if guess else known
    return f"unknown placeholder {{{name}}} ({hint}); to mean it literally, write {{{{{name}}}}}"
