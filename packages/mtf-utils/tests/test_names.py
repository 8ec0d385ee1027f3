"""Suggestions: liberal for a hint, strict for a refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_utils.names import nearest, slip_of

KNOWN = ["name", "hidden_size", "num_layers", "num_heads", "dropout", "learning_rate", "batch_size", "epochs", "eps"]
words = st.sampled_from([name for name in KNOWN if len(name) > 3])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("dropuot", "dropout"),
        ("lr", "learning_rate"),
        ("bs", "batch_size"),
        ("learn", "learning_rate"),
        ("max_epochs", "epochs"),
        ("heads", "num_heads"),
        ("hiddenSize", "hidden_size"),
        ("HIDDEN-SIZE", "hidden_size"),
        ("EPS", "eps"),
        ("flux_capacitor", None),
        ("", None),
    ],
)
def test_suggestions(written: str, meant: str | None) -> None:
    assert nearest(written, KNOWN) == meant


@pytest.mark.parametrize(
    "own", ["num_classes", "hidden_dim", "hidden_sizes", "emb_dropout", "dropout2", "ops", "lr", "d"]
)
def test_names_of_ones_own_are_no_slips(own: str) -> None:
    assert slip_of(own, KNOWN) is None


@given(words, st.data())
def test_one_wrong_letter_is_a_slip(word: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(word) - 2))
    kind = data.draw(st.sampled_from(["drop", "double", "swap", "change"]))
    left, right = word[:at], word[at + 1 :]
    written = {
        "drop": left + right,
        "double": left + word[at] * 2 + right,
        "swap": left + word[at + 1] + word[at] + word[at + 2 :],
        "change": left + "#" + right,
    }[kind]
    assert slip_of(written, KNOWN) == word


def test_an_ambiguous_hint_is_none() -> None:
    assert nearest("num", ["num_layers", "num_heads"]) is None


def test_nothing_known_suggests_nothing() -> None:
    assert nearest("anything", []) is None
