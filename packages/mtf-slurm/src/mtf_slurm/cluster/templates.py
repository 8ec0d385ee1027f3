"""Strict Jinja2 templates: every error has its line, an unknown name is found before anything is filled in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes

from mtf_slurm.errors import SLURMError
from mtf_utils.settings import nearest

__all__ = ["Inserted", "Template", "Verbatim"]


# around what comes from a value, as long as the text is not whole; no value holds them
_OPEN, _QUOTED, _CLOSE = "\x02", "\x05", "\x03"


class Verbatim(str):
    """Text that is the template's own rather than a value: it is written as it is, and means what it says."""

    __slots__ = ()


class _ForShell(str):
    """A value as one word of the shell, whatever it holds."""

    __slots__ = ()


@dataclass(frozen=True)
class Inserted:
    """What a template has written in a line for an expression.

    Attributes:
        line: which of the rendered text, from 1.
        text: what was written there.
        quoted: whether the filter `quote` has made it one word of the shell.
    """

    line: int
    text: str
    quoted: bool


class _NullValueError(ValueError):
    """A template writes a value that is null."""


def _mark(value: Any) -> Any:
    if value is None:
        raise _NullValueError("a value is null, and would be written as 'None'; guard it: {% if name %}...{% endif %}")
    if isinstance(value, Verbatim):
        return value
    return f"{_OPEN}{_QUOTED if isinstance(value, _ForShell) else ''}{value}{_CLOSE}"


def _quote(value: Any) -> str:
    return _ForShell(shlex.quote(str(value)))


_ENVIRONMENT = Environment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_mark)  # noqa: S701
_ENVIRONMENT.filters["quote"] = _quote
_MARKS = re.compile(f"([{_OPEN}{_QUOTED}{_CLOSE}])")
_TAGS = {nodes.Include: "include", nodes.Extends: "extends", nodes.Import: "import", nodes.FromImport: "from"}


class Template:
    """A parsed template.

    Args:
        source: its text.
        name: how errors call it: the path of its file.
        known: the names that it may use.

    Raises:
        SLURMError: it cannot be parsed, or uses other names.
    """

    def __init__(self, source: str, *, name: str, known: Sequence[str]) -> None:
        self.name, self.source = name, source
        try:
            tree = _ENVIRONMENT.parse(source, filename=name)
            _refuse_other_files(tree, name)
            self._names = meta.find_undeclared_variables(tree)
            self._check_names(tree, known)
            self._template = _ENVIRONMENT.template_class.from_code(
                _ENVIRONMENT, _ENVIRONMENT.compile(tree, filename=name), _ENVIRONMENT.make_globals(None)
            )
        except TemplateSyntaxError as error:
            raise SLURMError(f"{name}:{error.lineno}: {error.message}") from error

    def _check_names(self, tree: nodes.Template, known: Sequence[str]) -> None:
        unknown = self._names - {*known, *_ENVIRONMENT.globals}
        found = [node for node in tree.find_all(nodes.Name) if node.name in unknown and node.ctx == "load"]
        if not found:
            return
        lines = []
        for node in sorted(found, key=lambda node: node.lineno):
            guess = nearest(node.name, known)
            hint = f"did you mean {guess}?" if guess else f"known are {', '.join(sorted(known))}"
            lines.append(f"{self.name}:{node.lineno}: unknown name {node.name!r} ({hint})")
        raise SLURMError("\n".join(dict.fromkeys(lines)))

    def uses(self, name: str) -> bool:
        """Whether the template mentions the name."""
        return name in self._names

    def render(self, values: Mapping[str, Any]) -> tuple[str, list[Inserted]]:
        """The text with the values filled in, and where they are in it.

        Raises:
            SLURMError: an expression fails, or a value is null.
        """
        try:
            return _without_marks(self._template.render(values))
        except Exception as error:  # whatever an expression of the user's raises
            line = _line(error.__traceback__, self.name)
            said = error.message if isinstance(error, TemplateError) else str(error)
            kind = "" if isinstance(error, TemplateError | _NullValueError) else f"{type(error).__name__}: "
            raise SLURMError(f"{self.name}{f':{line}' if line else ''}: {kind}{said}") from error


def _refuse_other_files(tree: nodes.Template, name: str) -> None:
    """A template is one file: there is no folder in which names of others could be looked up."""
    for node in tree.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)):
        raise SLURMError(
            f"{name}:{node.lineno}: {{% {_TAGS[type(node)]} %}} reads another file, and a template is one; write "
            "here what that file would bring"
        )


def _without_marks(marked: str) -> tuple[str, list[Inserted]]:
    text: list[str] = []
    inserted: list[Inserted] = []
    depth, start, line, begins_at, quoted = 0, 0, 1, 1, False
    for part in _MARKS.split(marked):
        if part == _OPEN:
            if depth == 0:
                start, begins_at, quoted = len(text), line, False
            depth += 1
        elif part == _QUOTED:
            quoted = depth == 1 and len(text) == start
        elif part == _CLOSE:
            depth -= 1
            if depth == 0:
                lines = "".join(text[start:]).split("\n")
                inserted += [Inserted(number, each, quoted) for number, each in enumerate(lines, begins_at)]
        elif part:
            text.append(part)
            line += part.count("\n")
    return "".join(text), inserted


def _line(traceback: TracebackType | None, name: str) -> int | None:
    """The template's line in a traceback, which Jinja2 rewrites to point there."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == name:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
