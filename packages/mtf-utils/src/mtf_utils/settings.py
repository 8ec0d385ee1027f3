"""Settings that check themselves: dataclasses whose fields carry their documentation and their limits.

A subclass of `Settings` is an ordinary dataclass. Types come from the annotations and limits from `about()`;
both are checked on construction, and every problem is reported at once. What is not a matter of one field goes
into `cross_checks`.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

__all__ = ["Problem", "Settings", "SettingsError", "about", "decode_value", "field_types", "nearest"]

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a value.

    Attributes:
        path: the keys that lead to the value, outermost first.
        message: what is wrong and what was expected, as a sentence without the place.
        value: the value found.
        suggestion: the nearest valid name, when there is one.
        about_key: whether the key itself is wrong (unknown, missing) rather than its value.
    """

    path: KeyPath
    message: str
    value: Any = None
    suggestion: str | None = None
    about_key: bool = False

    def __str__(self) -> str:
        text = f"{dotted(self.path)}: {self.message}" if self.path else self.message
        return f"{text} (did you mean {self.suggestion!r}?)" if self.suggestion else text


class SettingsError(ValueError):
    """Settings that cannot be accepted; `problems` lists every reason."""

    def __init__(self, problems: Iterable[Problem], *, subject: str = "settings") -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.subject = subject
        super().__init__(self._render())

    def _render(self) -> str:
        if len(self.problems) == 1:
            return f"{self.subject}: {self.problems[0]}"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        return f"{self.subject}: {len(self.problems)} problems{lines}"


def about(
    doc: str,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    choices: Sequence[str] | None = None,
    check: Callable[[Any], str | None] | None = None,
    unit: str | None = None,
) -> dict[str, Any]:
    """Build the metadata of a settings field.

    Args:
        doc: one sentence for the reader of the schema; what None means, if the field takes None.
        minimum: the smallest accepted number.
        above: every accepted number is larger.
        maximum: the largest accepted number.
        below: every accepted number is smaller.
        choices: the accepted strings.
        check: returns what was expected when the value is not acceptable, else None.
        unit: the unit of a number.
    """
    limits = {"minimum": minimum, "above": above, "maximum": maximum, "below": below}
    rest = {"choices": tuple(choices) if choices else None, "check": check, "unit": unit}
    return {"doc": doc} | {key: value for key, value in (limits | rest).items() if value is not None}


@dataclass
class Settings:
    """Base of a settings section: types and limits are checked on construction.

    Class attributes:
        open: whether keys beyond the declared ones are kept (in `extra`) rather than refused.
        error: what is raised.
        renamed: keys that people type by habit, with the sentence that says what to write instead.
    """

    open: ClassVar[bool] = False
    error: ClassVar[type[SettingsError]] = SettingsError
    renamed: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        problems = list(self._check_fields())
        if not problems:
            problems = list(self.cross_checks())
        if problems:
            raise self.error(problems, subject=type(self).__name__)

    def _check_fields(self) -> Iterator[Problem]:
        annotations = field_types(type(self))
        for field in dataclasses.fields(self):
            value, problems = decode_value(annotations[field.name], getattr(self, field.name), (field.name,))
            if not problems:
                problems = _check_limits(field.metadata, value, (field.name,))
                object.__setattr__(self, field.name, value)
            yield from problems

    def cross_checks(self) -> Iterable[Problem]:
        """Yield problems that concern several fields; called when each field by itself is sound."""
        return ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the section from plain data, as read from YAML or JSON.

        Raises:
            SettingsError: a key is unknown or missing, or a value is not acceptable; all of them are listed.
        """
        instance, problems = cls.decode(data, ())
        if problems or instance is None:
            raise cls.error(problems, subject=cls.__name__)
        return instance

    @classmethod
    def decode(cls, data: Any, path: KeyPath) -> tuple[Self | None, list[Problem]]:
        """Build the section, or say everything that is wrong, with paths that begin with `path`."""
        if not isinstance(data, Mapping):
            return None, [Problem(path, f"expected a mapping, found {describe(data)}", data)]
        annotations, fields = field_types(cls), {field.name: field for field in dataclasses.fields(cls)}
        known = [name for name in fields if not (cls.open and name == "extra")]
        arguments: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        problems: list[Problem] = []
        for key, value in data.items():
            here = (*path, key)
            if key in known:
                decoded, wrong = decode_value(annotations[key], value, here)
                wrong = wrong or _check_limits(fields[key].metadata, decoded, here)
                problems.extend(wrong)
                arguments[key] = decoded
            elif wrong_key := cls._refuse_key(key, known, here, value):
                problems.append(wrong_key)
            else:
                extra[key] = value
        for name in known:
            if name not in data and _is_required(fields[name]):
                problems.append(Problem((*path, name), "this key is required", about_key=True))
        if problems:
            return None, problems
        if cls.open:
            arguments["extra"] = extra
        try:
            return cls(**arguments), []
        except SettingsError as error:
            return None, [dataclasses.replace(p, path=(*path, *p.path)) for p in error.problems]

    @classmethod
    def _refuse_key(cls, key: Any, known: list[str], here: KeyPath, value: Any) -> Problem | None:
        if not isinstance(key, str):
            return Problem(here, f"expected a string as key, found {describe(key)}", value, about_key=True)
        if key in cls.renamed:
            return Problem(here, cls.renamed[key], value, about_key=True)
        guess = nearest(key, known)
        if cls.open and guess is None:
            return None
        if cls.open:
            message = f"unknown key {key!r}, which looks like a slip for a known one"
        else:
            message = f"unknown key {key!r}" + ("" if guess else f"; known are: {', '.join(known)}")
        return Problem(here, message, value, suggestion=guess, about_key=True)

    def to_dict(self) -> dict[str, Any]:
        """The section as plain data (dicts, lists, strings, numbers) that `from_dict` takes back."""
        result: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if self.open and field.name == "extra":
                result.update(value)
            else:
                result[field.name] = _plain(value)
        return result


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_dict()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def field_types(cls: type[Settings]) -> dict[str, Any]:
    """The evaluated annotation of every field of a settings class."""
    return _field_types(cls)


@cache
def _field_types(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def decode_value(annotation: Any, value: Any, path: KeyPath) -> tuple[Any, list[Problem]]:
    """Bring plain data to the annotated type: the value, or everything that is wrong with it.

    An int serves as a float, a list as a tuple, a string as an enum's value. Nothing else is converted: the string
    "3" is not a number, and a boolean is not one either.
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
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return (value, []) if isinstance(value, annotation) else annotation.decode(value, path)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _decode_enum(annotation, value, path)
    return _decode_scalar(annotation, value, path)


