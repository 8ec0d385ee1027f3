"""Searches: the union of grids over a base, as experiments."""

from __future__ import annotations

from typing import Any

import pytest
from config_support import MINIMAL, with_changes

from mtf_config import (
    ConfigurationError,
    ExperimentConfig,
    NamingStrategy,
    ParameterGrid,
    ParameterGridSearch,
    Range,
    ValidationError,
    run_identity,
)


def search_of(*parameters: dict[str, list[Any]], base: dict[str, Any] = MINIMAL) -> ParameterGridSearch:
    search = ParameterGridSearch(base)
    for number, columns in enumerate(parameters):
        grid = search.create_grid(f"grid{number}")
        for key, values in columns.items():
            grid.add_parameter(key, values)
    return search


def check_problems(search: ParameterGridSearch) -> dict[str, tuple[str, str | None]]:
    with pytest.raises(ValidationError) as caught:
        search.check()
    return {
        ".".join(map(str, problem.path)): (problem.message, problem.suggestion) for problem in caught.value.problems
    }


def test_experiments_are_the_base_with_parameters_set() -> None:
    search = search_of({"training.learning_rate": [0.1, 1], "model.depth": [2]})
    configs = list(search.generate_experiments())
    assert [config.training.learning_rate for config in configs] == [0.1, 1.0]
    assert all(isinstance(config, ExperimentConfig) and config.model.depth == 2 for config in configs)
    assert len({config.experiment_name for config in configs}) == 2
    assert search.base_config == MINIMAL


def test_points_say_where_an_experiment_comes_from() -> None:
    search = search_of({"seed": [1, 2]}, {"model.depth": [3]})
    points = list(search.points())
    assert [(point.grid, dict(point.parameters)) for point in points] == [
        ("grid0", {"seed": 1}),
        ("grid0", {"seed": 2}),
        ("grid1", {"model.depth": 3}),
    ]
    for index, point in enumerate(points):
        assert point.name == point.config.experiment_name
        assert point.identity == run_identity(point.config)
        assert search.point(index) == point
    assert len(search) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError):
            search.point(index)


