"""Sweep files: a base, grids over it, and how to run them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf_config.anchors import TEMPLATE_KEY, anchor_path, anchored
from mtf_config.base import Section
from mtf_config.command_words import command_problems
from mtf_config.compose import Composition, Layer
from mtf_config.enums import ExecutionMode, NamingStrategy
from mtf_config.errors import ConfigurationError, LocatedProblem, Position, ValidationError
from mtf_config.formats import PATH, RUN_NAME
from mtf_config.grid_spec import GridSpec
from mtf_config.overrides import overridden
from mtf_config.reader import Document, is_file, read_document
from mtf_config.search import ParameterGridSearch
from mtf_utils.problems import KeyPath, describe
from mtf_utils.settings import Problem, about

if TYPE_CHECKING:
    from mtf_config.manager import ConfigurationManager

__all__ = ["LimitsSpec", "Sweep", "SweepSpec", "load_sweep"]


@dataclass(kw_only=True)
class LimitsSpec(Section):
    """Bounds of a sweep."""

    max_concurrent_jobs: int | None = field(
        default=None, metadata=about("How many runs there are at a time; null: no bound.", minimum=1)
    )


@dataclass(kw_only=True)
class SweepSpec(Section):
    """What a sweep file says."""

    name: str | None = field(
        default=None, metadata=about("Name of the sweep; null: the names of its grids.", check=RUN_NAME)
    )
    description: str | None = field(default=None, metadata=about("What it is about, for people."))
    base: str | dict[str, Any] = field(
        metadata=about("The configuration that every run starts from: a file, relative to this one, or the keys.")
    )
    grids: list[GridSpec] = field(metadata=about("The grids; runs are the union of their points."))
    naming: NamingStrategy = field(default=NamingStrategy.HASH_BASED, metadata=about("How runs are named."))
    execution: ExecutionMode | None = field(
        default=None, metadata=about("Where `mtf run` executes the runs unless told otherwise; null: on this machine.")
    )
    limits: LimitsSpec = field(default_factory=LimitsSpec, metadata=about("Bounds of the sweep."))
    command: str | list[str] | None = field(
        default=None,
        metadata=about(
            "What a run executes, with {python}, {config}, {run_dir} and {name} filled in; null: the default command."
        ),
    )
    output_dir: str | None = field(
        default=None, metadata=about("Where runs are kept; null: a folder for this sweep.", check=PATH)
    )

    @classmethod
    def data_problems(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """The names of grids are unique; the command has words."""
        grids = data.get("grids")
        names: list[Any] = []
        for index, grid in enumerate(grids if isinstance(grids, list) else ()):
            name = grid.name if isinstance(grid, GridSpec) else grid.get("name") if isinstance(grid, Mapping) else None
            if isinstance(name, str) and name in names:
                yield Problem(("grids", index, "name"), f"there is already a grid named {name!r}", name)
            names.append(name)
        if isinstance(grids, list) and not grids:
            yield Problem(("grids",), "expected at least one grid", grids)
        command = data.get("command")
        for number, wrong in command_problems(command):
            yield Problem(("command",) if number is None else ("command", number), wrong, command)

    @classmethod
    def of(cls, search: ParameterGridSearch, **settings: Any) -> SweepSpec:
        """The written form of a search.

        Args:
            search: base, grids and naming.
            settings: further fields, such as `command` and `limits`.

        Raises:
            ValidationError: a setting is not acceptable.
        """
        written: dict[str, Any] = {
            "base": search.base_config,
            "grids": [grid.to_dict() for grid in search.grids],
            "naming": search.naming_strategy.value,
        }
        return cls.from_dict(written | settings)

    def command_words(self) -> list[str] | None:
        """The command as the list of its words; None for the default command."""
        return shlex.split(self.command) if isinstance(self.command, str) else self.command

    def search(self, base: Mapping[str, Any] | Composition | None = None) -> ParameterGridSearch:
        """The search that the file describes; keys and values are not checked against the base yet.

        Args:
            base: the base configuration, needed if `base` is a file.

        Raises:
            ConfigurationError: the base is a file, and was not given.
        """
        if base is None:
            base = self.base if isinstance(self.base, Mapping) else None
        if base is None:
            raise ConfigurationError.because(f"the base {self.base!r} is a file: load the sweep with load_sweep")
        search = ParameterGridSearch(base)
        search.set_naming_strategy(self.naming)
        for grid in self.grids:
            search.add_grid(grid.build())
        return search


@dataclass(frozen=True)
class Sweep:
    """A sweep file that was loaded and checked.

    Attributes:
        spec: what it says.
        search: its experiments.
        path: the file.
    """

    spec: SweepSpec
    search: ParameterGridSearch
    path: Path


def load_sweep(path: str | Path, manager: ConfigurationManager, settings: Mapping[str, Any] | None = None) -> Sweep:
    """Read a sweep file, with its base, and check both against each other.

    Args:
        path: the sweep file; a relative one is found as configurations are.
        manager: reads the base, which lies beside the sweep file, or where configurations lie.
        settings: dotted key → value, over the base; of keys that no grid varies.

    Raises:
        ConfigurationError: a file cannot be read.
        ValidationError: something is not acceptable; every problem is listed with file, line and column.
    """
    file = manager.find(path)
    document = read_document(file)
    if not isinstance(document.data, dict):
        found = "nothing" if document.data is None else describe(document.data)
        raise _error(document, [Problem((), f"expected a sweep (a mapping), found {found}", document.data)])
    if "model" in document.data and "grids" not in document.data:
        remedy = f"write a sweep with it as its base: {{base: {file.name}, grids: [{{name: one}}]}} runs it once"
        raise _error(document, [Problem((), f"expected a sweep, found one experiment; {remedy}")])
    spec, problems = SweepSpec.decode(document.data, ())
    if problems or spec is None:
        raise _error(document, problems)
    _anchor_grids(spec, file.parent)
    base = _base_of(spec, document, file, manager)
    if settings:
        base = overridden(base, settings, [key for grid in spec.grids for key in grid.build().keys])
    search = spec.search(base)
    problems = []
    for index, (grid, written) in enumerate(zip(search.grids, spec.grids, strict=True)):
        for key, number, problem in search.grid_problems(grid):
            inside = () if number is None else problem.path[key.count(".") + 1 :]
            place: KeyPath = ("grids", index, *written.place_of(key, number), *inside)
            problems.append(dataclasses.replace(problem, path=place))
    if problems:
        raise _error(document, problems)
    search.point(0)  # finds what is wrong with the base itself
    return Sweep(spec, search, file)


def _base_of(spec: SweepSpec, document: Document, file: Path, manager: ConfigurationManager) -> Composition:
    if not isinstance(spec.base, str):
        return Composition([Layer(document.name, anchored(spec.base, file.parent), document.at("base"))])
    beside = file.parent / spec.base
    try:
        base = beside if is_file(beside) else manager.find(spec.base)
    except ConfigurationError as error:
        raise _error(document, [Problem(("base",), error.problems[0].message, spec.base)]) from error
    return manager.composition(base.absolute())


def _anchor_grids(spec: SweepSpec, folder: Path) -> None:
    """Make the paths absolute that grids give relative to the sweep file."""
    for grid in spec.grids:
        for columns in (grid.parameters, *grid.linked):
            if TEMPLATE_KEY in columns:
                columns[TEMPLATE_KEY] = [anchor_path(value, folder) for value in columns[TEMPLATE_KEY]]
        for item in grid.conditional:
            if item.key == TEMPLATE_KEY:
                item.values = [anchor_path(value, folder) for value in item.values]


def _error(document: Document, problems: Iterable[Problem]) -> ValidationError:
    located = [LocatedProblem.of(item, document.position(item.path, of_key=item.about_key)) for item in problems]
    located.sort(key=lambda item: item.source or Position("", 0, 0))
    return ValidationError(located, subject=document.name)