def _decode_union(arguments: tuple[Any, ...], value: Any, path: KeyPath) -> tuple[Any, list[Problem]]:
    if value is None and type(None) in arguments:
        return None, []
    alternatives = [argument for argument in arguments if argument is not type(None)]
    if len(alternatives) == 1:
        return decode_value(alternatives[0], value, path)
    for alternative in alternatives:
        decoded, problems = decode_value(alternative, value, path)
        if not problems:
            return decoded, []
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
        if member.value == value:
            return member, []
    return value, [_bad_choice(value, [str(member.value) for member in annotation], path)]


def _decode_scalar(annotation: Any, value: Any, path: KeyPath) -> tuple[Any, list[Problem]]:
    if annotation is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value), []
            except OverflowError:
                return value, [Problem(path, f"expected a number in the range of a float, found {value}", value)]
    elif annotation is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value, []
    elif annotation in (None, type(None)):
        if value is None:
            return None, []
    elif isinstance(value, annotation):
        return value, []
    return value, [Problem(path, f"expected {_type_name(annotation)}, found {describe(value)}", value)]


def _check_limits(metadata: Mapping[str, Any], value: Any, path: KeyPath) -> list[Problem]:
    if value is None or not metadata:
        return []
    choices = metadata.get("choices")
    if choices and value not in choices:
        return [_bad_choice(value, list(choices), path)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        expected = _number_limits(metadata)
        if not math.isfinite(value):
            return [Problem(path, f"expected a finite number, found {value}", value)]
        if not all(accepts(value) for accepts, _ in expected):
            wanted = " and ".join(text for _, text in expected)
            unit = f" {metadata['unit']}" if "unit" in metadata else ""
            return [Problem(path, f"expected a number {wanted}{unit}, found {value}", value)]
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
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false", type(None): "null"}
    if annotation in names:
        return names[annotation]
    if get_origin(annotation) in (list, tuple):
        return "a list"
    if get_origin(annotation) is dict or (isinstance(annotation, type) and issubclass(annotation, Settings)):
        return "a mapping"
    return getattr(annotation, "__name__", str(annotation))


def describe(value: Any) -> str:
    """A value as an error shows it: its kind and, cut to a bearable length, itself."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    kind = "the string " if isinstance(value, str) else ""
    return f"{kind}{text}"


def dotted(path: KeyPath) -> str:
    """A key path as people write it: `training.epochs`, `tags[0]`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else (f".{key}" if text else str(key))
    return text


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is most likely a slip for, or None."""
    candidates = list(known)
    lowered = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    key = name.lower().replace("-", "_")
    if key in lowered:
        return lowered[key]
    matches = difflib.get_close_matches(key, lowered, n=1, cutoff=0.7)
    return lowered[matches[0]] if matches else None
