"""What a grid is made of: independent axes, each a numbered list of assignments.

A point of a grid is one row of each axis, so that its number gives the rows by division alone. Parameters that depend
on each other (conditions, exclusions) are joined into one axis, whose rows are worked out once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mtf_config.errors import ConfigurationError
from mtf_config.plain import copy_plain
from mtf_config.sampling import Range
from mtf_utils.names import nearest

__all__ = [
    "Axis",
    "Condition",
    "Linked",
    "Parameter",
    "Sampled",
    "Table",
    "join_axes",
    "keys_that_alone_vary",
    "same_value",
]

Condition = Mapping[str, Sequence[Any]]
"""Key → accepted values; it holds when every key has one of its values."""

MAX_JOINED: Final = 200_000
_NOTHING: Final = object()


class Axis(Protocol):
    """A numbered list of assignments."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that its rows assign; a row may leave out some."""

    @property
    def count(self) -> int:
        """How many rows there are."""

    def row(self, index: int) -> dict[str, Any]:
        """The assignment of that number, for the caller to keep."""


@dataclass(frozen=True)
class Parameter:
    """One key and its values; with `when`, only where the condition holds."""

    key: str
    values: tuple[Any, ...]
    when: Condition | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key."""
        return (self.key,)

    @property
    def count(self) -> int:
        """How many values."""
        return len(self.values)

    def row(self, index: int) -> dict[str, Any]:
        """The key with its value of that number."""
        return {self.key: copy_plain(self.values[index])}


@dataclass(frozen=True)
class Linked:
    """Keys that vary together: the n-th value of one goes with the n-th value of every other."""

    columns: Mapping[str, tuple[Any, ...]]

    @property
    def keys(self) -> tuple[str, ...]:
        """The linked keys."""
        return tuple(self.columns)

    @property
    def count(self) -> int:
        """How many values each key has."""
        return len(next(iter(self.columns.values())))

    def row(self, index: int) -> dict[str, Any]:
        """The values of that number."""
        return {key: copy_plain(values[index]) for key, values in self.columns.items()}


@dataclass(frozen=True)
class Sampled:
    """Keys that are sampled together, `count` times."""

    ranges: Mapping[str, Range]
    count: int
    seed: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The sampled keys."""
        return tuple(self.ranges)

    def row(self, index: int) -> dict[str, Any]:
        """The sample of that number."""
        return {key: span.sample(self.seed, key, index) for key, span in self.ranges.items()}


@dataclass(frozen=True)
class Table:
    """Rows that were worked out."""

    keys: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]

    @property
    def count(self) -> int:
        """How many rows are left."""
        return len(self.rows)

    def row(self, index: int) -> dict[str, Any]:
        """The row of that number."""
        return {key: copy_plain(value) for key, value in self.rows[index].items()}


def join_axes(axes: Sequence[Axis], exclusions: Sequence[Condition]) -> list[Axis]:
    """Independent axes that stand for the given ones, conditions and exclusions worked in.

    An axis that others depend on, or that depends on others, becomes part of a `Table` at the place of its first part.

    Raises:
        ConfigurationError: a condition or exclusion names a key that does not vary here, conditions go round in a
            circle, nothing is left, or too many combinations depend on each other.
    """
    owner = {key: number for number, axis in enumerate(axes) for key in axis.keys}
    group = list(range(len(axes)))
    for number, axis in enumerate(axes):
        when = _when(axis)
        _unite(group, [number, *(_owner_of(key, owner, f"the condition of {axis.keys[0]}") for key in when)])
    for exclusion in exclusions:
        _unite(group, [_owner_of(key, owner, "an exclusion") for key in exclusion])
    joined: list[Axis] = []
    for root in dict.fromkeys(group):
        members = [axis for number, axis in enumerate(axes) if group[number] == root]
        keys = {key for axis in members for key in axis.keys}
        relevant = [exclusion for exclusion in exclusions if keys & set(exclusion)]
        joined.append(_table(members, relevant) if len(members) > 1 or relevant else members[0])
    return joined


def _when(axis: Axis) -> Condition:
    return (axis.when or {}) if isinstance(axis, Parameter) else {}


def _owner_of(key: str, owner: Mapping[str, int], place: str) -> int:
    if key not in owner:
        guess = nearest(key, owner)
        hint = f"did you mean {guess!r}?" if guess else f"varied are: {', '.join(owner)}"
        raise ConfigurationError.because(f"{place} names {key!r}, which does not vary in this grid ({hint})")
    return owner[key]


def _unite(group: list[int], members: Sequence[int]) -> None:
    roots = {group[member] for member in members}
    first = min(roots)
    for number, root in enumerate(group):
        if root in roots:
            group[number] = first


def _table(members: Sequence[Axis], exclusions: Sequence[Condition]) -> Table:
    keys = tuple(key for axis in members for key in axis.keys)
    rows: list[dict[str, Any]] = [{}]
    decided: set[str] = set()
    pending = list(exclusions)
    for axis in _in_order(members):
        rows = list(_extended(rows, axis))
        decided.update(axis.keys)
        for exclusion in [item for item in pending if decided >= set(item)]:
            rows = [row for row in rows if not _holds(exclusion, row)]
            pending.remove(exclusion)
    if not rows:
        raise ConfigurationError.because(f"the exclusions leave no combination of {', '.join(keys)}")
    return Table(keys, tuple(rows))


def _extended(rows: list[dict[str, Any]], axis: Axis) -> Iterator[dict[str, Any]]:
    if len(rows) * axis.count > MAX_JOINED:
        raise ConfigurationError.because(
            f"conditions and exclusions tie together more than {MAX_JOINED} combinations at {axis.keys[0]}; "
            "split the grid into several"
        )
    own = [axis.row(index) for index in range(axis.count)]
    when = _when(axis)
    for row in rows:
        if _holds(when, row):
            yield from (row | other for other in own)
        else:
            yield row


def _in_order(members: Sequence[Axis]) -> Iterator[Axis]:
    """The axes as given, but each after those that its condition depends on."""
    waiting, decided = list(members), set[str]()
    while waiting:
        ready = next((axis for axis in waiting if decided >= set(_when(axis))), None)
        if ready is None:
            keys = ", ".join(axis.keys[0] for axis in waiting)
            raise ConfigurationError.because(f"the conditions of {keys} depend on each other in a circle")
        waiting.remove(ready)
        decided.update(ready.keys)
        yield ready


def _holds(condition: Condition, row: Mapping[str, Any]) -> bool:
    return all(
        key in row and any(same_value(row[key], wanted) for wanted in accepted) for key, accepted in condition.items()
    )


def keys_that_alone_vary(axis: Axis, matters: Callable[[str], bool]) -> Iterator[str]:
    """The keys of an axis in which two rows differ that agree in every key that matters.

    Args:
        axis: rows that are sampled are taken to differ in every key.
        matters: whether a dotted key does.
    """
    others = [key for key in axis.keys if not matters(key)]
    if not others:
        return
    if isinstance(axis, Sampled):
        if len(others) == len(axis.keys) and axis.count > 1:
            yield from others
        return
    first: dict[str, dict[str, Any]] = {}
    for index in range(axis.count):
        row = axis.row(index)
        that_matter = json.dumps(
            {key: value for key, value in row.items() if matters(key)}, sort_keys=True, default=str
        )
        before = first.setdefault(that_matter, row)
        yield from (key for key in others if before.get(key, _NOTHING) != row.get(key, _NOTHING))


def same_value(left: Any, right: Any) -> bool:
    """Equality that tells true from 1, as the files that the values come from do."""
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)
