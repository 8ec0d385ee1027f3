"""Settings that check themselves: dataclasses whose fields carry their documentation and their limits.

A subclass of `Settings` is an ordinary dataclass. Types come from the annotations and limits from `about()`;
both are checked on construction, and every problem is reported at once. What is not a matter of one field goes
into `cross_checks`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, get_type_hints
from weakref import WeakKeyDictionary

from mtf_utils.decoding import SelfDecoding, check_limits, decode_value, plain
from mtf_utils.fastpath import build, settle
from mtf_utils.names import nearest, slip_of
from mtf_utils.problems import KeyPath, Problem, SettingsError, describe, dotted

__all__ = [
    "KeyPath",
    "Problem",
    "Settings",
    "SettingsError",
    "about",
    "decode_value",
    "describe",
    "dotted",
    "field_types",
    "nearest",
]

_FIELD_TYPES: WeakKeyDictionary[type[Settings], dict[str, Any]] = WeakKeyDictionary()


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
class Settings(SelfDecoding):
    """Base of a settings section: types and limits are checked on construction.

    Class attributes:
        open: whether keys beyond the declared ones are kept (in a field `extra`) rather than refused. One that looks
            like a slip for a declared key is refused all the same.
        error: what is raised.
        renamed: keys that people type by habit, with the sentence that says what to write instead.
    """

    open: ClassVar[bool] = False
    error: ClassVar[type[SettingsError]] = SettingsError
    renamed: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        if settle(self):
            return
        problems = [*self._check_fields(), *self._check_extra()]
        if not problems:
            problems = list(self.cross_checks())
        if problems:
            raise self.error(problems, subject=type(self).__name__)

    @classmethod
    def adopt(cls, value: Any) -> Any:
        """What becomes of a value of a further key, and of a mapping whose values may be anything: it is kept."""
        return dict(value) if isinstance(value, dict) else value

    def _check_fields(self) -> Iterator[Problem]:
        annotations = field_types(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if annotations[field.name] == dict[str, Any]:
                value = self.adopt(value)
            value, problems = decode_value(annotations[field.name], value, (field.name,))
            if not problems:
                problems = check_limits(field.metadata, value, (field.name,))
                object.__setattr__(self, field.name, value)
            yield from problems

    def _check_extra(self) -> Iterator[Problem]:
        extra = getattr(self, "extra", None) if self.open else None
        if not isinstance(extra, Mapping):
            return
        known = _declared(type(self))
        for key, value in extra.items():
            if key in known:
                yield Problem((key,), "this key is declared; it cannot be in `extra` too", value, about_key=True)
            elif wrong_key := self._refuse_key(key, known, (key,), value):
                yield wrong_key

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
        if (found := build(cls, data)) is not None:
            return found, []
        if not isinstance(data, Mapping):
            return None, [Problem(path, f"expected a mapping, found {describe(data)}", data)]
        arguments, extra, problems = cls._decode_keys(data, path)
        if problems:
            return None, problems
        if cls.open:
            arguments["extra"] = extra
        try:
            return cls(**arguments), []
        except SettingsError as error:
            return None, [dataclasses.replace(p, path=(*path, *p.path)) for p in error.problems]

    @classmethod
    def _decode_keys(
        cls, data: Mapping[Any, Any], path: KeyPath
    ) -> tuple[dict[str, Any], dict[str, Any], list[Problem]]:
        annotations, fields = field_types(cls), {field.name: field for field in dataclasses.fields(cls)}
        known = _declared(cls)
        arguments: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        problems: list[Problem] = []
        for key, value in data.items():
            here = (*path, key)
            if key in known:
                arguments[key], wrong = decode_value(annotations[key], value, here)
                problems.extend(wrong or check_limits(fields[key].metadata, arguments[key], here))
            elif wrong_key := cls._refuse_key(key, known, here, value):
                problems.append(wrong_key)
            else:
                extra[key] = value
        for name in known:
            if name not in data and _is_required(fields[name]):
                problems.append(Problem((*path, name), "this key is required", about_key=True))
        return arguments, extra, problems

    @classmethod
    def _refuse_key(cls, key: Any, known: list[str], here: KeyPath, value: Any) -> Problem | None:
        if not isinstance(key, str):
            return Problem(here, f"expected a string as key, found {describe(key)}", value, about_key=True)
        if key in cls.renamed:
            return Problem(here, cls.renamed[key], value, about_key=True)
        if cls.open:
            if (guess := slip_of(key, known)) is None:
                return None
            message = f"unknown key {key!r}, which looks like a slip for a known one"
        else:
            guess = nearest(key, known)
            message = f"unknown key {key!r}" + ("" if guess else f"; known are: {', '.join(known)}")
        return Problem(here, message, value, suggestion=guess, about_key=True)

    def to_dict(self) -> dict[str, Any]:
        """The section as plain data (dicts, lists, strings, numbers) that `from_dict` takes back."""
        result: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = plain(getattr(self, field.name))
            if self.open and field.name == "extra":
                result.update(value)
            else:
                result[field.name] = value
        return result


def _declared(cls: type[Settings]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if not (cls.open and field.name == "extra")]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def field_types(cls: type[Settings]) -> dict[str, Any]:
    """The evaluated annotation of every field of a settings class."""
    if cls not in _FIELD_TYPES:
        hints = get_type_hints(cls)
        _FIELD_TYPES[cls] = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    return dict(_FIELD_TYPES[cls])
