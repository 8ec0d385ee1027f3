"""`ParameterGrid`: a space of parameters, of which no point exists before it is asked for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from mtf_config.axes import Axis, Condition, Linked, Parameter, Sampled, join_axes, keys_that_alone_vary
from mtf_config.errors import ConfigurationError, ValidationError
from mtf_config.expressions import Expression
from mtf_config.keys import check_key
from mtf_config.plain import copy_plain, plain_problems, to_plain
from mtf_config.sampling import Range
from mtf_utils.names import nearest
from mtf_utils.problems import Problem, describe

__all__ = ["ParameterGrid"]

_LAZY_ABOVE: Final = 100_000

Lookup = Callable[[str], Any]
"""Dotted key → its value; raises KeyError."""


class ParameterGrid:
    """A space of parameters: every combination of the values of its parameters.

    Keys are dotted (`model.hidden_size`). Beside plain parameters, parameters can vary together (`add_linked`), vary
    only where others have certain values (`add_conditional`), be sampled (`add_sampled`), or follow from others
    (`add_computed`); combinations can be left out (`exclude`). Plain parameters come first in the order of points, the
    last one varying fastest, then linked, conditional and sampled ones. A grid without parameters has one point.

    Args:
        name: names the grid within a search.
        description: for people.
    """

    def __init__(self, name: str, description: str = "") -> None:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError.because(f"a grid needs a name, found {describe(name)}")
        self.name = name
        self.description = description
        self._parameters: list[Parameter] = []
        self._linked: list[Linked] = []
        self._conditional: list[Parameter] = []
        self._sampled: list[Sampled] = []
        self._computed: dict[str, Expression] = {}
        self._exclusions: list[Condition] = []
        self._joined: list[Axis] | None = None

    def __repr__(self) -> str:
        return f"ParameterGrid({self.name!r}, keys={self.keys})"

    @property
    def keys(self) -> list[str]:
        """Every key that varies or is computed."""
        return [*(key for axis in self._definitions() for key in axis.keys), *self._computed]

    def add_parameter(self, key: str, values: Iterable[Any]) -> None:
        """Add a parameter.

        Args:
            key: dotted: `model.hidden_size`.
            values: what it can be; plain data.

        Raises:
            ConfigurationError: there are no values, the key is there already, or a value is not plain data.
        """
        self._take_key(key)
        self._parameters.append(Parameter(key, _values(key, values)))

    def add_nested_parameter(self, key_path: str, values: Iterable[Any]) -> None:
        """Add a parameter that lies in a section; the same as `add_parameter` with a dotted key."""
        self.add_parameter(key_path, values)

    def add_linked(self, columns: Mapping[str, Iterable[Any]]) -> None:
        """Add parameters that vary together: the n-th value of each with the n-th values of the others.

        Raises:
            ConfigurationError: as for `add_parameter`, or the lists differ in length.
        """
        if not columns:
            raise ConfigurationError.because("linked parameters: give at least one key with its values")
        lists = {key: _values(key, values) for key, values in columns.items()}
        if len({len(values) for values in lists.values()}) > 1:
            lengths = ", ".join(f"{key} has {len(values)}" for key, values in lists.items())
            raise ConfigurationError.because(f"linked parameters need equally many values: {lengths}")
        for key in lists:
            self._take_key(key)
        self._linked.append(Linked(lists))

    def add_conditional(self, key: str, values: Iterable[Any], when: Mapping[str, Any]) -> None:
        """Add a parameter that is set only where others of this grid have certain values.

        Args:
            key: dotted.
            values: what it can be where the condition holds; elsewhere it is not set at all.
            when: key → the value, or a list of the values, that it must have; all keys must agree.

        Raises:
            ConfigurationError: as for `add_parameter`, or the condition is empty.
        """
        condition = _condition(when, f"the condition of {key}")
        self._take_key(key)
        self._conditional.append(Parameter(key, _values(key, values), condition))

    def add_sampled(self, ranges: Mapping[str, Range], count: int, seed: int = 0) -> None:
        """Add parameters that are sampled together from ranges.

        Args:
            ranges: dotted key → range.
            count: how many samples; each is one combination of all the keys.
            seed: the same seed gives the same samples, everywhere.

        Raises:
            ConfigurationError: a key is there already, or the count is not positive.
        """
        for what, number, least in (("count", count, 1), ("seed", seed, 0)):
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ConfigurationError.because(f"{what}: expected an integer >= {least}, found {describe(number)}")
        if not ranges:
            raise ConfigurationError.because("sampled parameters: give at least one key with its range")
        for key in ranges:
            self._take_key(key)
        self._sampled.append(Sampled(dict(ranges), count, seed))

    def add_computed(self, key: str, expression: str) -> None:
        """Add a parameter that follows from others: `add_computed("model.ffn_size", "4 * model.hidden_size")`.

        It may refer to parameters of this grid, to computed ones that were added before, and, in a search, to every
        other key of the base.

        Raises:
            ConfigurationError: the expression cannot be read, or the key is there already.
        """
        parsed = Expression(expression)
        self._take_key(key)
        self._computed[key] = parsed

    def exclude(self, combination: Mapping[str, Any]) -> None:
        """Leave out the points in which every given key has the given value, or one of a list of values.

        Raises:
            ConfigurationError: the combination is empty.
        """
        self._exclusions.append(_condition(combination, "an exclusion"))
        self._joined = None

    def get_parameter_count(self) -> int:
        """How many points the grid has."""
        return math.prod(axis.count for axis in self._axes())

    def __len__(self) -> int:
        return self.get_parameter_count()

    def generate_permutations(self) -> Iterator[dict[str, Any]]:
        """Every point in order, as dotted key → value."""
        axes = self._axes()
        if self._computed or any(axis.count > _LAZY_ABOVE for axis in axes):
            yield from map(self.point, range(self.get_parameter_count()))
            return
        if all(isinstance(axis, Parameter) for axis in axes):
            yield from _product([axis for axis in axes if isinstance(axis, Parameter)])
            return
        rows = [[axis.row(index) for index in range(axis.count)] for axis in axes]
        for combination in itertools.product(*rows):
            yield {key: copy_plain(value) for row in combination for key, value in row.items()}

    def point(self, index: int, lookup: Lookup | None = None) -> dict[str, Any]:
        """The point of that number, without working out any other.

        Args:
            index: from 0.
            lookup: gives keys that computed parameters refer to and the grid does not have; raises KeyError.

        Raises:
            IndexError: there is no such point.
            ConfigurationError: a computed parameter cannot be computed.
        """
        axes, count = self._axes(), self.get_parameter_count()
        if not 0 <= index < count:
            raise IndexError(f"grid {self.name!r} has points 0 to {count - 1}, not {index}")
        rows = []
        for axis in reversed(axes):
            index, number = divmod(index, axis.count)
            rows.append(axis.row(number))
        values = {key: value for row in reversed(rows) for key, value in row.items()}
        for key, expression in self._computed.items():
            values[key] = expression(self._operands(key, values, lookup))
        return values

    def values_of(self, key: str) -> Iterator[Any]:
        """The values that a key is given as they are listed; nothing for one that is sampled or computed."""
        for axis in self._definitions():
            if isinstance(axis, Parameter) and axis.key == key:
                yield from axis.values
            elif isinstance(axis, Linked) and key in axis.columns:
                yield from axis.columns[key]

    def keys_that_alone_vary(self, matters: Callable[[str], bool]) -> list[str]:
        """The keys that tell points apart which agree in everything that matters.

        What a computed key follows from is taken to matter.

        Args:
            matters: whether a dotted key does.
        """
        used = {name for expression in self._computed.values() for name in expression.names}
        found = (keys_that_alone_vary(axis, lambda key: key in used or matters(key)) for axis in self._axes())
        return list(dict.fromkeys(key for keys in found for key in keys))

    def to_dict(self) -> dict[str, Any]:
        """The grid as plain data, as it is written in a sweep file; parts that are empty are left out."""
        parts: dict[str, Any] = {
            "description": self.description,
            "parameters": {axis.key: list(axis.values) for axis in self._parameters},
            "linked": [{key: list(values) for key, values in axis.columns.items()} for axis in self._linked],
            "conditional": [
                {"key": axis.key, "values": list(axis.values), "when": _written(axis.when)}
                for axis in self._conditional
            ],
            "sampled": [
                {"count": axis.count, "seed": axis.seed, "ranges": {k: r.to_dict() for k, r in axis.ranges.items()}}
                for axis in self._sampled
            ],
            "computed": {key: expression.text for key, expression in self._computed.items()},
            "exclude": [_written(exclusion) for exclusion in self._exclusions],
        }
        return {"name": self.name} | {key: copy_plain(value) for key, value in parts.items() if value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ParameterGrid:
        """The grid that `to_dict` wrote.

        Raises:
            ValidationError: it is not a grid; every problem is listed.
        """
        from mtf_config.grid_spec import GridSpec

        return GridSpec.from_dict(data).build()

    def _operands(self, of: str, values: Mapping[str, Any], lookup: Lookup | None) -> Lookup:
        """How the expression of a computed parameter finds what it refers to."""

        def operand(name: str) -> Any:
            if name in values:
                return values[name]
            try:
                if lookup is not None:
                    return lookup(name)
            except KeyError:
                pass
            guess = nearest(name, values)
            hint = f" (did you mean {guess!r}?)" if guess else ""
            raise ConfigurationError.because(
                f"grid {self.name!r}: {of} is computed from {name!r}, which has no value here{hint}"
            )

        return operand

    def _definitions(self) -> list[Axis]:
        return [*self._parameters, *self._linked, *self._conditional, *self._sampled]

    def _axes(self) -> list[Axis]:
        if self._joined is None:
            self._joined = join_axes(self._definitions(), self._exclusions)
        return self._joined

    def _take_key(self, key: str) -> None:
        check_key(key, f"grid {self.name!r}")
        for other in self.keys:
            if key == other:
                raise ConfigurationError.because(f"grid {self.name!r}: the parameter {key!r} is there already")
            if key.startswith(f"{other}.") or other.startswith(f"{key}."):
                raise ConfigurationError.because(f"grid {self.name!r}: {key!r} and {other!r} set the same thing")
        self._joined = None


def _product(axes: list[Parameter]) -> Iterator[dict[str, Any]]:
    keys = [axis.key for axis in axes]
    nested = [axis.key for axis in axes if any(isinstance(value, dict | list) for value in axis.values)]
    for combination in itertools.product(*(axis.values for axis in axes)):
        point = dict(zip(keys, combination, strict=True))
        for key in nested:
            point[key] = copy_plain(point[key])
        yield point


def _values(key: str, values: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ConfigurationError.because(f"{key}: expected a list of values, found {describe(values)}")
    listed = [to_plain(value) for value in values]
    if not listed:
        raise ConfigurationError.because(f"{key}: the list of values is empty; a parameter needs at least one")
    problems: list[Problem] = [p for index, value in enumerate(listed) for p in plain_problems(value, (key, index))]
    if problems:
        raise ValidationError(problems, subject="parameter values")
    return tuple(listed)


def _condition(when: Mapping[str, Any], what: str) -> Condition:
    if not isinstance(when, Mapping) or not when:
        raise ConfigurationError.because(f"{what}: expected at least one key with its value, found {describe(when)}")
    condition = {}
    for key, value in when.items():
        accepted = to_plain(value)
        if accepted == []:
            raise ConfigurationError.because(f"{what}: the list of values of {key} is empty, so that it never holds")
        condition[key] = tuple(accepted) if isinstance(accepted, list) else (accepted,)
    return condition


def _written(condition: Condition | None) -> dict[str, Any]:
    """A condition as people write it: a single value without its list, unless it is a list itself."""
    written: dict[str, Any] = {}
    for key, accepted in (condition or {}).items():
        alone = len(accepted) == 1 and not isinstance(accepted[0], list)
        written[key] = accepted[0] if alone else list(accepted)
    return written
