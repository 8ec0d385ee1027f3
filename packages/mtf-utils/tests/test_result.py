"""Result: the laws of a value that is either there or not, and what the type checker makes of it."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_utils import Error, Result, Success, UnwrapError

results = st.builds(Success, st.integers()) | st.builds(Error, st.text())


def half(number: int) -> Result[int, str]:
    return Success(number // 2) if number % 2 == 0 else Error(f"{number} is odd")


def next_one(number: int) -> Result[int, str]:
    return Success(number + 1) if number < 1000 else Error("too many")


def operation(works: bool) -> Result[str, str]:
    if works:
        return Success("operation completed")
    else:
        return Error("operation failed")


def test_the_branches_of_an_operation() -> None:
    result = operation(True)
    assert isinstance(result, Success)
    assert result.value == "operation completed"
    result = operation(False)
    assert not isinstance(result, Success)
    assert result.error == "operation failed"


@pytest.mark.parametrize(("result", "text"), [(Success(3), "value 3"), (Error("no"), "error no")])
def test_matching(result: Result[int, str], text: str) -> None:
    match result:
        case Success(value):
            found = f"value {value}"
        case Error(reason):
            found = f"error {reason}"
    assert found == text


@given(results)
def test_map_of_the_identity_changes_nothing(result: Result[int, str]) -> None:
    assert result.map(lambda value: value) == result
    assert result.map_error(lambda error: error) == result


@given(results)
def test_map_composes(result: Result[int, str]) -> None:
    assert result.map(lambda v: v + 1).map(lambda v: v * 2) == result.map(lambda v: (v + 1) * 2)


@given(st.integers())
def test_a_success_is_neutral_on_the_left(number: int) -> None:
    assert Success(number).and_then(half) == half(number)


@given(results)
def test_a_success_is_neutral_on_the_right(result: Result[int, str]) -> None:
    assert result.and_then(Success) == result


@given(results)
def test_steps_associate(result: Result[int, str]) -> None:
    assert result.and_then(half).and_then(next_one) == result.and_then(lambda value: half(value).and_then(next_one))


@given(st.text())
def test_no_step_is_taken_after_an_error(reason: str) -> None:
    taken: list[object] = []
    error: Result[int, str] = Error(reason)
    assert error.map(taken.append) == error
    assert error.and_then(taken.append) == error
    assert taken == []


@given(results)
def test_unwrap(result: Result[int, str]) -> None:
    if isinstance(result, Success):
        assert result.unwrap() == result.value == result.unwrap_or(None)
    else:
        assert result.unwrap_or("default") == "default"
        with pytest.raises(UnwrapError) as caught:
            result.unwrap()
        assert caught.value.error == result.error


def test_unwrap_names_the_exception_that_was_the_reason() -> None:
    reason = FileNotFoundError("no such file")
    with pytest.raises(UnwrapError, match="FileNotFoundError: no such file") as caught:
        Error(reason).unwrap()
    assert caught.value.__cause__ is reason


def test_success_and_error_of_the_same_differ() -> None:
    assert Success(1) != Error(1)


def test_results_are_frozen_hashable_and_can_be_pickled() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Success(1).value = 2  # type: ignore[misc]
    assert len({Success(1), Success(1), Error(1)}) == 2
    assert pickle.loads(pickle.dumps([Success(1), Error("x")])) == [Success(1), Error("x")]
    assert str(pickle.loads(pickle.dumps(UnwrapError("x")))) == str(UnwrapError("x"))


TYPED = """
from typing import assert_type
from mtf_utils import Error, Result, Success

def parse(text: str) -> Result[int, str]:
    return Success(int(text)) if text.isdecimal() else Error("no number")

def use(result: Result[int, str]) -> None:
    if isinstance(result, Success):
        assert_type(result.value, int)
    else:
        assert_type(result.error, str)
    match result:
        case Success(value):
            assert_type(value, int)
        case Error(error):
            assert_type(error, str)
    assert_type(result.unwrap(), int)
    assert_type(result.unwrap_or(None), int | None)
    assert_type(result.map(float), Success[float] | Error[str])
    assert_type(result.map_error(len), Success[int] | Error[int])
    assert_type(result.and_then(lambda number: parse(str(number))), Success[int] | Error[str])
    wide: Result[int | None, str | bytes] = result
"""


def test_a_type_checker_narrows(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    program = tmp_path / "typed.py"
    program.write_text(TYPED)
    cache = tmp_path / "cache"
    report, _, status = api.run(["--strict", "--config-file=", f"--cache-dir={cache}", str(program)])
    assert status == 0, report
