"""Dotted keys: `training.batch_size`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from mtf_config.base import OpenSection
from mtf_config.errors import ConfigurationError
from mtf_config.schema import ExperimentConfig
from mtf_utils.names import nearest, slip_of
from mtf_utils.problems import Problem, describe
from mtf_utils.settings import Settings, field_types

__all__ = ["check_key", "get_dotted", "schema_keys", "set_dotted", "unknown_key"]


def check_key(key: Any, place: str) -> None:
    """Refuse what is not a dotted key.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(key, str) or not key or not all(part.strip() == part and part for part in key.split(".")):
        raise ConfigurationError.because(f"{place}: expected a key such as 'model.hidden_size', found {describe(key)}")


def get_dotted(data: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key.

    Raises:
        KeyError: there is none.
    """
    value: Any = data
    for part in key.split("."):
        if not isinstance(value, Mapping):
            raise KeyError(key)
        value = value[part]
    return value


def set_dotted(data: dict[str, Any], key: str, value: Any) -> None:
    """Set the value at a dotted key, with the mappings that lead to it.

    Raises:
        ConfigurationError: something on the way is not a mapping.
    """
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        if data.get(part) is None:
            data[part] = {}
        if not isinstance(data[part], dict):
            place = ".".join(parents[: depth + 1])
            raise ConfigurationError.because(f"cannot set {key}: {place} is {describe(data[part])}, not a mapping")
        data = data[part]
    data[last] = value


def unknown_key(key: str, base: Mapping[str, Any]) -> Problem | None:
    """What is wrong with a key that neither the schema nor the base configuration knows, or None."""
    parts = key.split(".")
    section: type[Settings] = ExperimentConfig
    present: Any = base
    for depth, part in enumerate(parts):
        here = list(present) if isinstance(present, Mapping) else []
        declared = [item.name for item in dataclasses.fields(section) if item.name != "extra"]
        if part in declared:
            present = present.get(part) if isinstance(present, Mapping) else None
            kind = _section_of(section, part)
            if kind is not None:
                section = kind
                continue
            return (
                None if depth == len(parts) - 1 or _takes_anything(section, part) else _not_a_section(key, parts, depth)
            )
        if part in here and issubclass(section, OpenSection):
            return None
        if issubclass(section, OpenSection) and part not in section.renamed:
            guess = slip_of(part, [*declared, *here])
            if guess is None:
                return None
        else:
            guess = nearest(part, declared)
        if part in section.renamed:
            return Problem(tuple(parts), section.renamed[part], about_key=True)
        suggestion = (
            ".".join([*parts[:depth], guess, *parts[depth + 1 :]]) if guess else _by_last_part(part, parts, base)
        )
        return Problem(tuple(parts), "the base configuration has no such key", suggestion=suggestion, about_key=True)
    return None


def _section_of(section: type[Settings], name: str) -> type[Settings] | None:
    annotation = field_types(section)[name]
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Settings):
            return candidate
    return None


def _takes_anything(section: type[Settings], name: str) -> bool:
    return getattr(field_types(section)[name], "__origin__", None) is dict


def _not_a_section(key: str, parts: list[str], depth: int) -> Problem:
    return Problem(tuple(parts), f"{'.'.join(parts[: depth + 1])} is a value, so {key} cannot be set", about_key=True)


def _by_last_part(part: str, parts: list[str], base: Mapping[str, Any]) -> str | None:
    """For a key without its section: the full key of the same or a similar name."""
    if len(parts) > 1:
        return None
    full = {key.rsplit(".", 1)[-1]: key for key in reversed([*schema_keys(), *_written(base)])}
    guess = nearest(part, full)
    return full[guess] if guess else None


def schema_keys(section: type[Settings] = ExperimentConfig, prefix: str = "") -> Iterator[str]:
    """Every key of the schema, dotted."""
    for item in dataclasses.fields(section):
        if item.name == "extra":
            continue
        inner = _section_of(section, item.name)
        if inner is None:
            yield prefix + item.name
        else:
            yield from schema_keys(inner, f"{prefix}{item.name}.")


def _written(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _written(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
