"""Names of runs: unique, safe, short, and the same forever."""

from __future__ import annotations

from typing import Any

import pytest
from config_support import MINIMAL, plain_data
from hypothesis import given
from hypothesis import strategies as st

from mtf_config import NamingStrategy, ParameterGridSearch
from mtf_config.naming import RunNamer, abbreviate, slug, value_text
from mtf_utils.rundir import is_safe_name

TEXTS = st.text(max_size=40) | st.sampled_from(["..", "a.lock", "-", "a/b", "x" * 300, "é", "a b", "=", "\ud800"])


def names(strategy: NamingStrategy) -> list[str]:
    search = ParameterGridSearch(MINIMAL | {"experiment_name": "My sweep: no. 1"})
    search.set_naming_strategy(strategy)
    grid = search.create_grid("main")
    grid.add_parameter("training.learning_rate", [0.001, 1e-05])
    grid.add_parameter("optimizer.name", ["sgd", "a/b"])
    grid.add_parameter("model.use_bias", [True])
    return [config.experiment_name for config in search.generate_experiments()]


def test_golden_names() -> None:
    assert names(NamingStrategy.HASH_BASED) == [
        "My-sweep-no.-1-a39b27b41af6",
        "My-sweep-no.-1-583ace999457",
        "My-sweep-no.-1-e6840a6e96df",
        "My-sweep-no.-1-26f049ca45ad",
    ]
    assert names(NamingStrategy.DESCRIPTIVE) == [
        "My-sweep-no.-1-lr=0.001-optimizer=sgd-ub=true",
        "My-sweep-no.-1-lr=0.001-optimizer=a-b+f5effa31-ub=true",
        "My-sweep-no.-1-lr=1e-05-optimizer=sgd-ub=true",
        "My-sweep-no.-1-lr=1e-05-optimizer=a-b+f5effa31-ub=true",
    ]
    assert names(NamingStrategy.SEQUENTIAL) == [f"My-sweep-no.-1-00{number}" for number in range(4)]


@pytest.mark.parametrize(
    ("keys", "short"),
    [
        (["training.learning_rate", "model.hidden_size", "seed"], ["lr", "hs", "seed"]),
        (["optimizer.name", "scheduler.name", "model.name"], ["optimizer", "scheduler", "model"]),
        (["model.hidden_size", "model.head_size"], ["hidden_size", "head_size"]),
        (["model.depth", "custom_params.depth"], ["model.depth", "custom_params.depth"]),
        (["training.batch_size", "custom_params.bs"], ["batch_size", "custom_params.bs"]),
        (["seed", "custom_params.seed"], ["seed", "custom_params.seed"]),
    ],
)
def test_keys_are_abbreviated_as_far_as_they_stay_distinct(keys: list[str], short: list[str]) -> None:
    found = abbreviate(keys)
    assert len(set(found.values())) == len(keys)
    if keys[1] != "custom_params.bs":
        assert list(found.values()) == short


@given(st.lists(st.lists(TEXTS.filter(bool), min_size=1, max_size=3).map(".".join), unique=True, max_size=8))
def test_abbreviations_are_distinct_and_separable(keys: list[str]) -> None:
    found = abbreviate(keys)
    assert set(found) == set(keys)
    assert len(set(found.values())) == len(keys)
    for text in found.values():
        assert not set(text) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._")


@given(plain_data(), plain_data())
def test_different_values_have_different_texts(one: Any, other: Any) -> None:
    assert (value_text(one) == value_text(other)) == (repr(one) == repr(other))


@pytest.mark.parametrize(("one", "other"), [("1", 1), ("true", True), ("null", None), ("0.5", 0.5), ("[]", [])])
def test_texts_that_look_like_other_types_are_told_apart(one: Any, other: Any) -> None:
    assert value_text(one) != value_text(other)


@given(TEXTS, TEXTS)
def test_slugs_are_safe(text: str, more: str) -> None:
    assert is_safe_name(slug(text))
    assert is_safe_name(f"{slug(text)}-{slug(more, 16)}")
    assert len(slug(text)) <= 64


@given(
    st.sampled_from(NamingStrategy),
    TEXTS,
    st.integers(0, 10**12),
    st.dictionaries(st.lists(TEXTS.filter(bool), min_size=1, max_size=3).map(".".join), plain_data(), max_size=6),
)
def test_names_are_safe_whatever_they_are_made_from(
    strategy: NamingStrategy, prefix: str, index: int, parameters: dict[str, Any]
) -> None:
    namer = RunNamer(strategy, parameters, index + 1)
    name = namer.name(prefix, index, parameters, "0123456789abcdef" * 2)
    assert is_safe_name(name)
    assert name == namer.name(prefix, index, parameters, "0123456789abcdef" * 2)


@given(st.lists(st.lists(plain_data(4), min_size=3, max_size=3), min_size=2, max_size=5, unique_by=repr))
def test_descriptive_names_of_different_parameters_differ(rows: list[list[Any]]) -> None:
    keys = ["model.a_b", "model.c-d", "seed"]
    namer = RunNamer(NamingStrategy.DESCRIPTIVE, keys, len(rows))
    found = [
        namer.name("x", number, dict(zip(keys, row, strict=True)), f"{number:032x}"[::-1])
        for number, row in enumerate(rows)
    ]
    assert len(set(found)) == len(rows)