@pytest.mark.parametrize("strategy", NamingStrategy)
def test_equal_runs_of_several_grids_are_made_once(strategy: NamingStrategy) -> None:
    search = search_of(
        {"seed": [1, 2], "training.epochs": [100]},
        {"seed": [2, 3]},
        {"seed": [1], "training.epochs": [100, 100]},
        {"training.max_grad_norm": [1, 1.0], "seed": [1]},
    )
    search.set_naming_strategy(strategy)
    points = list(search.points())
    assert [dict(point.parameters) for point in points] == [
        {"seed": 1, "training.epochs": 100},
        {"seed": 2, "training.epochs": 100},
        {"seed": 3},
        {"training.max_grad_norm": 1, "seed": 1},
    ]
    assert len({point.name for point in points}) == len(points)
    assert len(search) == 8
    numbered = [search.point(index) for index in range(8)]
    first = {point.identity: point for point in reversed(numbered)}
    assert [point for point in numbered if first[point.identity] is point] == points


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"slurm.partition": ["a", "b"]}, "slurm.partition"),
        ({"slurm.partition": ["a", "b"], "seed": [1, 2]}, "slurm.partition"),
        ({"tags": [["a"], ["b"]]}, "tags"),
        ({"checkpoint.save_top_k": [1, 2], "slurm.mem": ["1G"]}, "checkpoint.save_top_k"),
    ],
)
def test_a_key_whose_values_make_no_other_runs_is_an_error(values: dict[str, list[Any]], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        search_of(values).check()
    (problem,) = caught.value.problems
    assert problem.path == (key,)
    assert "its values alone do not make different runs" in problem.message


def test_a_key_that_makes_no_other_runs_may_go_with_one_that_does() -> None:
    search = search_of({"slurm.qos": ["q", "q"]}, {"seed": [3, 4]})
    grid = search.grids[1]
    grid.add_linked({"slurm.mem": ["1G", "2G"], "model.size": [1, 2]})
    grid.add_conditional("slurm.gres", ["gpu:1"], when={"seed": 3})
    grid.add_parameter("slurm.nodes", [1, 2])
    grid.exclude({"slurm.nodes": 2, "seed": 3})
    grid.exclude({"slurm.nodes": 1, "seed": 4})
    assert len(list(search.points())) == 5


def test_what_a_computed_or_referring_key_follows_from_may_vary() -> None:
    search = search_of({"slurm.nodes": [1, 2]})
    search.grids[0].add_computed("training.batch_size", "32 * slurm.nodes")
    assert [point.config.training.batch_size for point in search.points()] == [32, 64]
    referring = ParameterGridSearch(MINIMAL | {"custom_params": {"nodes": "${slurm.nodes}"}})
    referring.create_grid("nodes").add_parameter("slurm.nodes", [1, 2])
    assert [point.config.custom_params["nodes"] for point in referring.points()] == [1, 2]


def test_sampled_keys_that_make_no_other_runs_are_an_error() -> None:
    search = search_of({"seed": [1, 2]})
    search.grids[0].add_sampled({"checkpoint.save_top_k": Range(1, 9, "integer")}, count=2)
    with pytest.raises(ValidationError, match=r"checkpoint\.save_top_k: its values alone"):
        search.check()


def test_one_run_with_two_settings_in_two_grids_is_an_error() -> None:
    search = search_of({"seed": [1, 2]}, {"seed": [2], "slurm.mem": ["1G"]})
    with pytest.raises(ConfigurationError, match=r"grids 'grid0' and 'grid1' ask .* slurm\.mem \(None and '1G'\)"):
        list(search.points())


def test_names_that_differ_in_case_only_are_an_error() -> None:
    search = search_of({"optimizer.name": ["Adam", "adam"]})
    search.set_naming_strategy(NamingStrategy.DESCRIPTIVE)
    with pytest.raises(ConfigurationError, match=r"optimizer=Adam' and '.*optimizer=adam', which are the same folder"):
        list(search.points())
    search.set_naming_strategy(NamingStrategy.HASH_BASED)
    assert len(list(search.points())) == 2


def test_no_grids_are_no_experiments_and_an_empty_grid_is_the_base() -> None:
    assert list(ParameterGridSearch(MINIMAL).generate_experiments()) == []
    (config,) = search_of({}).generate_experiments()
    assert run_identity(config) == run_identity(ExperimentConfig.from_dict(MINIMAL))


def test_the_base_may_lack_what_the_grids_provide() -> None:
    base = {key: value for key, value in MINIMAL.items() if key not in ("experiment_name", "optimizer")}
    (config,) = search_of({"optimizer.name": ["sgd"]}, base=base).generate_experiments()
    assert config.experiment_name.startswith("grid0-")
    with pytest.raises(ValidationError, match="optimizer: this key is required"):
        list(search_of({"seed": [1]}, base=base).generate_experiments())


def test_a_base_may_be_an_experiment() -> None:
    base = ExperimentConfig.from_dict(with_changes(model={"depth": 2}))
    search = ParameterGridSearch(base)
    search.create_grid("main").add_parameter("model.depth", [3])
    (config,) = search.generate_experiments()
    assert config.model.depth == 3
    assert base.model.depth == 2


def test_references_of_the_base_follow_the_parameters() -> None:
    base = with_changes(model={"depth": 1, "heads": "${model.depth}"}, description="depth ${model.depth}")
    configs = list(search_of({"model.depth": [2, 3]}, base=base).generate_experiments())
    assert [(config.model.heads, config.description) for config in configs] == [(2, "depth 2"), (3, "depth 3")]


def test_computed_parameters_reach_the_base_and_the_defaults() -> None:
    search = search_of({"model.width": [8]}, base=with_changes(model={"factor": 3}))
    search.grids[0].add_computed("model.inner", "model.width * model.factor * training.epochs")
    (config,) = search.generate_experiments()
    assert config.model.inner == 2400


def test_experiments_share_nothing() -> None:
    search = search_of({"model.layers": [[1, 2]], "seed": [1, 2]}, base=with_changes(custom_params={"a": [1]}))
    for config in search.generate_experiments():
        assert (config.model.layers, config.custom_params) == ([1, 2], {"a": [1]})
        config.model.layers.append(3)
        config.custom_params["a"].append(2)


def test_unknown_keys_are_refused_with_the_nearest_name() -> None:
    found = check_problems(
        search_of(
            {
                "training.batchsize": [1],
                "learning_rate": [1],
                "hidden_size": [1],
                "model.hiden_size": [1],
                "traning.epochs": [1],
                "optimizer.lr": [1],
                "optimizer.nmae": ["x"],
                "seed.value": [1],
                "slurm.gpus": [1],
                "nonsense": [1],
            },
            base=with_changes(model={"hidden_size": 3}),
        )
    )
    assert {key: suggestion for key, (_, suggestion) in found.items()} == {
        "training.batchsize": "training.batch_size",
        "learning_rate": "training.learning_rate",
        "hidden_size": "model.hidden_size",
        "model.hiden_size": "model.hidden_size",
        "traning.epochs": "training.epochs",
        "optimizer.lr": None,
        "optimizer.nmae": "optimizer.name",
        "seed.value": None,
        "slurm.gpus": None,
        "nonsense": None,
    }
    assert "training.learning_rate" in found["optimizer.lr"][0]


def test_keys_of_open_sections_and_custom_params_are_free() -> None:
    search = search_of({"model.new": [1], "custom_params.a.b": [2], "data.preprocessing.crop": [3], "data.x.y": [4]})
    (config,) = search.generate_experiments()
    assert (config.model.new, config.custom_params) == (1, {"a": {"b": 2}})
    assert (config.data.preprocessing, config.data.x) == ({"crop": 3}, {"y": 4})


def test_every_wrong_value_is_found_without_going_through_combinations() -> None:
    columns: dict[str, list[Any]] = {f"model.p{number}": list(range(10)) for number in range(9)}
    search = search_of(columns | {"training.batch_size": [8, 0, "x"], "optimizer.betas": [[0.9], [2.0]]})
    assert len(search) == 6 * 10**9
    found = check_problems(search)
    assert set(found) == {"training.batch_size", "optimizer.betas.0"}
    with pytest.raises(ValidationError):
        search.point(0)
    with pytest.raises(ValidationError):
        next(search.generate_experiments())


def test_a_check_is_done_again_when_a_grid_has_grown() -> None:
    search = search_of({"seed": [1]})
    search.check()
    search.grids[0].add_parameter("sed", [1])
    assert check_problems(search)["sed"][1] == "seed"


def test_a_combination_that_is_not_acceptable_names_its_point() -> None:
    search = search_of({"deterministic": [True, False], "benchmark": [True]})
    with pytest.raises(ValidationError, match=r"grid 'grid0', point 0 \(deterministic=True, benchmark=True\)"):
        list(search.generate_experiments())
    search.grids[0].exclude({"deterministic": True, "benchmark": True})
    assert len(list(search.generate_experiments())) == 1


def test_problems_name_their_grid() -> None:
    with pytest.raises(ValidationError) as caught:
        search_of({"seed": [1]}, {"seed": ["one"]}).check()
    assert str(caught.value.problems[0]) == "grid 'grid1': seed: expected an integer, found the string 'one'"


def test_more_points_than_a_length_can_be() -> None:
    search = search_of({f"model.p{number}": list(range(100)) for number in range(20)})
    assert search.get_point_count() == 10**40
    assert search.point(10**40 - 1).config.model.p7 == 99


def test_names_cannot_be_varied() -> None:
    assert "naming strategy" in check_problems(search_of({"experiment_name": ["a"]}))["experiment_name"][0]


def test_grids_of_a_search_have_different_names() -> None:
    search = ParameterGridSearch(MINIMAL)
    grid = ParameterGrid("main")
    search.add_grid(grid)
    assert search.grids == (grid,)
    for again in (lambda: search.add_grid(ParameterGrid("main")), lambda: search.create_grid("main")):
        with pytest.raises(ConfigurationError, match="already a grid"):
            again()


@pytest.mark.parametrize("wrong", [None, 3, "path", [1]])
def test_what_is_no_base_or_grid_or_strategy_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        ParameterGridSearch(wrong)
    search = ParameterGridSearch(MINIMAL)
    with pytest.raises(ConfigurationError):
        search.add_grid(wrong)
    with pytest.raises(ConfigurationError, match="hash_based, descriptive, sequential"):
        search.set_naming_strategy(wrong)


def test_a_section_can_be_a_value() -> None:
    sections = [{"name": "cosine", "warmup_steps": 3}, None]
    configs = list(search_of({"scheduler": sections}).generate_experiments())
    assert configs[0].scheduler is not None
    assert configs[0].scheduler.warmup_steps == 3
    assert configs[1].scheduler is None


def test_a_point_of_a_huge_search_is_made_alone() -> None:
    search = search_of({f"model.p{number}": list(range(10)) for number in range(9)})
    search.create_grid("samples").add_sampled({"training.learning_rate": Range(1e-5, 1e-2, "log")}, 10**9)
    assert len(search) == 2 * 10**9
    assert search.point(123_456_789).config.model.p8 == 9
    assert 1e-5 <= search.point(1_999_999_999).config.training.learning_rate <= 1e-2
