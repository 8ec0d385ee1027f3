"""A grid as it is written in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mtf_config.base import Section
from mtf_config.errors import ConfigurationError
from mtf_config.formats import NOT_EMPTY
from mtf_config.grid import ParameterGrid
from mtf_config.sampling import Range
from mtf_utils.problems import KeyPath
from mtf_utils.settings import Problem, about

__all__ = ["ConditionalSpec", "GridSpec", "SampledSpec"]


@dataclass(kw_only=True)
class ConditionalSpec(Section):
    """A parameter that is set only where others have certain values."""

    key: str = field(metadata=about("The dotted key.", check=NOT_EMPTY))
    values: list[Any] = field(metadata=about("Its values where the condition holds."))
    when: dict[str, Any] = field(metadata=about("Dotted key → the value, or a list of the values, that it must have."))

    @classmethod
    def data_problems(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """No list of values is empty."""
        yield from _empty_lists(data, (), only="values")
        yield from _empty_lists(data.get("when"), ("when",))


@dataclass(kw_only=True)
class SampledSpec(Section):
    """Parameters that are sampled together."""

    count: int = field(metadata=about("How many samples.", minimum=1))
    seed: int = field(default=0, metadata=about("The same seed gives the same samples.", minimum=0))
    ranges: dict[str, Range] = field(metadata=about("Dotted key → its range."))


@dataclass(kw_only=True)
class GridSpec(Section):
    """A parameter grid; see `ParameterGrid` for what its parts mean."""

    name: str = field(metadata=about("Names the grid within the sweep.", check=NOT_EMPTY))
    description: str = field(default="", metadata=about("For people."))
    parameters: dict[str, list[Any]] = field(
        default_factory=dict, metadata=about("Dotted key → values; every combination is a point.")
    )
    linked: list[dict[str, list[Any]]] = field(
        default_factory=list, metadata=about("Groups of parameters that vary together, each with as many values.")
    )
    conditional: list[ConditionalSpec] = field(
        default_factory=list, metadata=about("Parameters that are set only where others have certain values.")
    )
    sampled: list[SampledSpec] = field(default_factory=list, metadata=about("Parameters that are sampled."))
    computed: dict[str, str] = field(
        default_factory=dict, metadata=about("Dotted key → arithmetic over other keys: 4 * model.hidden_size.")
    )
    exclude: list[dict[str, Any]] = field(
        default_factory=list, metadata=about("Combinations to leave out: dotted key → value, or a list of values.")
    )

    @classmethod
    def of(cls, grid: ParameterGrid) -> GridSpec:
        """The written form of a grid."""
        return cls.from_dict(grid.to_dict())

    def build(self) -> ParameterGrid:
        """The grid.

        Raises:
            ValidationError: it does not make sense.
        """
        grid, problems = self._build()
        if problems:
            raise self.error(problems, subject=f"grid {self.name!r}")
        return grid

    @classmethod
    def data_problems(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """No list of values is empty."""
        yield from _empty_lists(data.get("parameters"), ("parameters",))
        for part in ("linked", "exclude"):
            items = data.get(part)
            for index, item in enumerate(items if isinstance(items, list) else ()):
                yield from _empty_lists(item, (part, index))

    def cross_checks(self) -> Iterable[Problem]:
        """A grid can be built from it."""
        told = list(super().cross_checks())
        yield from told
        # of what is wrong at one place, the place that is told more exactly
        yield from (item for item in self._build()[1] if all(item.path != t.path[: len(item.path)] for t in told))

    def place_of(self, key: str, number: int | None) -> KeyPath:
        """Where in this section a key is written that varies or is computed, or the value of that number.

        Raises:
            KeyError: there is no such key.
        """
        value = () if number is None else (number,)
        if key in self.parameters:
            return ("parameters", key, *value)
        for index, columns in enumerate(self.linked):
            if key in columns:
                return ("linked", index, key, *value)
        for index, conditional in enumerate(self.conditional):
            if key == conditional.key:
                return ("conditional", index, "key") if number is None else ("conditional", index, "values", number)
        for index, sampled in enumerate(self.sampled):
            if key in sampled.ranges:
                return ("sampled", index, "ranges", key)
        if key in self.computed:
            return ("computed", key)
        raise KeyError(key)

    def _build(self) -> tuple[ParameterGrid, list[Problem]]:
        grid = ParameterGrid(self.name, self.description)
        problems = [problem for path, add in self._additions(grid) for problem in _attempt(path, add)]
        if not problems:
            problems = list(_attempt((), grid.get_parameter_count))
        return grid, problems

    def _additions(self, grid: ParameterGrid) -> Iterator[tuple[KeyPath, Callable[[], object]]]:
        for key, values in self.parameters.items():
            yield ("parameters", key), partial(grid.add_parameter, key, values)
        for index, columns in enumerate(self.linked):
            yield ("linked", index), partial(grid.add_linked, columns)
        for index, item in enumerate(self.conditional):
            yield ("conditional", index), partial(grid.add_conditional, item.key, item.values, item.when)
        for index, drawn in enumerate(self.sampled):
            yield ("sampled", index), partial(grid.add_sampled, drawn.ranges, drawn.count, drawn.seed)
        for key, expression in self.computed.items():
            yield ("computed", key), partial(grid.add_computed, key, expression)
        for index, combination in enumerate(self.exclude):
            yield ("exclude", index), partial(grid.exclude, combination)


def _empty_lists(values: Any, path: KeyPath, *, only: str | None = None) -> Iterator[Problem]:
    for key, value in values.items() if isinstance(values, Mapping) else ():
        if value == [] and only in (None, key):
            yield Problem((*path, key), "the list of values is empty; give at least one", value)


def _attempt(path: KeyPath, action: Callable[[], object]) -> Iterator[Problem]:
    try:
        action()
    except ConfigurationError as error:
        for problem in error.problems:
            yield Problem(path, problem.message, problem.value, problem.suggestion)
