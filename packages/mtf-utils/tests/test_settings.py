"""Settings: checked on construction, decoded from plain data, back and forth without loss."""

from __future__ import annotations

import enum
import json
import math
import pickle
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_utils.settings import Problem, Settings, SettingsError, about, decode_value, describe, dotted, field_types


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(kw_only=True)
class Inner(Settings):
    rate: float = field(default=0.5, metadata=about("A rate.", above=0, below=1, unit="parts"))
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(kw_only=True)
class Outer(Settings):
    name: str
    count: int = field(default=1, metadata=about("A number.", minimum=0))
    ratio: float | None = None
    mode: Literal["min", "max"] = "min"
    colour: Colour = Colour.RED
    inner: Inner = field(default_factory=Inner)
    many: list[Inner] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    table: dict[str, float | None] = field(default_factory=dict)
    free: dict[str, Any] = field(default_factory=dict)
    switch: bool = False


@dataclass(kw_only=True)
class Open(Settings):
    open = True
    renamed = {"lr": "write training.learning_rate instead"}  # noqa: RUF012

    name: str = "x"
    num_layers: int | None = None
    hidden_size: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
inners = st.builds(Inner, rate=st.floats(0.001, 0.999), betas=st.tuples(finite, finite))
outers = st.builds(
    Outer,
    name=st.text(),
    count=st.integers(min_value=0),
    ratio=st.none() | finite,
    mode=st.sampled_from(["min", "max"]),
    colour=st.sampled_from(Colour),
    inner=inners,
    many=st.lists(inners, max_size=3),
    tags=st.lists(st.text(), max_size=3),
    table=st.dictionaries(st.text(), st.none() | finite, max_size=3),
    free=st.dictionaries(st.text(), json_values, max_size=3),
    switch=st.booleans(),
)


def problems_of(call: Any) -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        call()
    return list(caught.value.problems)


@given(outers)
def test_plain_data_comes_back_as_the_same_settings(outer: Outer) -> None:
    assert Outer.from_dict(outer.to_dict()) == outer


@given(outers)
def test_json_in_between_loses_nothing(outer: Outer) -> None:
    again = Outer.from_dict(json.loads(json.dumps(outer.to_dict())))
    assert again == outer
    assert type(again.inner.betas) is tuple


@given(json_values)
def test_any_plain_data_is_either_accepted_or_refused_with_reasons(data: Any) -> None:
    instance, problems = Outer.decode(data, ("here",))
    assert (instance is None) == bool(problems)
    assert all(problem.path[0] == "here" and str(problem) for problem in problems)


@given(st.dictionaries(st.sampled_from([f.name for f in fields(Outer)]), json_values))
def test_values_of_any_kind_never_crash_the_decoding(data: dict[str, Any]) -> None:
    outer, problems = Outer.decode({"name": "n"} | data, ())
    if outer is None:
        assert {problem.path[0] for problem in problems} <= set(data)
    else:
        assert Outer.from_dict(outer.to_dict()) == outer


def test_every_problem_is_reported_at_once_with_its_path() -> None:
    data = {
        "count": -1,
        "colour": "bleu",
        "inner": {"rate": 2},
        "many": [{}, {"betas": [1]}],
        "tags": "one",
        "swich": 1,
    }
    found = {dotted(problem.path): problem for problem in problems_of(lambda: Outer.from_dict(data))}
    assert set(found) == {"name", "count", "colour", "inner.rate", "many[1].betas", "tags", "swich"}
    assert found["name"].about_key
    assert found["name"].message == "this key is required"
    assert found["swich"].suggestion == "switch"
    assert found["colour"].suggestion == "blue"
    assert found["inner.rate"].message == "expected a number > 0 and < 1 parts, found 2.0"


def test_construction_checks_as_decoding_does() -> None:
    assert [p.path for p in problems_of(lambda: Outer(name=3, count=True))] == [("name",), ("count",)]  # type: ignore[arg-type]


@pytest.mark.parametrize(("sign", "digits"), [(1, 400), (-1, 400), (1, 5000)])
def test_integers_beyond_the_range_of_a_float(sign: int, digits: int) -> None:
    value = sign * 10**digits
    assert Outer(name="n", count=abs(value)).count == abs(value)
    (problem,) = problems_of(lambda: Outer(name="n", ratio=value))
    assert "range of a float" in problem.message
    assert len(str(problem)) < 200
    (problem,) = problems_of(lambda: Outer(name="n", count=-abs(value)))
    assert "expected a number >= 0" in problem.message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused_wherever_a_float_is_expected(value: float) -> None:
    for data in ({"ratio": value}, {"inner": {"betas": [0.9, value]}}, {"table": {"a": value}}):
        (problem,) = problems_of(lambda data=data: Outer.from_dict({"name": "n"} | data))
        assert "finite" in problem.message


