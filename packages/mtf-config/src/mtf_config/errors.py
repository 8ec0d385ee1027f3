"""What is wrong with a configuration: errors that carry every problem, and the place of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

from mtf_utils.problems import KeyPath, Problem, SettingsError

__all__ = ["ConfigurationError", "LocatedProblem", "Position", "ValidationError"]


class Position(NamedTuple):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class LocatedProblem(Problem):
    """A problem and where it was written.

    Attributes:
        source: file, line and column; None for what no file says.
        origin: what said it when it was not a file, such as `parameter_overrides`.
    """

    source: Position | None = None
    origin: str | None = None

    @classmethod
    def of(cls, problem: Problem, source: Position | None, origin: str | None = None) -> Self:
        """The problem with a place."""
        return cls(problem.path, problem.message, problem.value, problem.suggestion, problem.about_key, source, origin)

    def __str__(self) -> str:
        place = self.source or self.origin
        return f"{place}: {super().__str__()}" if place else super().__str__()


class ConfigurationError(SettingsError):
    """A configuration cannot be read, composed or accepted; `problems` lists every reason."""

    def _render(self) -> str:
        if len(self.problems) == 1 and _is_placed(self.problems[0]):
            return str(self.problems[0])  # it names the file itself
        return super()._render()

    @classmethod
    def because(cls, message: str, *, path: KeyPath = (), subject: str = "configuration") -> Self:
        """An error with a single reason."""
        return cls([Problem(path, message)], subject=subject)


class ValidationError(ConfigurationError):
    """A configuration was read, and what it says is not acceptable."""


def _is_placed(problem: Problem) -> bool:
    return isinstance(problem, LocatedProblem) and problem.source is not None
