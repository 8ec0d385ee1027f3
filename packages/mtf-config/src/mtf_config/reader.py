"""Reading YAML and JSON: every problem with its file, line and column; no input does harm.

The first pass builds the data only. Where things stand in the file is worked out by a second pass, when there is
something to report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mtf_config.errors import ConfigurationError, LocatedProblem, Position
from mtf_config.plain import plain_problems
from mtf_utils.problems import KeyPath, Problem

if TYPE_CHECKING:
    from mtf_config.builder import Builder, Mark

__all__ = ["MAX_BYTES", "Document", "files_beside", "is_file", "parse_text", "read_bytes", "read_document"]

MAX_BYTES: Final = 4 * 2**20

# What JSON has and YAML has not; replaced, letter by letter, where only places matter.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_ONLY_IN_JSON = re.compile("[\x7f-\x84\x86-\x9f\ufffe\uffff]")


@dataclass(frozen=True)
class Document:
    """A text that was read.

    Attributes:
        name: what errors call it, usually its path.
        text: its text.
        data: what it says; not to be changed.
        prefix: the keys that lead from the text's outermost value to `data`.
    """

    name: str
    text: str
    data: Any
    prefix: KeyPath = ()

    def at(self, key: str) -> Document:
        """The value of a key as a document of its own, which keeps its places."""
        return Document(self.name, self.text, self.data[key], (*self.prefix, key))

    @cached_property
    def _root(self) -> Any:
        import yaml

        from mtf_config.builder import Builder, Node, YamlProblem

        builder = Builder(_events(_ONLY_IN_JSON.sub("~", _SURROGATE.sub(r"\\u007e", self.text))), track=True)
        try:
            builder.build()
        except (yaml.YAMLError, YamlProblem, UnicodeError):
            return Node((1, 1))
        return builder.root

    def position(self, path: KeyPath, *, of_key: bool = False) -> Position | None:
        """Where a value is written, or its key; for what is not there, where it would belong.

        Args:
            path: the keys that lead to it.
            of_key: whether the key is wanted rather than its value.
        """
        node = self._root
        if node is None:
            return None
        mark: Mark = (1, 1)
        path = (*self.prefix, *path)
        for depth, key in enumerate(path):
            if isinstance(key, int) and not node.keys:
                if key >= len(node.items):
                    break
                node = node.items[key]
                mark = node.mark
                continue
            if key not in node.keys:
                break
            key_mark, node = node.keys[key]
            last = depth == len(path) - 1
            mark = node.mark if last and not of_key else key_mark
        return Position(self.name, *mark)


def is_file(path: Path) -> bool:
    """Whether there is such a file; not either where the path is none, being too long for one, say."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def files_beside(path: Path) -> list[str]:
    """The names of the files in the folder of a path, none if that cannot be read: what else it may have meant."""
    try:
        return [item.name for item in path.parent.iterdir() if item.is_file()]
    except (OSError, ValueError):
        return []


