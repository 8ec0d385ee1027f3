"""`${env:NAME}` and `${env:NAME,default}` in strings: values that come from the environment when a run starts.

A configuration keeps the reference as written, so that a secret never reaches a file; errors show references, never
what they stand for. `$${env:NAME}` is the text `${env:NAME}` itself.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from mtf_utils.problems import KeyPath, Problem, SettingsError, describe

__all__ = ["EnvReference", "EnvReferenceError", "find_env_references", "hiding_env_values", "resolve_env", "split_env"]

_REFERENCE = re.compile(r"(?P<escape>\$?)\$\{env:(?P<body>[^}]*)(?P<end>\}?)")
_TOO_SHORT: Final = 4
"""Values of fewer characters are looked for in quotes only: `1` is in many a text that does not speak of it."""

_SHOWN_AT_LEAST: Final = 16
"""By so many characters a value is recognised that a message has cut."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EnvReferenceError(SettingsError):
    """References that cannot be resolved; `problems` lists each with its key path, and no resolved value."""


@dataclass(frozen=True)
class EnvReference:
    """One reference to an environment variable.

    Attributes:
        path: the keys that lead to the string that holds it.
        name: the variable.
        default: what stands in when the variable is not set; None when there is no default.
    """

    path: KeyPath
    name: str
    default: str | None = None


def find_env_references(value: Any) -> list[EnvReference]:
    """Every reference in the strings of nested mappings and lists, in order.

    Raises:
        EnvReferenceError: a reference is malformed; all such are listed.
    """
    found, problems = [], []
    for path, text in _strings(value, ()):
        for match in _REFERENCE.finditer(text):
            if match["escape"]:
                continue
            parsed = _parse(match, path)
            if isinstance(parsed, Problem):
                problems.append(parsed)
            else:
                found.append(parsed)
    if problems:
        raise EnvReferenceError(problems, subject="environment")
    return found


def resolve_env(value: Any, environ: Mapping[str, str] | None = None) -> Any:
    """A copy of nested mappings and lists in which every reference is replaced by what it stands for.

    Only strings below mappings, lists and tuples are looked at, never keys. An empty variable counts as set. Text that
    a variable or a default brings in is not looked at again.

    Args:
        value: what may hold references.
        environ: the environment; the process's own by default.

    Raises:
        EnvReferenceError: a variable is not set and has no default, or a reference is malformed; all are listed.
    """
    environ = os.environ if environ is None else environ
    references = find_env_references(value)
    missing = {r: None for r in references if r.default is None and r.name not in environ}
    if missing:
        raise EnvReferenceError([_missing(reference) for reference in missing], subject="environment")

    def text_of(match: re.Match[str]) -> str:
        if match["escape"]:
            return match[0][1:]
        name, default = _split(match["body"])
        return environ.get(name, default or "")

    return _map_strings(value, lambda text: _REFERENCE.sub(text_of, text))


def split_env(text: str) -> list[str | EnvReference]:
    """The parts of a text: what stands there for itself, and the references between, in order.

    Raises:
        EnvReferenceError: a reference is malformed.
    """
    parts: list[str | EnvReference] = []
    literal, end = "", 0
    references = iter(find_env_references([text]))
    for match in _REFERENCE.finditer(text):
        literal += text[end : match.start()]
        end = match.end()
        if match["escape"]:
            literal += match[0][1:]
            continue
        parts += [literal, next(references)]
        literal = ""
    return [part for part in (*parts, literal + text[end:]) if part != ""]


@contextlib.contextmanager
def hiding_env_values(written: Any, environ: Mapping[str, str] | None = None) -> Iterator[None]:
    """Let the errors about settings that come out of the block show references, where they would show values.

    Args:
        written: the settings as they are written, with references.
        environ: the environment; the process's own by default.
    """
    try:
        yield
    except SettingsError as error:
        references = _references_of(written, os.environ if environ is None else environ)
        hidden = tuple(_hidden(problem, references) for problem in error.problems)
        if hidden == error.problems:
            raise
        # a traceback would show what the error came from
        raise _with_problems(error, hidden) from None


def _references_of(written: Any, environ: Mapping[str, str]) -> dict[str, str]:
    """What stands for values from the environment, by these values, the longest first."""
    found = {}
    for _, text in _strings(written, ()):
        if any(not match["escape"] for match in _REFERENCE.finditer(text)):
            with contextlib.suppress(EnvReferenceError):  # what cannot be resolved is shown as it is written
                found[resolve_env([text], environ)[0]] = text
    return {value: found[value] for value in sorted(found, key=len, reverse=True) if value}


def _hidden(problem: Problem, references: Mapping[str, str]) -> Problem:
    message = problem.message
    for value, reference in references.items():
        instead = f"what {reference!r} stands for"
        message = message.replace(describe(value), instead).replace(repr(value), instead)
        if len(value) >= _TOO_SHORT and value[:_SHOWN_AT_LEAST] in message:
            message = f"{instead} is not acceptable"
    if isinstance(problem.value, str) and problem.value in references:
        return replace(problem, message=message, value=references[problem.value])
    return problem if message == problem.message else replace(problem, message=message, value=None)


def _with_problems(error: SettingsError, problems: tuple[Problem, ...]) -> SettingsError:
    new = type(error).__new__(type(error))
    new.__dict__.update(error.__dict__)
    SettingsError.__init__(new, problems, subject=error.subject)
    return new


def _missing(reference: EnvReference) -> Problem:
    name = reference.name
    message = f"the environment variable {name} is not set; set it, or give a default: ${{env:{name},...}}"
    return Problem(reference.path, message, f"${{env:{name}}}")


def _parse(match: re.Match[str], path: KeyPath) -> EnvReference | Problem:
    if not match["end"]:
        return Problem(path, f"expected a '}}' that ends the reference {match[0][:40]!r}", match[0])
    name, default = _split(match["body"])
    if default is not None and "${" in default:
        return Problem(path, f"expected plain text as default of {name!r}: references cannot be nested", match[0])
    if not _NAME.fullmatch(name):
        message = f"expected ${{env:NAME}} or ${{env:NAME,default}}, found {match[0]!r}"
        return Problem(path, message, match[0])
    return EnvReference(path, name, default)


def _split(body: str) -> tuple[str, str | None]:
    name, comma, default = body.partition(",")
    return name.strip(), default.strip() if comma else None


def _strings(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _strings(item, (*path, index))


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_strings(item, change) for item in value]
    if isinstance(value, tuple):
        return tuple(_map_strings(item, change) for item in value)
    return value
