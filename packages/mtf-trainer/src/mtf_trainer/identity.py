"""Which training a configuration describes: a hash that tells whether a checkpoint may be continued under it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["LENGTH_KEYS", "training_identity"]

_PARTS: Final = (
    "model",
    "training",
    "data",
    "optimizer",
    "scheduler",
    "performance",
    "seed",
    "deterministic",
    "benchmark",
    "custom_params",
)

LENGTH_KEYS: Final = frozenset({"epochs", "max_steps"})
"""Keys of `training` that may change from one start to the next: a run may go on for longer than planned."""

_DOMAIN: Final = b"mtf training identity 1\n"


def training_identity(written: Mapping[str, Any], defaults: Mapping[str, Any]) -> str | None:
    """The identity of the training that an experiment describes, its length aside.

    The order of keys does not matter, nor whether a whole number is written as 1 or 1.0, nor whether a default is
    spelled out: a release that adds a key leaves the identity of older configurations as it is.

    Args:
        written: the experiment, references to the environment as written.
        defaults: values that are the same as none, in the same layout.

    Returns:
        32 hexadecimal digits; None when the experiment says nothing that makes a difference.
    """
    parts = {key: written[key] for key in _PARTS if key in written}
    if isinstance(training := parts.get("training"), Mapping):
        parts["training"] = {key: value for key, value in training.items() if key not in LENGTH_KEYS}
    canonical = _canonical(parts, defaults)
    if canonical is None:
        return None
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(_DOMAIN + text.encode("ascii")).hexdigest()[:32]


def _canonical(value: Any, default: Any = None) -> Any:
    """The value in the form that is hashed; None for what says no more than its default does."""
    if isinstance(value, Mapping):
        below = default if isinstance(default, Mapping) else {}
        items = {str(key): _canonical(item, below.get(key)) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None} or None
    if value == default and type(value) is type(default):
        return None
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value] or None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
