"""A success or an error as a value: for functions whose failure is an answer, not an accident.

Take one apart with `isinstance`, or with `match`: `case Success(value)` and `case Error(reason)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

__all__ = ["Error", "Result", "Success", "UnwrapError"]

T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)
T = TypeVar("T")
U = TypeVar("U")


class UnwrapError(ValueError):
    """`unwrap` was called on an `Error`; what that holds is `error`, and the cause if it is an exception."""

    def __init__(self, error: object) -> None:
        self.error = error
        kind = f"{type(error).__name__}: " if isinstance(error, BaseException) else ""
        super().__init__(f"unwrap() of an Error: {kind}{error}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.error,)


@dataclass(frozen=True, slots=True)
class Success(Generic[T_co]):
    """What went well, with its value."""

    value: T_co

    def map(self, function: Callable[[T_co], U]) -> Success[U]:
        """The function's value of this value, as a success."""
        return Success(function(self.value))

    def map_error(self, function: Callable[[Any], object]) -> Success[T_co]:
        """This success: there is no error to change."""
        return self

    def and_then(self, function: Callable[[T_co], U]) -> U:
        """The result of the next step, which is given this value."""
        return function(self.value)

    def unwrap(self) -> T_co:
        """The value."""
        return self.value

    def unwrap_or(self, default: object) -> T_co:
        """The value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Error(Generic[E_co]):
    """What went wrong, with its reason: a message, an exception, or any other value."""

    error: E_co

    def map(self, function: Callable[[Any], object]) -> Error[E_co]:
        """This error: there is no value to change."""
        return self

    def map_error(self, function: Callable[[E_co], U]) -> Error[U]:
        """The function's value of this error, as an error."""
        return Error(function(self.error))

    def and_then(self, function: Callable[[Any], object]) -> Error[E_co]:
        """This error: the next step is not taken."""
        return self

    def unwrap(self) -> NoReturn:
        """Raise, because there is no value.

        Raises:
            UnwrapError: always; its cause is the error, if that is an exception.
        """
        cause = self.error if isinstance(self.error, BaseException) else None
        raise UnwrapError(self.error) from cause

    def unwrap_or(self, default: U) -> U:
        """The default, because there is no value."""
        return default


Result: TypeAlias = Success[T] | Error[U]
"""Either of the two; `Result[int, str]` is a success with an int or an error with a str."""
