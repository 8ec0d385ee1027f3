"""References from one value of a configuration to another: `${section.key}`.

A value that is nothing but a reference takes over what it refers to, type and all; within a longer string the text of
a scalar is filled in. Environment references `${env:NAME}` are kept for the process that runs, and so are shell
variables such as `${HOME}`: a name in capitals without a dot is never a key here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from mtf_config.errors import ConfigurationError
from mtf_config.plain import copy_plain
from mtf_utils.envref import EnvReferenceError, find_env_references
from mtf_utils.names import nearest
from mtf_utils.problems import KeyPath, Problem, dotted

__all__ = ["resolve_references"]

_REFERENCE = re.compile(r"\$\{(?![A-Z][A-Z0-9_]*\})([A-Za-z_][\w-]*(?:\.[\w-]+)*)\}")
_MAX_GROWTH: Final = 200_000
_MAX_CHAIN: Final = 50


def resolve_references(
    data: Mapping[str, Any], defaults: Callable[[], Mapping[str, Any]] | None = None
) -> tuple[dict[str, Any], list[Problem]]:
    """Replace every reference by what it refers to.

    Args:
        data: the configuration.
        defaults: gives the values of keys that the configuration may leave out; called when one is referred to.

    Returns:
        A copy of the data with the references resolved, and what is wrong with those that could not be.

    Raises:
        ConfigurationError: references make much too much of the data.
    """
    resolver = _Resolver(data, defaults)
    return resolver.resolve(data, ()), resolver.problems


class _Resolver:
    def __init__(self, root: Mapping[str, Any], defaults: Callable[[], Mapping[str, Any]] | None) -> None:
        self.root = root
        self.defaults = defaults
        self.problems: list[Problem] = []
        self.resolved: dict[str, Any] = {}
        self.under_way: list[str] = []
        self.growth = 0

    def resolve(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, str):
            return self._text(value, path) if "${" in value else value
        if isinstance(value, Mapping):
            return {key: self.resolve(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.resolve(item, (*path, index)) for index, item in enumerate(value)]
        return value

    def _text(self, text: str, path: KeyPath) -> Any:
        if whole := _REFERENCE.fullmatch(text):
            target = self._target(whole[1], text, path)
            self._grow(_size(target), path, text)
            return copy_plain(target)
        result = _REFERENCE.sub(lambda match: self._inline(match, text, path), text)
        if "${env:" in result:
            try:
                find_env_references(result)
            except EnvReferenceError as error:
                self.problems += [dataclasses.replace(problem, path=path) for problem in error.problems]
        return result

    def _inline(self, match: re.Match[str], text: str, path: KeyPath) -> str:
        target = self._target(match[1], text, path)
        if isinstance(target, Mapping | list):
            kind = "a mapping" if isinstance(target, Mapping) else "a list"
            self.problems.append(Problem(path, f"{match[0]} is {kind}, which cannot stand within a string", text))
            return match[0]
        if target is None or isinstance(target, bool):
            return {None: "null", True: "true", False: "false"}[target]
        filled_in = str(target)
        self._grow(len(filled_in), path, text)
        return filled_in

    def _grow(self, amount: int, path: KeyPath, text: str) -> None:
        """Bound what references to references can make of a small file."""
        self.growth += amount
        if self.growth > _MAX_GROWTH:
            message = f"references make more than {_MAX_GROWTH} values or characters"
            raise ConfigurationError([Problem(path, message, text)])

    def _target(self, name: str, text: str, path: KeyPath) -> Any:
        if name in self.resolved:
            return self.resolved[name]
        if name in self.under_way:
            chain = " -> ".join([*self.under_way[self.under_way.index(name) :], name])
            self.problems.append(Problem(path, f"references lead round in a circle: {chain}", text))
            return text
        if len(self.under_way) >= _MAX_CHAIN:
            self.problems.append(Problem(path, f"references lead through more than {_MAX_CHAIN} others", text))
            return text
        found, value, problem = _walk(self.root, name, text, path)
        if not found and self.defaults:
            found, value, _ = _walk(self.defaults(), name, text, path)
        if not found:
            self.problems.extend(problem)
            return text
        self.under_way.append(name)
        try:
            value = self.resolve(value, _keys(name))
        finally:
            self.under_way.pop()
        self.resolved[name] = value
        return value


def _walk(root: Mapping[str, Any], name: str, text: str, path: KeyPath) -> tuple[bool, Any, list[Problem]]:
    value: Any = root
    walked: list[str | int] = []
    for key in name.split("."):
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            walked.append(int(key))
            value = value[int(key)]
        elif isinstance(value, Mapping) and key in value:
            walked.append(key)
            value = value[key]
        else:
            return False, None, [_dangling(name, key, value, tuple(walked), text, path)]
    return True, value, []


def _dangling(name: str, key: str, parent: Any, walked: KeyPath, text: str, path: KeyPath) -> Problem:
    guess = nearest(key, [str(other) for other in parent]) if isinstance(parent, Mapping) else None
    where = f"{dotted(walked)} has no key {key!r}" if walked else f"there is no key {key!r}"
    hint = "" if "." in name else "; for a shell variable write $" + name
    suggestion = (
        "${" + ".".join([*map(str, walked), guess, *name.split(".")[len(walked) + 1 :]]) + "}" if guess else None
    )
    return Problem(path, f"${{{name}}} refers to nothing: {where}{'' if guess else hint}", text, suggestion=suggestion)


def _size(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + sum(map(_size, value.values()))
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


def _keys(name: str) -> KeyPath:
    return tuple(int(key) if key.isdecimal() else key for key in name.split("."))