def read_bytes(path: Path) -> bytes:
    """The content of a configuration file.

    Raises:
        ConfigurationError: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError.because(f"cannot read it: {reason}", subject=str(path)) from error
    return content


def read_document(path: Path, content: bytes | None = None) -> Document:
    """Read a file: JSON if its name ends in `.json`, else YAML.

    Args:
        path: the file.
        content: its content, if it was read already.

    Raises:
        ConfigurationError: it cannot be read, or is not what is accepted.
    """
    content = read_bytes(path) if content is None else content
    return parse_text(content, str(path), is_json=path.suffix.lower() == ".json")


def parse_text(content: bytes | str, name: str, *, is_json: bool = False) -> Document:
    """Read a text.

    Args:
        content: UTF-8, with or without a byte order mark.
        name: what errors call it.
        is_json: whether it must be JSON rather than YAML.

    Raises:
        ConfigurationError: it is not what is accepted.
    """
    if len(content) > MAX_BYTES:
        raise _error(f"larger than {MAX_BYTES // 2**20} MiB", name, (1, 1))
    text = _decoded(content, name) if isinstance(content, bytes) else content.removeprefix("\ufeff")
    data = _parse_json(text, name) if is_json else _parse_yaml(text, name)
    return Document(name, text, data)


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line_start = before.rfind(b"\n") + 1
        mark = before.count(b"\n") + 1, len(before[line_start:].decode("utf-8", "replace")) + 1
        raise _error(f"expected UTF-8, found the byte 0x{content[error.start]:02x}", name, mark) from None


def _parse_yaml(text: str, name: str) -> Any:
    import yaml

    from mtf_config.builder import TOO_DEEP, Builder, YamlProblem

    builder = Builder(_events(text))
    try:
        data = builder.build()
    except YamlProblem as error:
        raise _error(error.message, name, error.mark) from None
    except yaml.MarkedYAMLError as error:
        reason = " ".join(str(part) for part in (error.context, error.problem) if part)
        if "maximum nesting depth" in reason:  # libyaml 0.2.6 and later look ahead, and count before the builder does
            reason = TOO_DEEP
        raise _error(reason, name, _mark_within(text, error.problem_mark or error.context_mark)) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise _error(*_unreadable(text, error, name)) from None
    _refuse_duplicates(builder, name)
    return data


def _mark_within(text: str, mark: Any) -> Mark:
    lines = text.split("\n")
    if mark is None:
        return 1, 1
    if mark.line >= len(lines):  # libyaml sees a line after an end without line feed
        return len(lines), len(lines[-1]) + 1
    return mark.line + 1, mark.column + 1


def _refuse_duplicates(builder: Builder, name: str) -> None:
    if builder.duplicates:
        problems = [
            LocatedProblem.of(Problem((), item.message, about_key=True), Position(name, *item.mark))
            for item in builder.duplicates
        ]
        raise ConfigurationError(problems, subject=name)


def _unreadable(text: str, error: Exception, name: str) -> tuple[str, str, Mark]:
    """Characters that YAML does not allow: what and where."""
    for number, line in enumerate(text.split("\n"), 1):
        for column, character in enumerate(line, 1):
            code = ord(character)
            control = code < 0x20 and character not in "\t\r"
            if control or (0x7F <= code < 0xA0 and code != 0x85) or 0xD800 <= code < 0xE000:
                return f"the character U+{code:04X} is not allowed here", name, (number, column)
    return str(getattr(error, "reason", error)), name, (1, 1)


def _parse_json(text: str, name: str) -> Any:
    duplicate = False

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal duplicate
        result = dict(pairs)
        duplicate = duplicate or len(result) != len(pairs)
        return result

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        data = json.loads(text, object_pairs_hook=collect, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise _error(f"not JSON: {error.msg}", name, (error.lineno, error.colno)) from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else f"not JSON: {error}"
        raise _error(reason, name, (1, 1)) from None
    _check_shape(data, name)
    if "\\u" in text and (problems := list(plain_problems(data, ()))):  # YAML does not have such escapes
        document = Document(name, text, data)
        raise ConfigurationError(
            [LocatedProblem.of(item, document.position(item.path)) for item in problems], subject=name
        )
    if duplicate:
        _parse_yaml(text, name)  # tells where
        raise _error("a key is there twice", name, (1, 1))
    return data


def _check_shape(data: Any, name: str) -> None:
    """The bounds that the YAML builder keeps, for what JSON's parser let through."""
    from mtf_config.builder import MAX_DEPTH, MAX_NODES, TOO_DEEP

    level, depth, count = [data], 0, 0
    while level:
        count += len(level)
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise _error(TOO_DEEP if depth > MAX_DEPTH else f"more than {MAX_NODES} values", name, (1, 1))
        inner = [
            list(item.values()) if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)
        ]
        level = [item for group in inner for item in group]
        depth += 1


def _events(text: str) -> Iterator[Any]:
    import yaml

    parser = getattr(yaml, "CBaseLoader", yaml.BaseLoader)(text)
    while parser.check_event():
        yield parser.get_event()


def _error(message: str, name: str, mark: Mark) -> ConfigurationError:
    position = Position(name, *mark)
    return ConfigurationError([LocatedProblem.of(Problem((), message), position)], subject=name)
