"""One finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Check"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        level: `ok`; `note`, which is good to know; or `problem`.
        said: what was found.
        remedy: what to do; empty where there is nothing to do.
    """

    name: str
    level: Literal["ok", "note", "problem"]
    said: str
    remedy: str = ""

    def line(self) -> str:
        """The finding as text."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.level:<8} {self.name}: {self.said}{remedy}"

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain data."""
        return {"name": self.name, "level": self.level, "said": self.said, "remedy": self.remedy}
