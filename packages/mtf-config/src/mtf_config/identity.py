"""The identity of a run: a hash of what makes its result another result.

The form that is hashed is frozen: keys sorted, numbers by value, fields that have their default left out, so that
neither the order of keys nor a process, a version of Python or a later release with more fields changes it.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Final

from mtf_config.base import OpenSection
from mtf_config.digest import sha256_hex
from mtf_utils.settings import Settings

if TYPE_CHECKING:
    from mtf_config.schema import ExperimentConfig

__all__ = ["IDENTITY_FIELDS", "canonical_form", "run_identity"]

IDENTITY_FIELDS: Final = (
    "model", "training", "data", "optimizer", "scheduler", "performance", "seed", "deterministic", "benchmark",
    "custom_params",
)  # fmt: skip
"""The parts of an experiment that make its result; the others (names, logging, resources, ...) do not."""

_DOMAIN: Final = b"mtf run identity 1\n"


def run_identity(config: ExperimentConfig) -> str:
    """The identity of a run: 32 hexadecimal digits, equal for equal experiments everywhere and forever."""
    return sha256_hex(_DOMAIN + canonical_form(config).encode())[:32]


def canonical_form(config: ExperimentConfig) -> str:
    """The text that is hashed."""
    parts = _without_defaults(config, IDENTITY_FIELDS)
    return json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _without_defaults(section: Settings, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if isinstance(section, OpenSection) and field.name == "extra":
            result.update({key: _canonical(item) for key, item in value.items()})
        elif (names is None or field.name in names) and not _is_default(field, value):
            canonical = _canonical(value)
            if canonical != {} or not isinstance(value, Settings):
                result[field.name] = canonical
    return result


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default is not dataclasses.MISSING:
        return bool(value == field.default) and type(value) is type(field.default)
    return field.default_factory is not dataclasses.MISSING and bool(value == field.default_factory())


def _canonical(value: Any) -> Any:
    if isinstance(value, Settings):
        return _without_defaults(value)
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
