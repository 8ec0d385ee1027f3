"""The short way and the explaining way accept the same data and make the same of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from config_support import DATA, free_keys, plain_data, with_changes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mtf_config
from mtf_config import ExperimentConfig, SweepSpec
from mtf_config.reader import read_document
from mtf_utils import settings as settings_module
from mtf_utils.fastpath import build
from mtf_utils.settings import Settings

SECTIONS = [getattr(mtf_config, name) for name in mtf_config.__all__ if name.endswith("Config")]

VALUES = (
    plain_data(4)
    | st.sampled_from([0, 1, -1, 0.5, 1.0, True, False, "1", "", " ", 2**70, -(2**1100), float("inf"), float("nan")])
    | st.sampled_from(
        ["fp32", "min", "max", "INFO", "auto", "24:00:00", "32G", "gpu:1", "1.0", "${env:A}", "a\nb", "x"]
    )
    | st.sampled_from([["END"], ["data"], [0.9, 0.999], ["SIGTERM"], ["SIGKILL"], ["-x"], (1, 2), {"a": (1,)}, {1: 2}])
)


@st.composite
def section_data(draw: st.DrawFn) -> tuple[type[Settings], dict[str, Any]]:
    """A section, and data that is acceptable for it more often than not."""
    cls = draw(st.sampled_from([item for item in SECTIONS if item is not ExperimentConfig]))
    names = [field.name for field in dataclasses.fields(cls)]
    data = draw(st.dictionaries(st.sampled_from(names) | free_keys(), VALUES, max_size=3))
    for name in ("name", "dataset_name"):
        if name in names and draw(st.integers(0, 9)):
            data.setdefault(name, "x")
    return cls, data


def explained(cls: type[Settings], data: Any, monkeypatch: pytest.MonkeyPatch) -> Settings | None:
    """What the explaining way makes of data."""
    with monkeypatch.context() as patch:
        patch.setattr(settings_module, "build", lambda cls, data: None)
        patch.setattr(settings_module, "settle", lambda instance: False)
        instance, problems = cls.decode(data, ())
    assert (instance is None) == bool(problems)
    return instance


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(section_data())
def test_sections(monkeypatch: pytest.MonkeyPatch, case: tuple[type[Settings], dict[str, Any]]) -> None:
    cls, data = case
    slow, quick = explained(cls, data, monkeypatch), build(cls, data)
    if quick is not None:
        assert quick == slow
        assert vars(quick) == vars(slow)
        assert list(map(type, vars(quick).values())) == [type(vars(slow)[name]) for name in vars(quick)]
    if cls.decode(data, ())[0] is not None:
        assert slow is not None


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(section_data())
def test_sections_that_are_constructed(monkeypatch: pytest.MonkeyPatch, case: tuple[Any, dict[str, Any]]) -> None:
    cls, data = case

    def construct() -> tuple[dict[str, Any] | None, list[str]]:
        try:
            made = cls(**data)
        except (TypeError, ValueError) as error:
            return None, [str(error)]
        return vars(made), [str(type(value)) for value in vars(made).values()]

    quick = construct()
    with monkeypatch.context() as patch:
        patch.setattr(settings_module, "settle", lambda instance: False)
        assert construct() == quick


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=section_data(), other=st.dictionaries(free_keys(), VALUES, max_size=1))
def test_experiments(monkeypatch: pytest.MonkeyPatch, case: tuple[Any, dict[str, Any]], other: dict[str, Any]) -> None:
    section = case[0].__name__.removesuffix("Config").lower()
    data = with_changes(**{section: case[1]}, custom_params=other)
    slow, (quick, problems) = explained(ExperimentConfig, data, monkeypatch), ExperimentConfig.decode(data, ())
    assert quick == slow
    assert (quick is None) == bool(problems)


@pytest.mark.parametrize("name", ["complete.yaml", "vision.yaml", "language.json"])
def test_real_files_take_the_short_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ExperimentConfig.from_dict(read_document(DATA / name).data).to_dict()
    quick = build(ExperimentConfig, data)
    assert quick is not None
    assert quick == explained(ExperimentConfig, data, monkeypatch)


def test_classes_beyond_the_short_way_are_left_to_the_other() -> None:
    data = {"base": {}, "grids": [{"name": "g"}]}
    assert build(SweepSpec, data) is None
    assert SweepSpec.from_dict(data).grids[0].name == "g"


def test_nothing_is_shared_with_the_data() -> None:
    data = with_changes(model={"layers": [1]}, data={"preprocessing": {"a": [1]}}, tags=["x"], slurm={"setup": ["y"]})
    config = build(ExperimentConfig, {"training": {}} | data)
    assert config is not None
    assert config.slurm is not None
    config.model.layers.append(2)
    config.data.preprocessing["a"].append(2)
    config.tags.append("z")
    config.slurm.setup.append("z")
    again = build(ExperimentConfig, {"training": {}} | data)
    assert again is not None
    assert again.to_dict()["model"]["layers"] == [1]
    assert (again.data.preprocessing, again.tags) == ({"a": [1]}, ["x"])
