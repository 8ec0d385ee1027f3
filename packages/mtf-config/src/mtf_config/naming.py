"""Names of runs: unique within a sweep, and safe as file, branch and job names whatever the values contain."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mtf_config.digest import sha256_hex
from mtf_config.enums import NamingStrategy
from mtf_config.formats import RUN_NAME

__all__ = ["RunNamer", "abbreviate", "slug", "value_text"]

HASH_DIGITS: Final = 12
_MAX_PREFIX: Final = 64
_MAX_NAME: Final = 128
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,23}")
_LOOKS_TYPED = re.compile(r"(true|false|null|[-.\d][-\d._e+]*)", re.IGNORECASE)


def slug(text: str, limit: int = _MAX_PREFIX) -> str:
    """A text as part of a safe name: what is not a letter, digit or any of `._+-` becomes `-`."""
    text = re.sub(r"[^A-Za-z0-9._+-]+", "-", text)
    text = re.sub(r"\.{2,}", ".", text)
    text = re.sub(r"-{2,}", "-", text).strip("-._+")[:limit].rstrip("-._+")
    return text.removesuffix(".lock") or "run"


class RunNamer:
    """Names the runs of one sweep.

    Args:
        strategy: how.
        keys: every key that varies in the sweep; decides how far descriptive names can be abbreviated.
        total: how many points the sweep has; decides the width of numbers.
    """

    def __init__(self, strategy: NamingStrategy, keys: Iterable[str], total: int) -> None:
        self.strategy = strategy
        self._short = abbreviate(keys) if strategy is NamingStrategy.DESCRIPTIVE else {}
        self._width = max(3, len(str(max(total - 1, 0))))

    def name(self, prefix: str, index: int, parameters: Mapping[str, Any], identity: str) -> str:
        """The name of a run.

        Args:
            prefix: what all names of the sweep begin with, such as the name of the base.
            index: the number of the point.
            parameters: dotted key → value.
            identity: the identity of the run.
        """
        stem = slug(prefix)
        if self.strategy is NamingStrategy.SEQUENTIAL:
            return f"{stem}-{index:0{self._width}d}"
        if self.strategy is NamingStrategy.HASH_BASED or not parameters:
            return f"{stem}-{identity[:HASH_DIGITS]}"
        items = [f"{self._short[key]}={value_text(value)}" for key, value in parameters.items()]
        name = "-".join([stem, *items])
        if RUN_NAME(name) is None:
            return name
        kept = name[: _MAX_NAME - HASH_DIGITS - 1].rstrip(".-+=_")
        return f"{kept}-{identity[:HASH_DIGITS]}"


def abbreviate(keys: Iterable[str]) -> dict[str, str]:
    """Short forms of dotted keys, no two alike: initials, else the last part, else the whole key."""
    waiting = list(dict.fromkeys(keys))
    short: dict[str, str] = {}
    for form in (_initials, _last_part, _whole):
        candidates = {key: form(key) for key in waiting}
        counts: dict[str, int] = {}
        for candidate in [*candidates.values(), *short.values()]:
            counts[candidate] = counts.get(candidate, 0) + 1
        short.update({key: candidate for key, candidate in candidates.items() if counts[candidate] == 1})
        waiting = [key for key in waiting if key not in short]
    return short | {key: f"{_whole(key)}.{_digest(key)}" for key in waiting}


def _initials(key: str) -> str:
    section, _, last = key.rpartition(".")
    if last == "name" and section:
        return _safe(section.rpartition(".")[2])
    words = [word for word in re.split(r"[_-]", last) if word]
    return _safe("".join(word[0] for word in words) if len(words) > 1 else last[:12])


def _last_part(key: str) -> str:
    return _safe(key.rpartition(".")[2])


def _whole(key: str) -> str:
    return _safe(key)


def _safe(text: str) -> str:
    """Letters, digits, dots and underscores only, so that `-` and `=` separate without doubt."""
    kept = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._]", "", text)).strip(".")
    return kept if kept == text else f"{kept}.{_digest(text)}"


def value_text(value: Any) -> str:
    """A value within a name: itself where that is short and safe, else its beginning and a hash."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float) and len(repr(value)) <= 24:
        return repr(value)
    if isinstance(value, str) and _is_plain_text(value):
        return value
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return f"{slug(text, 16)}+{_digest(json.dumps(value, sort_keys=True))}"


def _is_plain_text(value: str) -> bool:
    if not _PLAIN_TEXT.fullmatch(value) or _LOOKS_TYPED.fullmatch(value):
        return False
    return ".." not in value and not value.endswith((".", ".lock"))


def _digest(text: str) -> str:
    return sha256_hex(text.encode("utf-8", "surrogatepass"))[:8]
