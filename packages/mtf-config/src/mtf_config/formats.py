"""Formats of strings: a pattern, and what to say to somebody who missed it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = [
    "GRES",
    "MAIL_TYPE",
    "MEMORY",
    "NOT_EMPTY",
    "ONE_LINE",
    "OPTION",
    "PATH",
    "PROJECT_PATH",
    "RUN_NAME",
    "SHELL",
    "SIGNAL",
    "TIME_LIMIT",
    "Format",
]


@dataclass(frozen=True)
class Format:
    """A format, usable as the `check` of a settings field.

    Attributes:
        pattern: matches the whole of an acceptable string; also valid in JSON Schema (ECMA-262).
        expected: what is expected, as in "expected ..., found ...".
    """

    pattern: str
    expected: str

    def __call__(self, value: str) -> str | None:
        """What was expected when the value is not of the format, else None."""
        return None if re.fullmatch(self.pattern, value) else self.expected


@dataclass(frozen=True)
class _RunName(Format):
    def __call__(self, value: str) -> str | None:
        from mtf_utils.rundir import is_safe_name  # at the first use: it is much to load for one rule

        return None if is_safe_name(value) else self.expected


@dataclass(frozen=True)
class _AsWritten(Format):
    """Of a string that is used as it is written: no variable is looked up in it, for the reason that it gives."""

    because: str = "what a job asks for is said before it starts"

    def __call__(self, value: str) -> str | None:
        return f"text without ${{env:...}}: {self.because}" if "${env:" in value else super().__call__(value)


_MAIL_TYPES: Final = (
    "NONE", "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT", "TIME_LIMIT", "TIME_LIMIT_90",
    "TIME_LIMIT_80", "TIME_LIMIT_50", "ARRAY_TASKS",
)  # fmt: skip
# A type begins with a letter, or is a slice of a GPU such as 1g.10gb.
_GRES_TYPE: Final = r"([A-Za-z_][A-Za-z0-9_.+-]*|[0-9]+[a-z]+\.[A-Za-z0-9_.+-]+)"
_GRES_ITEM: Final = rf"[A-Za-z_][A-Za-z0-9_]*(:{_GRES_TYPE})?(:[0-9]+[KMGTkmgt]?)?"

NOT_EMPTY: Final = Format(r"[\s\S]*\S[\s\S]*", "a string that is not empty")
RUN_NAME: Final = _RunName(
    r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,127}",
    "a name of at most 128 letters, digits and any of . _ = + - that begins with a letter or digit",
)
ONE_LINE: Final = _AsWritten(r"[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*", "a single line that is not empty")
TIME_LIMIT: Final = Format(
    r"([0-9]+|[0-9]+:[0-5]?[0-9]|[0-9]+:[0-5]?[0-9]:[0-5]?[0-9]"
    r"|[0-9]+-[0-9]+(:[0-5]?[0-9](:[0-5]?[0-9])?)?|UNLIMITED|INFINITE)",
    'a time such as "24:00:00", "2-12" (days-hours), "90" (minutes) or "UNLIMITED"',
)
MEMORY: Final = Format(r"[0-9]+([KMGTkmgt][Bb]?)?", 'an amount of memory such as "32G" or "900M" (units K, M, G, T)')
GRES: Final = Format(
    rf"({_GRES_ITEM}(,{_GRES_ITEM})*|none|NONE)", 'generic resources such as "gpu:1" or "gpu:a100:2,shard:4"'
)
SIGNAL: Final = Format(
    r"([RB]{1,2}:)?(SIG)?[A-Z0-9]+(@[0-9]{1,5})?", 'a signal and seconds before the end, such as "USR1@300"'
)
MAIL_TYPE: Final = Format("|".join(_MAIL_TYPES), "one of " + ", ".join(_MAIL_TYPES))
PROJECT_PATH: Final = Format(
    r"(?![/~])(?!(.*/)?\.\.(/|$))[^\x00-\x1f\x7f]*[^/\x00-\x1f\x7f][^\x00-\x1f\x7f]*",
    "a path inside the project, relative to its root",
)
PATH: Final = Format(r"[^\x00]*[^\s\x00][^\x00]*", "a path that is not empty, without NUL characters")
OPTION: Final = _AsWritten(r"-[^\x00-\x1f\x7f]+", "an option such as --nice=100")
SHELL: Final = _AsWritten(r"[^\x00]*", "text without NUL characters", "lines of the shell have $NAME for a variable")
