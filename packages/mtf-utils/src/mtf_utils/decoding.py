"""Plain data to annotated types, as settings need it: strict, and with every problem at once."""

from __future__ import annotations

import dataclasses
import enum
import math
import numbers
import types
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, Union, get_args, get_origin

from mtf_utils.names import nearest
from mtf_utils.problems import KeyPath, Problem, describe

__all__ = ["SelfDecoding", "check_limits", "decode_value", "plain"]


class SelfDecoding:
    """Base of the classes that build themselves from plain data and turn back into it."""

    @classmethod
    @abstractmethod
    def decode(cls, data: Any, path: KeyPath) -> tuple[Self | None, list[Problem]]:
        """Build an instance, or say everything that is wrong, with paths that begin with `path`."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The instance as plain data."""


def decode_value(annotation: Any, value: Any, path: KeyPath) -> tuple[Any, list[Problem]]:
    """Bring plain data to the annotated type: the value, or everything that is wrong with it.

    An int serves as a float, a list as a tuple, a string as an enum's value, a NumPy number as a number. Nothing else
    is converted: the string "3" is not a number, and a boolean is not one either. Neither are NaN and the infinities.

    Raises:
        TypeError: the annotation is of a kind that settings do not have.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value, []
    if origin in (Union, types.UnionType):
        return _decode_union(arguments, value, path)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value, []
        return value, [_bad_choice(value, [str(choice) for choice in arguments], path)]
    if origin in (list, tuple):
        return _decode_sequence(origin, arguments, value, path)
    if origin is dict:
        return _decode_mapping(arguments, value, path)
    if isinstance(annotation, type) and issubclass(annotation, SelfDecoding):
        return (value, []) if isinstance(value, annotation) else annotation.decode(value, path)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _decode_enum(annotation, value, path)
    if annotation is None or isinstance(annotation, type):
        return _decode_scalar(annotation, value, path)
    raise TypeError(
        f"{annotation} cannot annotate a settings field; use list, tuple, dict, Literal, unions and classes"
    )


def _decode_union(arguments: tuple[Any, ...], value: Any, path: KeyPath) -> tuple[Any, list[Problem]]:
    if value is None and type(None) in arguments:
        return None, []
    alternatives = [argument for argument in arguments if argument is not type(None)]
    if len(alternatives) == 1:
        return decode_value(alternatives[0], value, path)
    inside: list[list[Problem]] = []
    for alternative in alternatives:
        decoded, problems = decode_value(alternative, value, path)
        if not problems:
            return decoded, []
        if all(len(problem.path) > len(path) for problem in problems):
            inside.append(problems)
    if len(inside) == 1:  # of the right kind; what is wrong lies within
        return value, inside[0]
    expected = " or ".join(_type_name(alternative) for alternative in alternatives)
    return value, [Problem(path, f"expected {expected}, found {describe(value)}", value)]


def _decode_sequence(origin: type, arguments: tuple[Any, ...], value: Any, path: KeyPath) -> tuple[Any, list[Problem]]:
    if not isinstance(value, list | tuple):
        return value, [Problem(path, f"expected a list, found {describe(value)}", value)]
    fixed = origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis)
    if fixed and len(value) != len(arguments):
        message = f"expected a list of {len(arguments)}, found one of {len(value)}"
        return value, [Problem(path, message, value)]
    item_types = arguments if fixed else (arguments[0] if arguments else Any,) * len(value)
    items, problems = [], []
    for index, (item_type, item) in enumerate(zip(item_types, value, strict=True)):
        decoded, wrong = decode_value(item_type, item, (*path, index))
        items.append(decoded)
        problems.extend(wrong)
    return (tuple(items) if origin is tuple else items), problems


def _decode_mapping(arguments: tuple[Any, ...], value: Any, path: KeyPath) -> tuple[Any, list[Problem]]:
    if not isinstance(value, Mapping):
        return value, [Problem(path, f"expected a mapping, found {describe(value)}", value)]
    key_type, item_type = arguments or (Any, Any)
    result, problems = {}, []
    for key, item in value.items():
        _, wrong_key = decode_value(key_type, key, (*path, key))
        decoded, wrong = decode_value(item_type, item, (*path, key))
        result[key] = decoded
        problems.extend([dataclasses.replace(problem, about_key=True) for problem in wrong_key] + wrong)
    return result, problems


def _decode_enum(annotation: type[enum.Enum], value: Any, path: KeyPath) -> tuple[Any, list[Problem]]:
    if isinstance(value, annotation):
        return value, []
    for member in annotation:
        if member.value == value and isinstance(member.value, bool) == isinstance(value, bool):
            return member, []
    return value, [_bad_choice(value, [str(member.value) for member in annotation], path)]


def _decode_scalar(annotation: type | None, value: Any, path: KeyPath) -> tuple[Any, list[Problem]]:
    if annotation is float:
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            return _decode_float(value, path)
    elif annotation is int:
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value), []
    elif annotation is None or annotation is type(None):
        if value is None:
            return None, []
    elif isinstance(value, annotation):
        return value, []
    remedy = "; put it in quotes" if annotation is str and isinstance(value, int | float) else ""
    return value, [Problem(path, f"expected {_type_name(annotation)}, found {describe(value)}{remedy}", value)]


def _decode_float(value: numbers.Real, path: KeyPath) -> tuple[Any, list[Problem]]:
    try:
        number = float(value)
    except OverflowError:
        return value, [Problem(path, f"expected a number in the range of a float, found {describe(value)}", value)]
    if not math.isfinite(number):
        return value, [Problem(path, f"expected a finite number, found {number}", value)]
    return number, []


def check_limits(metadata: Mapping[str, Any], value: Any, path: KeyPath) -> list[Problem]:
    """What the limits that `about` put into a field's metadata say against a value of the right type."""
    if value is None:
        return []
    choices = metadata.get("choices")
    if choices and value not in choices:
        return [_bad_choice(value, list(choices), path)]
    if isinstance(value, float) and not math.isfinite(value):  # of a field that takes anything
        return [Problem(path, f"expected a finite number, found {value}", value)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        limits = _number_limits(metadata)
        if not all(accepts(value) for accepts, _ in limits):
            unit = f" {metadata['unit']}" if "unit" in metadata else ""
            wanted = " and ".join(text for _, text in limits)
            return [Problem(path, f"expected a number {wanted}{unit}, found {describe(value)}", value)]
    check = metadata.get("check")
    if check and (wanted := check(value)):
        return [Problem(path, f"expected {wanted}, found {describe(value)}", value)]
    return []


def _number_limits(metadata: Mapping[str, Any]) -> list[tuple[Callable[[float], bool], str]]:
    limits: list[tuple[Callable[[float], bool], str]] = []
    if (minimum := metadata.get("minimum")) is not None:
        limits.append((lambda value: value >= minimum, f">= {minimum}"))
    if (above := metadata.get("above")) is not None:
        limits.append((lambda value: value > above, f"> {above}"))
    if (maximum := metadata.get("maximum")) is not None:
        limits.append((lambda value: value <= maximum, f"<= {maximum}"))
    if (below := metadata.get("below")) is not None:
        limits.append((lambda value: value < below, f"< {below}"))
    return limits


def _bad_choice(value: Any, choices: list[str], path: KeyPath) -> Problem:
    guess = nearest(value, choices) if isinstance(value, str) else None
    return Problem(path, f"expected one of {', '.join(choices)}, found {describe(value)}", value, suggestion=guess)


def _type_name(annotation: Any) -> str:
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false", Any: "anything"}
    if annotation in (None, type(None)):
        return "null"
    if annotation in names:
        return names[annotation]
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(annotation))
    if annotation in (list, tuple) or get_origin(annotation) in (list, tuple):
        return "a list"
    if annotation is dict or get_origin(annotation) is dict:
        return "a mapping"
    if isinstance(annotation, type) and issubclass(annotation, SelfDecoding):
        return "a mapping"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in annotation)
    return getattr(annotation, "__name__", str(annotation))


def plain(value: Any) -> Any:
    """A value as plain data: dicts, lists, strings, Python's own numbers; what is none of these stays as it is."""
    if isinstance(value, SelfDecoding):
        return value.to_dict()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value
