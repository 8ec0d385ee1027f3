"""Text of others where a program would obey it: terminals, and the cells of spreadsheets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

__all__ = ["for_terminal", "json_text", "printable", "spreadsheet_cell"]

T = TypeVar("T")

# What steers a terminal (C0, DEL, C1), breaks lines, turns the direction of writing around or cannot be seen, and
# halves of characters, which no output can hold. Source: Unicode 15, sections 23.1, 23.2 and 9.2 (UAX 9)
_STEERING: Final = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_ANY: Final = re.compile(f"[{_STEERING}]")
_BUT_LINES: Final = re.compile(f"(?![\\t\\n])[{_STEERING}]")

# Colours, the rest of the line erased, and what moves within a line: it is what progress bars are made of.
_HARMLESS: Final = re.compile(r"\x1b\[[0-9;:]{0,32}m|\x1b\[[012]?K|[\t\n\r\b]")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_CUT_OFF: Final = re.compile(r"\x1b(\[[0-9;:]{0,32})?\Z")
_BEGINS_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with everything that steers a terminal written out, as in `\x1b[31m`.

    Args:
        text: of others: names, paths, messages.
        lines: whether tabs and line breaks stay what they are.
    """
    return (_BUT_LINES if lines else _ANY).sub(_written_out, text)


def json_text(text: str) -> str:
    """JSON as it stands, but with everything inside its strings that steers a terminal as an escape; equal as JSON."""
    return _BUT_LINES.sub(_as_json_escape, text)


def for_terminal(texts: Iterable[str]) -> Iterator[str]:
    """Pieces of a program's output for a terminal: colours and progress bars stay, everything else is written out.

    Args:
        texts: the pieces; a sequence may be split between two of them.
    """
    rest, coloured = "", False
    for text in texts:
        whole = rest + text
        cut = _CUT_OFF.search(whole)
        rest = cut[0] if cut else ""
        shown = whole[: len(whole) - len(rest)]
        coloured = coloured or _COLOUR.search(shown) is not None
        if shown:
            yield _but_harmless(shown)
    if rest:
        yield printable(rest)
    if coloured:
        yield "\x1b[0m"


def spreadsheet_cell(value: T) -> T | str:
    """A value for a table that a spreadsheet may open: text that it would take for a formula begins with `'`.

    Numbers, and text that reads as a number, stay what they are.

    Source: OWASP, CSV Injection.
    """
    if not isinstance(value, str) or not value.startswith(_BEGINS_FORMULA) or _is_number(value):
        return value
    return f"'{value}"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", text) is not None


def _but_harmless(text: str) -> str:
    parts: list[str] = []
    end = 0
    for match in _HARMLESS.finditer(text):
        parts += [printable(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, printable(text[end:])])


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    short = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}.get(match[0])
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _as_json_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
