"""Strict Jinja2 templates: every error has its line, an unknown name is found before anything is filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes

from mtf_slurm.errors import SLURMError
from mtf_utils.settings import nearest

__all__ = ["Template"]


class _NullValueError(ValueError):
    """A template writes a value that is null."""


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise _NullValueError("a value is null, and would be written as 'None'; guard it: {% if name %}...{% endif %}")
    return value


_ENVIRONMENT = Environment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_refuse_null)  # noqa: S701
_QUOTED_NAME = re.compile(r"'([A-Za-z_]\w*)' is undefined")


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

    def render(self, values: Mapping[str, Any]) -> str:
        """The text with the values filled in.

        Raises:
            SLURMError: an expression fails, or a value is null.
        """
        try:
            return self._template.render(values)
        except Exception as error:  # whatever an expression of the user's raises
            line = _line(error.__traceback__, self.name)
            said = error.message if isinstance(error, TemplateError) else str(error)
            kind = "" if isinstance(error, TemplateError | _NullValueError) else f"{type(error).__name__}: "
            raise SLURMError(f"{self.name}{f':{line}' if line else ''}: {kind}{said}") from error


def _line(traceback: TracebackType | None, name: str) -> int | None:
    """The template's line in a traceback, which Jinja2 rewrites to point there."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == name:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
