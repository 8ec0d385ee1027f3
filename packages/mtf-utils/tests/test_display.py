"""What others wrote, on its way to a terminal, into JSON and into a spreadsheet."""

from __future__ import annotations

import itertools
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_utils import cli
from mtf_utils.display import for_terminal, json_text, printable, spreadsheet_cell

# also halves of characters, which file names that are no UTF-8 bring along
ANY_TEXT = st.text(st.characters(), max_size=40)
HOSTILE = st.lists(
    st.one_of(ANY_TEXT, st.sampled_from(["\x1b]0;title\x07", "\x1b[2J", "\x9b31m", "\u202e", "\x1b[31m", "\r", "\x1b"]))
).map("".join)
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(HOSTILE)
def test_nothing_printable_steers_a_terminal(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [c for c in shown if unicodedata.bidirectional(c) in BIDI]
    assert printable(shown) == shown


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"])))
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert printable(f"{text}\n\t{text}", lines=True) == f"{text}\n\t{text}"


def test_what_is_written_out_can_be_read() -> None:
    assert printable("a\x1b[31m\x9b\u202e\U000e0041\n\t\r\udcff") == (r"a\x1b[31m\x9b\u202e\U000e0041\n\t\r\udcff")


@given(
    st.recursive(
        HOSTILE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3), max_leaves=4
    )
)
def test_json_means_the_same(value: object) -> None:
    text = json_text(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(text) == json.loads(json.dumps(value))
    assert printable(text, lines=True) == text
    text.encode()


@given(HOSTILE, st.lists(st.integers(0, 60), max_size=5))
def test_pieces_for_a_terminal_are_as_harmless_as_the_whole(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    whole, shown = "".join(for_terminal([text])), "".join(for_terminal(pieces))
    assert shown == whole
    left = shown
    for harmless in ("\t", "\n", "\r", "\b"):
        left = left.replace(harmless, "")
    while (start := left.find("\x1b")) >= 0:
        end = min(place for place in (left.find("m", start), left.find("K", start)) if place > 0)
        assert set(left[start + 2 : end]) <= set("0123456789;:"), left
        left = left[:start] + left[end + 1 :]
    assert printable(left) == left


def test_colours_and_progress_bars_stay_and_end() -> None:
    bar = "\x1b[32m 50%|#####     |\x1b[0m\r\x1b[K"
    assert "".join(for_terminal([bar])) == bar + "\x1b[0m"
    assert "".join(for_terminal(["\x1b[3", "1mred"])) == "\x1b[31mred\x1b[0m"
    assert "".join(for_terminal(["\x1b[2J\x1b[A\x1b]52;c;aGk=\x07end\x1b"])) == (
        r"\x1b[2J\x1b[A\x1b]52;c;aGk=\x07end\x1b"
    )


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "=", "--x", "-inf()"]
)
def test_no_cell_is_a_formula(text: str) -> None:
    assert spreadsheet_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["", "a=b", "-1", "+1e-5", "-.5", "-inf", "1-2", -1, -0.5, None, "'=1", "tiny-x=1"])
def test_other_cells_are_left_alone(value: object) -> None:
    assert spreadsheet_cell(value) == value


def test_an_error_message_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["\x1b]0;owned\x07\u202e\udcff"]) == cli.USER_MISTAKE
    said = capsys.readouterr().err
    assert printable(said, lines=True) == said
    assert cli._report("mtf", ValueError("two\nlines \x1b[2J")) == cli.WORK_FAILED
    said = capsys.readouterr().err
    assert "two\nlines \\x1b[2J" in said
