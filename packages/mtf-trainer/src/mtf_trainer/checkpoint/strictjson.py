"""JSON without its loose ends: no NaN, no duplicate keys, no numbers that lose digits; laid out for people."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["dumps", "loads"]

_BROKEN_LEVELS = 4
_SHORT = 100
_FEW = 8


def dumps(value: Any) -> bytes:
    """The value as UTF-8 JSON that ends with a newline.

    The outer levels take a line per item; what lies deeper, what is short, and long lists of plain items stay on one.
    """
    return (_layout(value, 0) + "\n").encode("utf-8")


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _layout(value: Any, level: int) -> str:
    items = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(items, list) or not items or level == _BROKEN_LEVELS:
        return _compact(value)
    if level > 0 and (len(items) <= _FEW or not any(isinstance(item, dict | list) for item in items)):
        text = _compact(value)
        if len(text) <= _SHORT or (isinstance(value, list) and len(items) > _FEW):
            return text
    inner, outer = "  " * (level + 1), "  " * level
    if isinstance(value, dict):
        lines = [f"{inner}{_compact(key)}: {_layout(item, level + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
    lines = [f"{inner}{_layout(item, level + 1)}" for item in items]
    return "[\n" + ",\n".join(lines) + f"\n{outer}]"


def loads(data: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: the text is not strict JSON in UTF-8, repeats a key, is nested too deeply, or has a number that
            a float cannot hold.
    """
    try:
        text = data.decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r} occurs twice")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text} is out of range")
    return value
