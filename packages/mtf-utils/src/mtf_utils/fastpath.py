"""Settings built without ceremony when nothing is wrong with them.

`Settings.decode` finds and explains every problem; most data has none. Here each class is compiled once into one small
function per field. At the first doubt this gives up, and the explaining way decides.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from mtf_utils.decoding import SelfDecoding
from mtf_utils.names import slip_of

if TYPE_CHECKING:
    from mtf_utils.settings import Settings

__all__ = ["build", "settle"]

_NO: Final = object()
_MISSING: Final = dataclasses.MISSING

Step = Callable[[Any], Any]
"""Takes a value as read; gives the value of the field, or `_NO`."""

S = TypeVar("S", bound="Settings")


@dataclass(frozen=True)
class _Plan:
    steps: Mapping[str, Step]
    required: frozenset[str]
    defaults: tuple[tuple[str, Any], ...]
    factories: tuple[tuple[str, Callable[[], Any]], ...]
    checks: bool
    """Whether fields are checked against each other."""


def build(cls: type[S], data: Any) -> S | None:
    """The section, if the data is acceptable beyond doubt; None otherwise."""
    hashable: Any = cls
    plan = _plan(hashable)
    if plan is None or type(data) is not dict:
        return None
    values: dict[str, Any] = dict(plan.defaults)
    extra: dict[str, Any] = {}
    for key, value in data.items():
        step = plan.steps.get(key)
        if step is not None:
            values[key] = step(value)
            if values[key] is _NO:
                return None
        elif not cls.open or type(key) is not str or not _is_free(hashable, key):
            return None
        else:
            extra[key] = cls.adopt(value)
    if not plan.required <= data.keys():
        return None
    for name, factory in plan.factories:
        if name not in values:
            values[name] = factory()
    if cls.open:
        values["extra"] = extra
    instance = object.__new__(cls)
    instance.__dict__.update(values)
    return None if plan.checks and any(True for _ in instance.cross_checks()) else instance


def settle(instance: Settings) -> bool:
    """Check and convert the fields of a new instance; False, with nothing done, if there is any doubt."""
    cls: Any = type(instance)
    plan, values = _plan(cls), instance.__dict__
    if plan is None or (cls.open and values["extra"]):
        return False
    settled = {name: step(values[name]) for name, step in plan.steps.items()}
    if any(value is _NO for value in settled.values()):
        return False
    values.update(settled)
    return not (plan.checks and any(True for _ in instance.cross_checks()))


@cache
def _plan(cls: Any) -> _Plan | None:
    from mtf_utils.settings import Settings, field_types  # which builds its classes with what is here

    if cls.__post_init__ is not Settings.__post_init__:
        return None
    fields = [item for item in dataclasses.fields(cls) if not (cls.open and item.name == "extra")]
    annotations = field_types(cls)
    steps: dict[str, Step] = {}
    for item in fields:
        step = _step(annotations[item.name], item.metadata, cls.adopt)
        if step is None:
            return None
        steps[item.name] = step
    required = [f.name for f in fields if f.default is _MISSING and f.default_factory is _MISSING]
    defaults = [(f.name, f.default) for f in fields if f.default is not _MISSING]
    factories = [(f.name, f.default_factory) for f in fields if f.default_factory is not _MISSING]
    checks = cls.cross_checks is not Settings.cross_checks
    return _Plan(steps, frozenset(required), tuple(defaults), tuple(factories), checks)


@lru_cache(maxsize=4096)
def _is_free(cls: Any, key: str) -> bool:
    """Whether an open section takes a key as one of the user's own."""
    declared = [item.name for item in dataclasses.fields(cls) if item.name != "extra"]
    return key not in cls.renamed and slip_of(key, declared) is None


def _step(annotation: Any, metadata: Mapping[str, Any], adopt: Step) -> Step | None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _union_step(arguments, metadata, adopt)
    if origin is Literal:
        return _choice_step({choice: choice for choice in arguments})
    if origin is list:
        return _list_step(_step(arguments[0], {}, adopt))
    if origin is dict:
        return _mapping_step(arguments, adopt)
    if isinstance(annotation, type) and issubclass(annotation, SelfDecoding):
        return _section_step(annotation)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _choice_step({member.value: member for member in annotation}, annotation)
    if annotation is bool:
        return lambda value: value if value is True or value is False else _NO
    if annotation in (int, float):
        return _number_step(annotation, metadata)
    return _text_step(metadata) if annotation is str else None


def _union_step(arguments: tuple[Any, ...], metadata: Mapping[str, Any], adopt: Step) -> Step | None:
    alternatives = [argument for argument in arguments if argument is not type(None)]
    inner = [made for argument in alternatives if (made := _step(argument, metadata, adopt)) is not None]
    # with more than one, a value must not be of two kinds
    apart = len(alternatives) == 1 or all(item in (bool, str, dict[str, Any]) for item in alternatives)
    if len(inner) < len(alternatives) or not apart:
        return None
    or_none = type(None) in arguments
    if or_none and len(inner) == 1:
        take = inner[0]
        return lambda value: None if value is None else take(value)

    def step(value: Any) -> Any:
        if value is None:
            return None if or_none else _NO
        return next((found for take in inner if (found := take(value)) is not _NO), _NO)

    return step


def _section_step(section: Any) -> Step:
    def step(value: Any) -> Any:
        if type(value) is section:
            return value
        return _NO if (made := build(section, value)) is None else made

    return step


def _choice_step(choices: dict[Any, Any], kind: type | None = None) -> Step | None:
    if not all(type(choice) is str for choice in choices):
        return None
    return lambda value: value if type(value) is kind else choices.get(value, _NO) if type(value) is str else _NO


def _list_step(inner: Step | None) -> Step | None:
    if inner is None:
        return None

    def step(value: Any) -> Any:
        if type(value) is not list:
            return _NO
        items = [inner(item) for item in value]
        return _NO if any(item is _NO for item in items) else items

    return step


def _mapping_step(arguments: tuple[Any, ...], adopt: Step) -> Step | None:
    if arguments[0] is not str:
        return None
    inner = None if arguments[1] is Any else _step(arguments[1], {}, adopt)
    if inner is None and arguments[1] is not Any:
        return None

    def step(value: Any) -> Any:
        if type(value) is not dict or not all(type(key) is str for key in value):
            return _NO
        if inner is None:
            return adopt(value)
        items = {key: inner(item) for key, item in value.items()}
        return _NO if any(item is _NO for item in items.values()) else items

    return step


def _number_step(kind: type[int] | type[float], metadata: Mapping[str, Any]) -> Step | None:
    if "check" in metadata or "choices" in metadata:
        return None
    low, high = metadata.get("minimum", -math.inf), metadata.get("maximum", math.inf)
    above, below = metadata.get("above", -math.inf), metadata.get("below", math.inf)

    def step(value: Any) -> Any:
        if type(value) is not int and (kind is int or type(value) is not float):
            return _NO
        # An infinity, or an integer beyond all floats, is left to the explaining way.
        return kind(value) if low <= value <= high and above < value < below and abs(value) < 1e300 else _NO

    return step


def _text_step(metadata: Mapping[str, Any]) -> Step:
    choices, check = metadata.get("choices"), metadata.get("check")

    def step(value: Any) -> Any:
        if type(value) is not str or (choices and value not in choices) or (check and check(value)):
            return _NO
        return value

    return step
