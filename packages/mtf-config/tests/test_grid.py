"""Grids: brute force agrees, nothing is enumerated that was not asked for."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_config import ConfigurationError, ParameterGrid, Range
from mtf_config.axes import same_value

VALUES = st.lists(st.integers(0, 3) | st.booleans() | st.sampled_from(["a", "b", None, 0.5]), min_size=1, max_size=3)


def test_an_empty_grid_is_one_point() -> None:
    grid = ParameterGrid("empty")
    assert grid.get_parameter_count() == len(grid) == 1
    assert list(grid.generate_permutations()) == [{}]
    assert grid.point(0) == {}


def test_permutations_are_flat_and_in_order() -> None:
    grid = ParameterGrid("main", "for people")
    assert grid.add_parameter("model.hidden_size", [1, 2]) is None  # type: ignore[func-returns-value]
    assert grid.add_nested_parameter("training.epochs", range(3)) is None  # type: ignore[func-returns-value]
    assert list(grid.generate_permutations()) == [
        {"model.hidden_size": size, "training.epochs": epochs} for size in (1, 2) for epochs in (0, 1, 2)
    ]


@given(st.lists(VALUES, max_size=5))
def test_permutations_are_the_product(columns: list[list[Any]]) -> None:
    grid = ParameterGrid("main")
    for number, values in enumerate(columns):
        grid.add_parameter(f"model.p{number}", values)
    keys = [f"model.p{number}" for number in range(len(columns))]
    expected = [dict(zip(keys, row, strict=True)) for row in itertools.product(*columns)]
    assert list(map(repr, grid.generate_permutations())) == list(map(repr, expected))
    assert [repr(grid.point(index)) for index in range(len(grid))] == list(map(repr, expected))
    assert grid.get_parameter_count() == len(expected)


@st.composite
def descriptions(draw: st.DrawFn) -> dict[str, Any]:
    """Grids of every kind, as data."""
    plain = {f"model.p{n}": draw(VALUES) for n in range(draw(st.integers(0, 3)))}
    size = draw(st.integers(1, 3))
    column = st.lists(st.integers(0, 3), min_size=size, max_size=size)
    linked = {f"model.l{n}": draw(column) for n in range(draw(st.integers(0, 2)))}
    conditional: list[dict[str, Any]] = []
    known = [*plain, *linked]
    for number in range(draw(st.integers(0, 3)) if known else 0):
        earlier = known + [item["key"] for item in conditional]
        when = draw(st.dictionaries(st.sampled_from(earlier), VALUES, min_size=1, max_size=2))
        conditional.append({"key": f"model.c{number}", "values": draw(VALUES), "when": when})
    known += [item["key"] for item in conditional]
    condition = st.dictionaries(st.sampled_from(known), VALUES, min_size=1, max_size=2) if known else st.nothing()
    exclude = draw(st.lists(condition, max_size=2)) if known else []
    return {"plain": plain, "linked": linked, "conditional": conditional, "exclude": exclude}


def holds(condition: dict[str, list[Any]], row: dict[str, Any]) -> bool:
    return all(key in row and any(same_value(row[key], item) for item in items) for key, items in condition.items())


def brute_force(description: dict[str, Any]) -> list[dict[str, Any]]:
    """Every point, by the definition: all rows, then conditions in order, then exclusions."""
    plain, linked = description["plain"], description["linked"]
    rows = [dict(zip(plain, values, strict=True)) for values in itertools.product(*plain.values())]
    if linked:
        rows = [row | dict(zip(linked, v, strict=True)) for row in rows for v in zip(*linked.values(), strict=True)]
    for item in description["conditional"]:
        rows = [
            row | more
            for row in rows
            for more in ([{item["key"]: value} for value in item["values"]] if holds(item["when"], row) else [{}])
        ]
    return [row for row in rows if not any(holds(exclusion, row) for exclusion in description["exclude"])]


def build(description: dict[str, Any], *, conditional_reversed: bool = False) -> ParameterGrid:
    grid = ParameterGrid("main")
    for key, values in description["plain"].items():
        grid.add_parameter(key, values)
    if description["linked"]:
        grid.add_linked(description["linked"])
    for item in reversed(description["conditional"]) if conditional_reversed else description["conditional"]:
        grid.add_conditional(**item)
    for combination in description["exclude"]:
        grid.exclude(combination)
    return grid


def as_set(rows: Any) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


@given(descriptions(), st.booleans())
def test_every_kind_of_grid_is_what_brute_force_says(description: dict[str, Any], backwards: bool) -> None:
    expected = brute_force(description)
    grid = build(description, conditional_reversed=backwards)
    if not expected:
        with pytest.raises(ConfigurationError, match="leave no combination"):
            grid.get_parameter_count()
        return
    found = list(grid.generate_permutations())
    assert as_set(found) == as_set(expected)
    assert len(grid) == len(expected)
    assert [grid.point(index) for index in range(len(grid))] == found


@given(descriptions())
def test_a_grid_survives_being_written_down(description: dict[str, Any]) -> None:
    grid = build(description)
    if not brute_force(description):
        return
    grid.add_sampled({"model.s": Range(1e-5, 1, "log")}, 3, seed=4)
    grid.add_computed("model.twice", "2 * model.s")
    again = ParameterGrid.from_dict(json.loads(json.dumps(grid.to_dict())))
    assert again.to_dict() == grid.to_dict()
    assert list(again.generate_permutations()) == list(grid.generate_permutations())


def test_a_billion_points_take_no_room() -> None:
    tracemalloc.start()
    try:
        grid = ParameterGrid("huge")
        for digit in range(9):
            grid.add_parameter(f"model.digit{digit}", list(range(10)))
        assert grid.get_parameter_count() == len(grid) == 10**9
        point = grid.point(123_456_789)
        first = next(grid.generate_permutations())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert list(point.values()) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert set(first.values()) == {0}
    assert peak < 2**20


def test_a_billion_samples_take_no_room() -> None:
    grid = ParameterGrid("huge")
    grid.add_sampled({"model.a": Range(0, 1)}, 10**9)
    grid.add_parameter("model.b", [1, 2])
    assert len(grid) == 2 * 10**9
    assert grid.point(0)["model.a"] == next(grid.generate_permutations())["model.a"]
    assert grid.point(10**9 + 7) == {"model.b": 2, "model.a": grid.point(7)["model.a"]}


@pytest.mark.parametrize("index", [-1, 6, 10**12])
def test_there_are_no_points_beyond_the_ends(index: int) -> None:
    grid = ParameterGrid("main")
    grid.add_parameter("model.a", [1, 2, 3])
    grid.add_parameter("model.b", [1, 2])
    with pytest.raises(IndexError, match="0 to 5"):
        grid.point(index)


def test_linked_parameters_vary_together() -> None:
    grid = ParameterGrid("main")
    grid.add_linked({"model.size": ["s", "l"], "slurm.mem": ["8G", "64G"]})
    assert list(grid.generate_permutations()) == [
        {"model.size": "s", "slurm.mem": "8G"},
        {"model.size": "l", "slurm.mem": "64G"},
    ]
    with pytest.raises(ConfigurationError, match=r"model.a has 1, model.b has 2"):
        grid.add_linked({"model.a": [1], "model.b": [1, 2]})
    with pytest.raises(ConfigurationError, match="at least one key"):
        grid.add_linked({})


def test_conditions_may_be_given_in_any_order() -> None:
    grid = ParameterGrid("main")
    grid.add_conditional("optimizer.nesterov", [True], {"optimizer.momentum": [0.9]})
    grid.add_conditional("optimizer.momentum", [0, 0.9], {"optimizer.name": "sgd"})
    grid.add_parameter("optimizer.name", ["sgd", "adamw"])
    assert as_set(grid.generate_permutations()) == as_set(
        [
            {"optimizer.name": "adamw"},
            {"optimizer.name": "sgd", "optimizer.momentum": 0},
            {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.nesterov": True},
        ]
    )


def test_conditions_in_a_circle_are_refused() -> None:
    grid = ParameterGrid("main")
    grid.add_conditional("model.a", [1], {"model.b": 1})
    grid.add_conditional("model.b", [1], {"model.a": 1})
    with pytest.raises(ConfigurationError, match="circle"):
        grid.get_parameter_count()


def test_a_condition_on_what_does_not_vary_is_refused_with_a_suggestion() -> None:
    grid = ParameterGrid("main")
    grid.add_parameter("optimizer.name", ["sgd"])
    grid.exclude({"optimizer.nmae": "sgd"})
    with pytest.raises(ConfigurationError, match=r"an exclusion names .*did you mean 'optimizer.name'"):
        grid.point(0)


def test_lists_as_values_are_matched_within_a_list() -> None:
    grid = ParameterGrid("main")
    grid.add_parameter("optimizer.betas", [[0.9, 0.99], [0.9, 0.95]])
    grid.exclude({"optimizer.betas": [[0.9, 0.99]]})
    assert list(grid.generate_permutations()) == [{"optimizer.betas": [0.9, 0.95]}]


def test_too_much_tied_together_is_refused_before_it_is_worked_out() -> None:
    grid = ParameterGrid("main")
    for number in range(10):
        grid.add_parameter(f"model.p{number}", list(range(10)))
    grid.exclude({f"model.p{number}": 0 for number in range(10)})
    with pytest.raises(ConfigurationError, match="split the grid"):
        grid.get_parameter_count()


def test_samples_are_a_function_of_seed_key_and_index() -> None:
    def sampled(seed: int, count: int) -> list[dict[str, Any]]:
        grid = ParameterGrid("main")
        ranges = {"a.lin": Range(-1, 1), "a.log": Range(1e-5, 1e-1, "log"), "a.int": Range(1, 6, "integer")}
        grid.add_sampled(ranges, count, seed)
        return list(grid.generate_permutations())

    assert sampled(0, 5) == sampled(0, 50)[:5]
    assert sampled(0, 5) != sampled(1, 5)
    assert sampled(7, 2) == [
        {"a.lin": 0.505939, "a.log": 1.11972e-05, "a.int": 1},
        {"a.lin": 0.583652, "a.log": 0.00202751, "a.int": 6},
    ]
    many = sampled(3, 2000)
    assert {row["a.int"] for row in many} == {1, 2, 3, 4, 5, 6}
    assert all(-1 <= row["a.lin"] <= 1 and 1e-5 <= row["a.log"] <= 1e-1 for row in many)
    assert 900 < sum(row["a.lin"] < 0 for row in many) < 1100
    assert 900 < sum(row["a.log"] < 1e-3 for row in many) < 1100


@pytest.mark.parametrize(
    "arguments", [(2, 1), (0, 1, "log"), (-1, 1, "log"), (0.5, 2, "integer"), (1, 2, "square"), (float("nan"), 1)]
)
def test_unusable_ranges_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigurationError):
        Range(*arguments)


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (-1, 0), (1.5, 0), (True, 0), (1, -1), (1, None)])
def test_unusable_sample_counts_are_refused(count: Any, seed: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected an integer"):
        ParameterGrid("main").add_sampled({"a": Range(0, 1)}, count, seed)


@pytest.mark.parametrize("values", [[], (), iter(()), "text", {"a": 1}, 3, None, [object()], [float("nan")], [{1: 2}]])
def test_unusable_values_are_refused(values: Any) -> None:
    grid = ParameterGrid("main")
    with pytest.raises(ConfigurationError):
        grid.add_parameter("model.a", values)


@pytest.mark.parametrize("key", ["", ".a", "a.", "a..b", " a", "a .b", 3, None])
def test_unusable_keys_are_refused(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected a key"):
        ParameterGrid("main").add_parameter(key, [1])


def test_what_would_set_the_same_thing_twice_is_refused() -> None:
    grid = ParameterGrid("main")
    grid.add_parameter("model.size", [1])
    for key in ("model.size", "model", "model.size.width"):
        with pytest.raises(ConfigurationError, match=r"there already|set the same thing"):
            grid.add_parameter(key, [1])
    with pytest.raises(ConfigurationError):
        grid.add_computed("model.size", "1")


@pytest.mark.parametrize("name", ["", " ", None, 3])
def test_a_grid_needs_a_name(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="needs a name"):
        ParameterGrid(name)


def test_points_share_nothing() -> None:
    grid = ParameterGrid("main")
    grid.add_parameter("model.layers", [[1, 2]])
    grid.add_parameter("model.a", [1, 2])
    for point in (*grid.generate_permutations(), grid.point(0)):
        assert point["model.layers"] == [1, 2]
        point["model.layers"].append(3)


def test_computed_parameters_follow_from_others() -> None:
    grid = ParameterGrid("main")
    grid.add_parameter("model.hidden_size", [64, 128])
    grid.add_computed("model.ffn_size", "4 * model.hidden_size")
    grid.add_computed("model.kind", "'wide' if model.ffn_size > 300 else 'narrow'")
    assert list(grid.generate_permutations()) == [
        {"model.hidden_size": 64, "model.ffn_size": 256, "model.kind": "narrow"},
        {"model.hidden_size": 128, "model.ffn_size": 512, "model.kind": "wide"},
    ]


def test_a_computed_parameter_without_its_operand_is_an_error() -> None:
    grid = ParameterGrid("main")
    grid.add_parameter("model.hidden_size", [64])
    grid.add_computed("model.ffn_size", "4 * model.hiden_size")
    with pytest.raises(ConfigurationError, match=r"model.ffn_size is computed from .*did you mean 'model.hidden_size'"):
        grid.point(0)
    assert grid.point(0, {"model.hiden_size": 2}.__getitem__)["model.ffn_size"] == 8
