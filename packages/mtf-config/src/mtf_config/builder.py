"""YAML events to plain data, with bounds, and with the place of every key and value when they are wanted.

Nothing recurses over the input, aliases are copied and counted, and no tag constructs anything but plain data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from mtf_config.plain import copy_plain
from mtf_config.scalars import resolve_scalar
from mtf_utils.problems import describe

__all__ = ["Builder", "Mark", "Node", "YamlProblem"]

MAX_DEPTH: Final = 64
TOO_DEEP: Final = f"nested more than {MAX_DEPTH} levels deep"
MAX_NODES: Final = 200_000

_PREFIX: Final = "tag:yaml.org,2002:"
_NO_KEY: Final = object()
_MERGE: Final = object()

Mark = tuple[int, int]
"""Line and column, from 1."""


class YamlProblem(Exception):  # noqa: N818 - turned into a ConfigurationError where the file is known
    """Something that cannot be read, and where."""

    def __init__(self, message: str, mark: Mark) -> None:
        super().__init__(message)
        self.message = message
        self.mark = mark


@dataclass
class Node:
    """Where a value was written, and the same for what it contains."""

    mark: Mark
    items: list[Node] = field(default_factory=list)
    keys: dict[Any, tuple[Mark, Node]] = field(default_factory=dict)


@dataclass
class _Frame:
    value: Any
    node: Node | None
    anchor: str | None
    started: int
    key: Any = _NO_KEY
    key_mark: Mark = (1, 1)
    merged: list[tuple[Any, Node | None]] = field(default_factory=list)


class Builder:
    """Builds the value of one document.

    Args:
        events: the events of a YAML parser.
        track: whether to keep the places in `root`.
    """

    def __init__(self, events: Iterator[yaml.Event], *, track: bool = False) -> None:
        self._events = events
        self._track = track
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, Node | None, int]] = {}
        self._count = 0
        self._value: Any = None
        self.duplicates: list[YamlProblem] = []
        self.root: Node | None = None

    def build(self) -> Any:
        """The value of the document; None when it is empty.

        Raises:
            YamlProblem: the text is not what is accepted.
        """
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.ScalarEvent):
                self._put(self._scalar(event), event)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._open(event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._close(event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise YamlProblem("expected one document, found a second", _mark(event))
        return self._value

    def _open(self, event: Any) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise YamlProblem(TOO_DEEP, _mark(event))
        is_map = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _PREFIX + ("map" if is_map else "seq")):
            raise YamlProblem(f"the tag {event.tag!r} is not accepted", _mark(event))
        frame = self._stack[-1] if self._stack else None
        if frame and isinstance(frame.value, dict) and frame.key is _NO_KEY:
            raise YamlProblem("expected a string as key, found a collection", _mark(event))
        node = Node(_mark(event)) if self._track else None
        self._anchors.pop(event.anchor, None)
        self._stack.append(_Frame({} if is_map else [], node, event.anchor, self._count))

    def _close(self, event: Any) -> None:
        frame = self._stack.pop()
        for source, node in frame.merged:
            self._merge(frame, source, node)
        if frame.anchor:
            self._anchors[frame.anchor] = (frame.value, frame.node, self._count - frame.started + 1)
        self._deliver(frame.value, frame.node, event, 1)

    def _put(self, value: Any, event: Any) -> None:
        node = Node(_mark(event)) if self._track else None
        if event.anchor:
            self._anchors[event.anchor] = (value, node, 1)
        self._deliver(value, node, event, 1)

    def _alias(self, event: Any) -> None:
        if event.anchor not in self._anchors:
            within = any(frame.anchor == event.anchor for frame in self._stack)
            message = "contains itself" if within else "is not defined before"
            raise YamlProblem(f"the alias *{event.anchor} {message}", _mark(event))
        value, node, size = self._anchors[event.anchor]
        self._check_count(size, event)
        self._deliver(copy_plain(value), node, event, size)

    def _check_count(self, size: int, event: Any) -> None:
        if self._count + size > MAX_NODES:
            raise YamlProblem(f"more than {MAX_NODES} values (aliases count in full)", _mark(event))

    def _deliver(self, value: Any, node: Node | None, event: Any, size: int) -> None:
        self._check_count(size, event)
        self._count += size
        if not self._stack:
            self._value, self.root = value, node
            return
        frame = self._stack[-1]
        if isinstance(frame.value, list):
            frame.value.append(value)
            if frame.node and node:
                frame.node.items.append(node)
        elif frame.key is _NO_KEY:
            self._take_key(frame, value, event)
        else:
            self._take_value(frame, value, node)

    def _take_key(self, frame: _Frame, key: Any, event: Any) -> None:
        if isinstance(key, dict | list):
            raise YamlProblem("expected a string as key, found a collection", _mark(event))
        if key == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
            frame.key, frame.key_mark = _MERGE, _mark(event)
            return
        if key != key:  # NaN is a key that nothing finds again
            raise YamlProblem("expected a string as key, found .nan", _mark(event))
        if key in frame.value:
            self.duplicates.append(YamlProblem(f"the key {key!r} is there twice", _mark(event)))
        frame.key, frame.key_mark = key, _mark(event)

    def _take_value(self, frame: _Frame, value: Any, node: Node | None) -> None:
        key, frame.key = frame.key, _NO_KEY
        if key is _MERGE:
            sources = value if isinstance(value, list) else [value]
            nodes: list[Node | None] = list(node.items) if node and isinstance(value, list) else [node] * len(sources)
            if not all(isinstance(source, dict) for source in sources):
                raise YamlProblem("<<: expected a mapping or a list of mappings to merge", frame.key_mark)
            frame.merged.extend(zip(sources, nodes, strict=True))
            return
        frame.value[key] = value
        if frame.node and node:
            frame.node.keys[key] = (frame.key_mark, node)

    def _merge(self, frame: _Frame, source: dict[Any, Any], node: Node | None) -> None:
        for key, value in source.items():
            if key not in frame.value:
                frame.value[key] = value
                if frame.node and node and key in node.keys:
                    frame.node.keys[key] = node.keys[key]

    def _scalar(self, event: Any) -> Any:
        if event.tag in (None, "!"):
            plain = event.implicit[0] and event.tag is None
            return self._resolved(event) if plain else event.value
        kind = event.tag.removeprefix(_PREFIX)
        if kind == "str":
            return event.value
        value = self._resolved(event)
        if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) < 2**1000 else float("inf")
        expected = {"int": int, "float": float, "bool": bool, "null": type(None)}.get(kind)
        if expected is None:
            raise YamlProblem(f"the tag {event.tag!r} is not accepted", _mark(event))
        if type(value) is not expected:
            raise YamlProblem(f"{describe(event.value)} is not what its tag !!{kind} says", _mark(event))
        return value

    def _resolved(self, event: Any) -> Any:
        try:
            return resolve_scalar(event.value)
        except ValueError:
            raise YamlProblem(f"a number of {len(event.value)} digits is too long", _mark(event)) from None


def _mark(event: Any) -> Mark:
    return event.start_mark.line + 1, event.start_mark.column + 1