@pytest.mark.parametrize(
    ("annotation", "value"), [(int, True), (float, False), (int, 3.0), (int, "3"), (str, 3), (bool, 1)]
)
def test_nothing_is_converted_silently(annotation: type, value: object) -> None:
    assert decode_value(annotation, value, ())[1]


def test_an_integer_serves_as_a_float_and_becomes_one() -> None:
    inner = Inner(betas=(0, 1))
    assert [type(beta) for beta in inner.betas] == [float, float]


class NumberOfALibrary:
    """What numpy.int64 looks like from outside."""

    def __int__(self) -> int:
        return 7


def test_numbers_of_libraries_serve_as_pythons() -> None:
    import numbers

    numbers.Integral.register(NumberOfALibrary)
    outer = Outer(name="n", count=NumberOfALibrary(), free={"k": [NumberOfALibrary()]})  # type: ignore[arg-type]
    assert type(outer.count) is int
    assert outer.to_dict()["free"] == {"k": [7]}


@pytest.mark.parametrize("key", [1, None, True, (1, 2)])
def test_keys_that_are_no_strings_are_named(key: object) -> None:
    (problem,) = problems_of(lambda: Outer.from_dict({"name": "n", key: 1}))  # type: ignore[dict-item]
    assert problem.about_key
    assert "expected a string as key" in problem.message
    (problem,) = problems_of(lambda: Outer.from_dict({"name": "n", "table": {key: 1.0}}))
    assert problem.about_key


def test_what_is_wrong_inside_a_union_is_told_from_inside() -> None:
    _, problems = decode_value(int | list[int], [1, "2"], ("sizes",))
    assert [dotted(problem.path) for problem in problems] == ["sizes[1]"]
    _, problems = decode_value(int | list[int], "2", ("sizes",))
    assert str(problems[0]) == "sizes: expected an integer or a list, found the string '2'"


def test_a_boolean_is_no_number_of_an_enum() -> None:
    class Level(enum.IntEnum):
        LOW = 1

    assert decode_value(Level, 1, ()) == (Level.LOW, [])
    assert decode_value(Level, True, ())[1]


def test_an_annotation_that_settings_do_not_have_is_the_developers_error() -> None:
    with pytest.raises(TypeError, match="cannot annotate"):
        decode_value(set[int], {1}, ())


def test_open_settings_keep_keys_of_the_users_own() -> None:
    data = {
        "name": "net",
        "num_classes": 10,
        "hidden_dim": 64,
        "emb_dropout": 0.1,
        "hidden_sizes": [1],
        "deep": {"a": 1},
    }
    section = Open.from_dict(data)
    assert section.extra["num_classes"] == 10
    assert section.to_dict() == {"num_layers": None, "hidden_size": None} | data
    assert Open.from_dict(section.to_dict()) == section


@pytest.mark.parametrize("key", ["num_layer", "hiden_size", "hiddenSize", "nmae", "Num-Layers"])
def test_open_settings_refuse_a_slip(key: str) -> None:
    for call in (lambda: Open.from_dict({key: 3}), lambda: Open(extra={key: 3})):
        (problem,) = problems_of(call)
        assert problem.path == (key,)
        assert problem.suggestion in ("num_layers", "hidden_size", "name")


def test_open_settings_refuse_a_declared_key_among_the_extra_ones() -> None:
    (problem,) = problems_of(lambda: Open(extra={"num_layers": 3}))
    assert "declared" in problem.message


def test_a_renamed_key_says_what_to_write() -> None:
    (problem,) = problems_of(lambda: Open.from_dict({"lr": 0.1}))
    assert problem.message == "write training.learning_rate instead"


def test_an_error_survives_the_way_back_from_another_process() -> None:
    with pytest.raises(SettingsError) as caught:
        Outer.from_dict({"count": -1})
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.problems, again.subject) == (str(caught.value), caught.value.problems, "Outer")


def test_field_types_cannot_be_changed_from_outside() -> None:
    field_types(Inner)["rate"] = str
    assert field_types(Inner)["rate"] is float


@given(json_values)
def test_descriptions_stay_short(value: Any) -> None:
    assert len(describe(value)) < 100


def test_limits_are_left_out_of_the_metadata_when_not_given() -> None:
    assert about("Text.", minimum=0) == {"doc": "Text.", "minimum": 0}
