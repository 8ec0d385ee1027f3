"""What several tests need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

DATA = Path(__file__).parent / "data"

MINIMAL: dict[str, Any] = {
    "experiment_name": "minimal",
    "model": {"name": "mlp"},
    "data": {"dataset_name": "digits"},
    "optimizer": {"name": "adamw"},
}

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(["no", "yes", "on", "1e-8", "1.0", "0x1F", "0o17", "017", "24:00:00", "1_000", "~", "null", ".5"])
    | st.sampled_from(["=", "<<", "- a", "a: b", "# x", "'", '"', "\\", "2026-01-31", "\ufeff", "\x85", "\u2028", ""])
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(["no", "1", "null", "<<", "1.5"])


def plain_data(max_leaves: int = 12) -> st.SearchStrategy[Any]:
    """Whatever YAML and JSON can both hold."""
    return st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=max_leaves,
    )


def free_keys() -> st.SearchStrategy[str]:
    """Keys for open sections that are no slips for declared ones."""
    return st.text("qxzjkv", min_size=6, max_size=9)


def with_changes(**sections: Any) -> dict[str, Any]:
    """The minimal experiment with keys added to its sections, or set."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in MINIMAL.items()}
    for key, value in sections.items():
        data[key] = data.get(key, {}) | value if isinstance(value, dict) else value
    return data


def place_of(text: str, needle: str) -> tuple[int, int]:
    """Line and column, from 1, of the one occurrence of a needle."""
    found = [match.start() for match in re.finditer(re.escape(needle), text)]
    assert len(found) == 1, (needle, found)
    before = text[: found[0]]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
