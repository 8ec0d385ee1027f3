"""References to the environment: resolved all at once, never shown."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_utils import EnvReference, EnvReferenceError, find_env_references, resolve_env
from mtf_utils.envref import hiding_env_values
from mtf_utils.problems import Problem, SettingsError, describe

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
plain_text = st.text().filter(lambda text: "${env:" not in text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${env:HOME}", "/home/me"),
        ("${env:HOME}/data:${env:HOME}", "/home/me/data:/home/me"),
        ("${env:NONE,/tmp}", "/tmp"),
        ("${env: NONE , a, b }", "a, b"),
        ("${env:NONE,}", ""),
        ("${env:EMPTY,default}", ""),
        ("$${env:HOME}", "${env:HOME}"),
        ("$HOME ${HOME} ${model.name} {env:HOME}", "$HOME ${HOME} ${model.name} {env:HOME}"),
        ("${env:NESTED}", "${env:HOME}"),
    ],
)
def test_what_a_reference_stands_for(text: str, expected: str) -> None:
    environ = {"HOME": "/home/me", "EMPTY": "", "NESTED": "${env:HOME}"}
    assert resolve_env(text, environ) == expected


def test_nested_structures_are_copied_not_changed() -> None:
    value = {"a": ["${env:X}", {"b": "${env:X}"}], "c": ("${env:X}", 1, None, 2.5, True), "${env:X}": "key"}
    before = copy.deepcopy(value)
    resolved = resolve_env(value, {"X": "x"})
    assert resolved == {"a": ["x", {"b": "x"}], "c": ("x", 1, None, 2.5, True), "${env:X}": "key"}
    assert value == before
    assert resolved["a"][1] is not value["a"][1]


@given(st.recursive(plain_text | st.integers() | st.none(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_what_holds_no_reference_stays_equal(value: object) -> None:
    assert resolve_env(value, {}) == value


@given(plain_text.filter(lambda text: not text.endswith("$")), names, st.text(), plain_text)
def test_text_around_a_reference_stays(before: str, name: str, content: str, after: str) -> None:
    assert resolve_env(f"{before}${{env:{name}}}{after}", {name: content}) == before + content + after


def test_every_missing_variable_is_named_with_its_place() -> None:
    value = {"logging": {"key": "${env:KEY}"}, "tags": ["${env:HERE}", "${env:TAG}-${env:TAG}"]}
    with pytest.raises(EnvReferenceError) as caught:
        resolve_env(value, {"HERE": "hunter2"})
    assert [problem.path for problem in caught.value.problems] == [("logging", "key"), ("tags", 1)]
    assert "logging.key: the environment variable KEY is not set" in str(caught.value)
    assert "tags[1]: the environment variable TAG is not set" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${env:X", "expected a '}'"),
        ("${env:}", "expected ${env:NAME}"),
        ("${env:MY-VAR}", "expected ${env:NAME}"),
        ("${env:X,${env:Y}}", "cannot be nested"),
    ],
)
def test_malformed_references_are_refused(text: str, reason: str) -> None:
    for call in (resolve_env, find_env_references):
        with pytest.raises(EnvReferenceError) as caught:
            call({"place": text})
        assert str(caught.value).startswith("environment: place: ")
        assert reason in str(caught.value)


def test_references_are_found_in_order() -> None:
    value = {"a": "${env:ONE} $${env:NOT}", "b": ["-", "${env:TWO,2}"]}
    assert find_env_references(value) == [EnvReference(("a",), "ONE"), EnvReference(("b", 1), "TWO", "2")]


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTF_TEST_VALUE", "from outside")
    assert resolve_env("${env:MTF_TEST_VALUE}") == "from outside"


@given(
    value=st.text(min_size=1, max_size=100).filter(lambda text: "'" not in text and "\\" not in text),
    show=st.sampled_from([describe, repr, str]),
    name=names,
)
def test_an_error_shows_the_reference(value: str, show: Callable[[str], str], name: str) -> None:
    written = {"a": [f"x${{env:{name}}}"], "b": "plain"}
    found = f"x{value}"
    raised = EnvReferenceError([Problem(("a", 0), f"found {show(found)}", found)], subject="it")

    def refuse() -> None:
        try:
            raise ValueError(found)
        except ValueError as error:
            raise raised from error

    with pytest.raises(EnvReferenceError) as caught, hiding_env_values(written, {name: value}):
        refuse()
    (problem,) = caught.value.problems
    assert (caught.value.subject, problem.path, problem.value) == ("it", ("a", 0), written["a"][0])
    if show is not str or len(found) >= 4:
        assert problem.message == f"found what {written['a'][0]!r} stands for" or "is not acceptable" in problem.message
        assert f"x${{env:{name}}}" in str(caught.value)
        assert repr(found) not in str(caught.value)


def test_a_value_that_was_cut_is_recognised_and_others_are_left_alone() -> None:
    written, environ = {"a": "${env:KEY}", "b": "$${env:KEY}"}, {"KEY": "0123456789abcdefghijklmnopqrstuvwxyz"}
    with pytest.raises(SettingsError) as caught, hiding_env_values(written, environ):
        raise SettingsError(
            [Problem(("a",), "found 0123456789abcdefgh..."), Problem(("b",), "found '${env:KEY}'", "c")]
        )
    first, second = caught.value.problems
    assert first.message == "what '${env:KEY}' stands for is not acceptable"
    assert (second.message, second.value) == ("found '${env:KEY}'", "c")
    same = SettingsError([Problem(("a",), "nothing of it")])
    with pytest.raises(SettingsError) as caught, hiding_env_values(written, environ):
        raise same
    assert caught.value is same
