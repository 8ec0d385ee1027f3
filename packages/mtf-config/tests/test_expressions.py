"""Expressions: arithmetic, and no way to anything else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_config import ConfigurationError
from mtf_config.expressions import Expression

NAMES: dict[str, Any] = {"a": 6, "model.size": 128, "flag": True, "name": "sgd"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4 * model.size", 512), ("-a + 2**3", 2), ("a / 4", 1.5), ("a // 4", 1), ("a % 4", 2), ("(a + 1) * 2", 14),
        ("max(1, a, 3)", 6), ("round(2.567, 1)", 2.6), ("int(a / 4)", 1), ("float(a)", 6.0), ("sqrt(16)", 4.0),
        ("1 if flag else 2", 1), ("a if name == 'adamw' else 0.5", 0.5), ("not flag", False), ("1 < a <= 6", True),
        ("a > 1 and name", "sgd"), ("a > 9 or 'none'", "none"), ("name + '-' + str(a)", "sgd-6"), ("1e-3", 0.001),
        ("log2(8)", 3.0), ("  a", 6), ("a < 3 < 5", False),
    ],
)  # fmt: skip
def test_arithmetic(text: str, value: Any) -> None:
    result = Expression(text)(NAMES.__getitem__)
    assert result == value
    assert type(result) is type(value)


def test_names_are_known_without_evaluating() -> None:
    assert set(Expression("model.size * a + max(a, x.y.z)").names) == {"model.size", "a", "x.y.z"}


@pytest.mark.parametrize(
    "text",
    ["", "a b", "a =", "a := 1", "lambda: 1", "[1, 2]", "(1, 2)", "{}", "f'{a}'", "a[0]", "open('x')", "a.b()",
     "__import__('os')", "().__class__", "'x'.upper()", "max(*a)", "round(a, ndigits=1)", "1j", "b'x'", "...", "None",
     "a if b", "x" * 2000, "(" * 500 + "1" + ")" * 500, "a\0", "~a", "a @ b", "a | b", "a in b", "a is b", "yield",
     "await a", "*a", "a;b", "-" * 200 + "1"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Expression(text)(NAMES.__getitem__)


@pytest.mark.parametrize(
    "text",
    ["9**9**9", "10**400", "'x' * 10**9", "'%1000000000d' % 1", "1 / 0", "a + name", "(-8)**0.5", "log(0)", "int(name)",
     "1e308 * 10 ** 2 // 1 ** -1 if exp(1000) else 1", "2**256 * 2**256", "name * 2", "name % 2", "max()", "min(a)"],
)  # fmt: skip
def test_what_cannot_be_computed_is_an_error_and_takes_no_time(text: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot compute"):
        Expression(text)(NAMES.__getitem__)


@given(st.text(max_size=30) | st.lists(st.sampled_from([*"a1.()+-*/% ,'[]<>=", "if", "else", "max"])).map("".join))
def test_nothing_but_configuration_errors(text: str) -> None:
    try:
        Expression(text)(lambda name: 1)
    except ConfigurationError:
        return
