"""`ParameterGridSearch`: a base configuration and grids over it, as experiments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mtf_config.compose import Composition
from mtf_config.enums import NamingStrategy
from mtf_config.errors import ConfigurationError, LocatedProblem, ValidationError
from mtf_config.grid import ParameterGrid
from mtf_config.identity import IDENTITY_FIELDS, run_identity
from mtf_config.keys import get_dotted, set_dotted, unknown_key
from mtf_config.naming import RunNamer, slug
from mtf_config.plain import copy_plain, to_plain
from mtf_config.schema import ExperimentConfig, schema_defaults
from mtf_utils.problems import Problem, describe

__all__ = ["ParameterGridSearch", "SweepPoint"]


@dataclass(frozen=True)
class SweepPoint:
    """One experiment of a search.

    Attributes:
        name: the unique name of the run, also `config.experiment_name`.
        grid: the name of the grid that it comes from.
        parameters: dotted key → value, what the grid says.
        config: the experiment.
        identity: the identity of the run.
    """

    name: str
    grid: str
    parameters: Mapping[str, Any]
    config: ExperimentConfig
    identity: str


_SAME_RUN: Final = (
    "its values alone do not make different runs, so that all but one would be dropped; vary it together with a key "
    "that does (linked, or conditional with one value), or write a sweep for each of its values"
)
_CASE: Final = (
    "two runs would be named {!r} and {!r}, which are the same folder where the file system does not tell capital "
    "letters from small ones; choose hash_based or sequential naming, or other values"
)


class ParameterGridSearch:
    """A base configuration and the union of grids over it.

    Points are numbered through all grids in order. Points whose runs would be the same run (equal identity) are
    counted by `len` and `point`, and produced once by `points` and `generate_experiments`.

    Args:
        base_config: the configuration that every experiment starts from; it may lack what the grids provide. With a
            `Composition` (see `ConfigurationManager.composition`), errors say where the base has what is wrong.
    """

    def __init__(self, base_config: Mapping[str, Any] | ExperimentConfig | Composition) -> None:
        self._composition = base_config if isinstance(base_config, Composition) else None
        data: Any = base_config
        if isinstance(base_config, Composition):
            data = base_config.data
        elif isinstance(base_config, ExperimentConfig):
            data = base_config.to_dict()
        if not isinstance(data, Mapping):
            raise ConfigurationError.because(f"base_config: expected a mapping, found {describe(data)}")
        self._base: dict[str, Any] = to_plain(data)
        self._grids: list[ParameterGrid] = []
        self._naming = NamingStrategy.HASH_BASED
        self._checked: list[int] = []

    @property
    def base_config(self) -> dict[str, Any]:
        """A copy of the base configuration."""
        copied: dict[str, Any] = copy_plain(self._base)
        return copied

    @property
    def grids(self) -> tuple[ParameterGrid, ...]:
        """The grids in order."""
        return tuple(self._grids)

    @property
    def naming_strategy(self) -> NamingStrategy:
        """How runs are named."""
        return self._naming

    def add_grid(self, grid: ParameterGrid) -> None:
        """Add a grid.

        Raises:
            ConfigurationError: there is one of that name already.
        """
        if not isinstance(grid, ParameterGrid):
            raise ConfigurationError.because(f"expected a ParameterGrid, found {describe(grid)}")
        if any(other.name == grid.name for other in self._grids):
            raise ConfigurationError.because(f"there is already a grid named {grid.name!r}")
        self._grids.append(grid)

    def create_grid(self, name: str, description: str = "") -> ParameterGrid:
        """Make an empty grid, add it, and return it to be filled.

        Raises:
            ConfigurationError: there is one of that name already.
        """
        grid = ParameterGrid(name, description)
        self.add_grid(grid)
        return grid

    def set_naming_strategy(self, strategy: NamingStrategy) -> None:
        """Choose how runs are named.

        Raises:
            ConfigurationError: there is no such strategy.
        """
        try:
            self._naming = NamingStrategy(strategy)
        except ValueError:
            names = ", ".join(NamingStrategy)
            raise ConfigurationError.because(f"naming: expected one of {names}, found {describe(strategy)}") from None

    def get_point_count(self) -> int:
        """How many points the grids have together; `len` says the same, up to `sys.maxsize`."""
        return sum(grid.get_parameter_count() for grid in self._grids)

    def __len__(self) -> int:
        return self.get_point_count()

    def check(self) -> None:
        """Check every key and every listed value of the grids, without going through their combinations.

        Raises:
            ValidationError: keys that the base and the schema do not know, or values that they do not take; all of
                them are listed.
        """
        extent = [len(grid.keys) for grid in self._grids]  # grids only grow, key by key
        if extent == self._checked:
            return
        problems = [
            LocatedProblem.of(problem, None, f"grid {grid.name!r}")
            for grid in self._grids
            for *_, problem in self.grid_problems(grid)
        ]
        if problems:
            raise ValidationError(problems, subject="parameter grids")
        self._checked = extent

    def grid_problems(self, grid: ParameterGrid) -> Iterator[tuple[str, int | None, Problem]]:
        """What is wrong with a grid: the dotted key, the number of the value unless it is the key, and the problem."""
        for key in grid.keys:
            if key == "experiment_name":
                message = "names are given by the naming strategy; this key cannot be varied"
                yield key, None, Problem((key,), message, about_key=True)
            elif unknown := unknown_key(key, self._base):
                yield key, None, unknown
            else:
                for index, value in enumerate(grid.values_of(key)):
                    yield from ((key, index, problem) for problem in _value_problems(key, value))
        written = json.dumps(self._base, default=str)
        for key in grid.keys_that_alone_vary(_makes_another_run):
            if key != "experiment_name" and f"${{{key}}}" not in written:  # what it refers to may matter
                yield key, None, Problem((key,), _SAME_RUN, about_key=True)

    def point(self, index: int) -> SweepPoint:
        """The experiment of that number, without working out any other.

        Raises:
            IndexError: there is no such point.
            ValidationError: the experiment is not acceptable.
        """
        self.check()
        offset = index
        for grid in self._grids:
            if 0 <= offset < grid.get_parameter_count():
                return self._point(grid, offset, index, self._namer())
            offset -= grid.get_parameter_count()
        raise IndexError(f"the search has {self.get_point_count()} points; there is no point {index}")

    def points(self) -> Iterator[SweepPoint]:
        """Every experiment once, in order, with where it comes from.

        Raises:
            ValidationError: an experiment is not acceptable.
            ConfigurationError: two different runs would have the same name.
        """
        self.check()
        namer = self._namer()
        names: dict[str, str] = {}
        seen: dict[str, tuple[str, dict[str, Any]]] = {}
        first = 0
        for grid in self._grids:
            for offset in range(grid.get_parameter_count()):
                point = self._point(grid, offset, first + offset, namer)
                extra = {key: value for key, value in point.parameters.items() if not _makes_another_run(key)}
                if point.identity in seen:
                    self._refuse_variants(seen[point.identity], (point.grid, extra))
                    continue
                seen[point.identity] = (point.grid, extra)
                if (name := names.setdefault(point.name.casefold(), point.name)) != point.name:
                    raise ConfigurationError.because(_CASE.format(name, point.name))
                yield point
            first += grid.get_parameter_count()

    def generate_experiments(self) -> Iterator[ExperimentConfig]:
        """Every experiment once, in order, named; see `points`."""
        return (point.config for point in self.points())

    def _namer(self) -> RunNamer:
        return RunNamer(self._naming, [key for grid in self._grids for key in grid.keys], self.get_point_count())

    def _point(self, grid: ParameterGrid, offset: int, index: int, namer: RunNamer) -> SweepPoint:
        parameters = grid.point(offset, self._look_up)
        data = self.base_config
        for key, value in parameters.items():
            set_dotted(data, key, copy_plain(value))
        prefix = data.get("experiment_name") or grid.name
        data["experiment_name"] = slug(str(prefix))
        config, problems = ExperimentConfig.decode(data, ())
        if problems or config is None:
            raise self._refusal(problems, f"grid {grid.name!r}, point {offset}", parameters)
        identity = run_identity(config)
        config.experiment_name = namer.name(str(prefix), index, parameters, identity)
        return SweepPoint(config.experiment_name, grid.name, parameters, config, identity)

    def _refusal(self, problems: Sequence[Problem], place: str, parameters: Mapping[str, Any]) -> ValidationError:
        """The error for a point; what the grid did not set is located in the base."""
        varied = [tuple(key.split(".")) for key in parameters]
        own = [problem for problem in problems if any(problem.path[: len(path)] == path for path in varied)]
        others = [problem for problem in problems if problem not in own]
        if self._composition:
            others = list(self._composition.error(others).problems)
        located = [*own, *others]
        values = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
        return ValidationError(located, subject=f"{place} ({values[:200]})")

    def _refuse_variants(self, first: tuple[str, dict[str, Any]], second: tuple[str, dict[str, Any]]) -> None:
        """Refuse that grids ask for a run twice, each time with other settings that do not make it another run."""
        (grid, left), (other, right) = first, second
        values = {key: (self._value(left, key), self._value(right, key)) for key in sorted({**left, **right})}
        changes = [f"{key} ({one!r} and {two!r})" for key, (one, two) in values.items() if one != two]
        if changes:
            raise ConfigurationError.because(
                f"grids {grid!r} and {other!r} ask for the same run twice, with different {', '.join(changes)}: "
                f"{_SAME_RUN}"
            )

    def _value(self, given: Mapping[str, Any], key: str) -> Any:
        try:
            return given[key] if key in given else self._look_up(key)
        except KeyError:
            return None

    def _look_up(self, key: str) -> Any:
        try:
            return get_dotted(self._base, key)
        except KeyError:
            return get_dotted(schema_defaults(), key)


def _makes_another_run(key: str) -> bool:
    return key.partition(".")[0] in IDENTITY_FIELDS


def _value_problems(key: str, value: Any) -> Iterator[Problem]:
    """What is wrong with a value whatever the others are."""
    if isinstance(value, str) and "${" in value:
        return  # what it refers to is known at each point
    path = tuple(key.split("."))
    data: dict[str, Any] = {"deterministic": False}  # what values mean together is checked at each point
    set_dotted(data, key, copy_plain(value))
    _, problems = ExperimentConfig.decode(data, ())
    yield from (problem for problem in problems if problem.path[: len(path)] == path)
