"""Composition: layers merged one over the other, with the origin of every key.

A layer is a file (those that it `extends:` come below it), a mapping, or dotted parameter overrides. Mappings are
merged key by key, anything else replaces what was there; null sets null. The value `${delete}` takes the key away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mtf_config.anchors import anchored
from mtf_config.errors import ConfigurationError, LocatedProblem, Position, ValidationError
from mtf_config.keys import check_key, set_dotted
from mtf_config.plain import copy_plain, plain_problems, to_plain
from mtf_config.reader import Document, files_beside, is_file
from mtf_config.references import resolve_references
from mtf_config.schema import ExperimentConfig, schema_defaults
from mtf_utils.names import nearest
from mtf_utils.problems import KeyPath, Problem, describe

__all__ = ["DELETE", "EXTENDS", "Composition", "Layer", "file_layers", "mapping_layer", "parameter_layer"]

DELETE: Final = "${delete}"
"""The value that takes a key away."""

EXTENDS: Final = "extends"
"""The key under which a file names the files that it builds on."""


@dataclass(frozen=True)
class Layer:
    """One contribution to a configuration.

    Attributes:
        name: what errors call it: the file's path, `overrides[0]`, `parameter_overrides`.
        data: what it says.
        document: the file that it was read from.
    """

    name: str
    data: Mapping[str, Any]
    document: Document | None = None

    def position(self, path: KeyPath, *, of_key: bool) -> Position | None:
        """Where the layer says something; None when it is not a file."""
        return self.document.position(path, of_key=of_key) if self.document else None


@dataclass
class Composition:
    """Layers, and what they come to.

    Attributes:
        layers: lowest first.
        data: the merged configuration, references as written.

    Raises:
        ConfigurationError: a layer takes away what is not there.
    """

    layers: list[Layer]
    data: dict[str, Any]

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = list(layers)
        self.data = {}
        problems: list[Problem] = []
        for layer in self.layers:
            found: list[Problem] = []
            _merge(self.data, layer.data, (), found)
            problems += [
                LocatedProblem.of(item, layer.position(item.path, of_key=item.about_key), layer.name) for item in found
            ]
        if problems:
            raise ConfigurationError(problems, subject=self.subject)

    @property
    def subject(self) -> str:
        """What errors call the whole: the file, or the files."""
        names = [layer.name for layer in self.layers]
        return " + ".join(names[-3:]) if len(names) <= 3 else f"{names[0]} + ... + {names[-1]}"

    def resolved(self) -> dict[str, Any]:
        """The configuration with its references resolved.

        Raises:
            ValidationError: a reference leads nowhere, or round in a circle.
        """
        try:
            data, problems = resolve_references(self.data, schema_defaults)
        except ConfigurationError as error:
            raise self.error(error.problems) from None
        if problems:
            raise self.error(problems)
        return data

    def experiment(self) -> ExperimentConfig:
        """The configuration as a whole experiment.

        Raises:
            ValidationError: it is not one; every problem is listed, with its place.
        """
        config, problems = ExperimentConfig.decode(self.data, ())
        if problems or config is None:
            raise self.error(problems)
        return config

    def error(self, problems: Iterable[Problem]) -> ValidationError:
        """The error for problems of the merged configuration, each with the place that it comes from."""
        located = sorted((self.locate(problem) for problem in problems), key=self._rank)
        return ValidationError(located, subject=self.subject)

    def locate(self, problem: Problem) -> LocatedProblem:
        """The problem with the place that it comes from."""
        layer = self._layer_of(problem.path)
        source = layer.position(problem.path, of_key=problem.about_key) if layer else None
        return LocatedProblem.of(problem, source, layer.name if layer and not source else None)

    def origin(self, path: KeyPath) -> Position | str | None:
        """Where the value of a key comes from: a place in a file, the name of another layer, or None for a default."""
        found = _find(self.data, path)
        layer = self._layer_of(path) if found else None
        return (layer.position(path, of_key=False) or layer.name) if layer else None

    def _layer_of(self, path: KeyPath) -> Layer | None:
        """The uppermost layer that says something about a path, or else about what it lies in."""
        for depth in range(len(path), -1, -1):
            for layer in reversed(self.layers):
                if _find(layer.data, path[:depth]) and (depth or layer.document):
                    return layer
        return self.layers[-1] if self.layers else None

    def _rank(self, problem: LocatedProblem) -> tuple[int, int, int]:
        names = [layer.name for layer in self.layers]
        name = problem.source.file if problem.source else problem.origin
        layer = names.index(name) if name in names else len(names)
        return (layer, *(problem.source[1:] if problem.source else (0, 0)))


def _merge(target: dict[str, Any], update: Mapping[str, Any], path: KeyPath, problems: list[Problem]) -> None:
    for key, value in update.items():
        here = (*path, key)
        if isinstance(value, Mapping):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _merge(target[key], value, here, problems)
        elif value != DELETE:
            target[key] = copy_plain(value)
        elif key in target:
            del target[key]
        else:
            guess = nearest(str(key), [str(other) for other in target])
            problems.append(Problem(here, "there is nothing to delete here", suggestion=guess, about_key=True))


def _find(data: Any, path: KeyPath) -> bool:
    for key in path:
        in_list = isinstance(data, list) and isinstance(key, int) and key < len(data)
        if not in_list and not (isinstance(data, Mapping) and key in data):
            return False
        data = data[key]
    return True


def file_layers(path: Path, read: Callable[[Path], Document], chain: tuple[Path, ...] = ()) -> Iterator[Layer]:
    """The layers of a file: those of the files that it extends, then its own.

    Args:
        path: the file.
        read: reads a file.
        chain: the files that led here.

    Raises:
        ConfigurationError: a file cannot be read, is not a mapping, or extends itself.
    """
    document = read(path)
    if not isinstance(document.data, dict):
        what = "nothing" if document.data is None else describe(document.data)
        raise _at(document, (), f"expected a configuration (a mapping), found {what}")
    chain = (*chain, path.resolve())
    own = {key: value for key, value in document.data.items() if key != EXTENDS}
    for keys, name in _extended_names(document):
        other = path.parent / name
        if not is_file(other):
            guess = nearest(other.name, files_beside(other))
            hint = f" (did you mean {guess!r}?)" if guess else ""
            raise _at(document, keys, f"there is no file {other}{hint}")
        if other.resolve() in chain:
            circle = " -> ".join(str(item) for item in [*chain[chain.index(other.resolve()) :], other.resolve()])
            raise _at(document, keys, f"files extend each other in a circle: {circle}")
        yield from file_layers(other, read, chain)
    yield Layer(document.name, anchored(own, path.parent), document)


def _extended_names(document: Document) -> Iterator[tuple[KeyPath, str]]:
    written = document.data.get(EXTENDS, [])
    names: list[tuple[KeyPath, Any]] | None = [((EXTENDS,), written)] if isinstance(written, str) else None
    if names is None and isinstance(written, list):
        names = [((EXTENDS, index), name) for index, name in enumerate(written)]
    if names is None or not all(isinstance(name, str) and name and "\0" not in name for _, name in names):
        raise _at(document, (EXTENDS,), f"expected a file or a list of files, found {describe(written)}")
    yield from names


def _at(document: Document, path: KeyPath, message: str) -> ConfigurationError:
    problem = LocatedProblem.of(Problem(path, message), document.position(path))
    return ConfigurationError([problem], subject=document.name)


def mapping_layer(data: Mapping[str, Any], name: str) -> Layer:
    """A layer from a mapping.

    Raises:
        ValidationError: it holds something other than plain data.
    """
    plain = to_plain(data)
    problems = list(plain_problems(plain, ()))
    if problems:
        raise ValidationError(problems, subject=name)
    return Layer(name, plain)


def parameter_layer(parameters: Mapping[str, Any], name: str = "parameter_overrides") -> Layer:
    """A layer from dotted keys: `{"training.batch_size": 64}`.

    Raises:
        ConfigurationError: a key is not a dotted key, or two set the same thing.
    """
    data: dict[str, Any] = {}
    for key, value in parameters.items():
        check_key(key, name)
        set_dotted(data, key, to_plain(value))
    return mapping_layer(data, name)
