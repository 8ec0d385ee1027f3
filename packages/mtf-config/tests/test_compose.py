"""Composition, references across layers, origins, and the configuration manager's files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_support import DATA, MINIMAL, free_keys, plain_data, with_changes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtf_config import ConfigurationError, ConfigurationManager, ExperimentConfig, Position, ValidationError, load_sweep
from mtf_config.compose import DELETE, Composition, mapping_layer
from mtf_config.reader import parse_text
from mtf_config.writer import dump_yaml


def write(manager: ConfigurationManager, name: str, text: str) -> Path:
    path = manager.config_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


BASE = """\
experiment_name: base
model: {name: mlp, hidden_size: 64, layers: [1, 2]}
training:
  epochs: 5
  batch_size: 16
data: {dataset_name: digits}
optimizer: {name: adamw, betas: [0.9, 0.99]}
scheduler: {name: cosine}
seed: 3
"""


def test_the_complete_example_has_the_right_types_with_and_without_quotes(manager: ConfigurationManager) -> None:
    text = (DATA / "complete.yaml").read_text()
    write(manager, "quoted.yaml", text)
    write(manager, "bare.yaml", text.replace('"', ""))
    for name in ("quoted.yaml", "bare.yaml"):
        config = manager.load_config(name)
        assert (config["optimizer"]["eps"], config["scheduler"]["min_lr"]) == (1e-8, 1e-6)
        assert config["slurm"]["time_limit"] == "24:00:00"
        assert config["slurm"]["mem"] == "32G"
    first, second = (manager.load_experiment(name) for name in ("quoted.yaml", "bare.yaml"))
    assert first == second
    assert isinstance(first.optimizer.eps, float)
    assert first.version == "1.0"
    assert first.model.num_heads == 8
    assert first.slurm is not None
    assert first.slurm.additional_args == []
    assert first.scheduler is not None
    assert first.scheduler.warmup_steps == 1000


def test_load_config_returns_the_keys_as_written(manager: ConfigurationManager) -> None:
    write(manager, "a.yaml", BASE + "custom_params: {twice: '${model.hidden_size}'}\n")
    config = manager.load_config("a.yaml")
    assert config["training"] == {"epochs": 5, "batch_size": 16}
    assert config["custom_params"] == {"twice": "${model.hidden_size}"}
    assert ExperimentConfig.from_dict(config).custom_params == {"twice": 64}


def test_a_part_of_a_configuration_loads_without_validation(manager: ConfigurationManager) -> None:
    write(manager, "part.yaml", "training: {epochs: 1}\n")
    assert manager.load_config("part.yaml", validate=False) == {"training": {"epochs": 1}}
    with pytest.raises(ValidationError, match="experiment_name: this key is required"):
        manager.load_config("part.yaml")


def test_relative_paths_are_looked_up_in_the_config_folder_first(
    manager: ConfigurationManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "a.yaml").write_text(BASE)
    assert manager.load_config("a.yaml")["experiment_name"] == "base"
    write(manager, "a.yaml", BASE.replace("base", "closer"))
    assert manager.load_config("a.yaml")["experiment_name"] == "closer"
    with pytest.raises(ConfigurationError, match=r"looked for .*did you mean 'a.yaml'"):
        manager.load_config("aa.yaml")
    with pytest.raises(ConfigurationError, match="there is no such file") as caught:
        manager.load_config(work)
    assert "did you mean" not in str(caught.value)


def test_the_config_folder_is_relative_to_the_project(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/a.yaml").write_text(BASE)
    assert ConfigurationManager(tmp_path, "conf").load_config("a.yaml")
    assert ConfigurationManager(str(tmp_path), tmp_path / "conf").load_config("a.yaml")


def test_the_cache_is_never_stale(manager: ConfigurationManager) -> None:
    path = write(manager, "a.yaml", BASE)
    parent = write(manager, "child.yaml", "extends: a.yaml\n")
    stamp = path.stat()
    assert manager.load_config("child.yaml")["seed"] == 3
    path.write_text(BASE.replace("seed: 3", "seed: 4"))  # same size
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same time
    assert manager.load_config("a.yaml")["seed"] == 4
    assert manager.load_config(parent)["seed"] == 4
    assert manager.load_config("a.yaml", use_cache=False)["seed"] == 4


def test_what_was_loaded_can_be_changed_without_harm(manager: ConfigurationManager) -> None:
    write(manager, "a.yaml", BASE)
    for use_cache in (True, False):
        config = manager.load_config("a.yaml", use_cache=use_cache)
        config["model"]["layers"].append(9)
        del config["training"]
        assert manager.load_config("a.yaml") == parse_text(BASE, "").data


def test_mappings_merge_and_all_else_replaces(manager: ConfigurationManager) -> None:
    write(manager, "a.yaml", BASE)
    override = {"model": {"layers": [3], "depth": 2}, "training": {"epochs": 9}, "scheduler": None}
    config = manager.compose_configs("a.yaml", [override, {"training": {"epochs": 10}}], {"optimizer.name": "sgd"})
    assert config["model"] == {"name": "mlp", "hidden_size": 64, "layers": [3], "depth": 2}
    assert config["training"] == {"epochs": 10, "batch_size": 16}
    assert config["scheduler"] is None
    assert config["optimizer"] == {"name": "sgd", "betas": [0.9, 0.99]}


def test_arguments_of_a_composition_are_not_changed(manager: ConfigurationManager) -> None:
    base, override = with_changes(model={"layers": [1]}), {"model": {"more": {"a": 1}}}
    before = json.dumps([base, override])
    composed = manager.compose_configs(base, [override], {"model.more.b": 2})
    composed["model"]["layers"].append(2)
    composed["model"]["more"]["a"] = 3
    assert json.dumps([base, override]) == before


def test_a_key_can_be_taken_away(manager: ConfigurationManager) -> None:
    write(manager, "a.yaml", BASE)
    config = manager.compose_configs("a.yaml", [{"scheduler": DELETE}], {"optimizer.betas": "${delete}"})
    assert "scheduler" not in config
    assert config["optimizer"] == {"name": "adamw"}
    again = manager.compose_configs("a.yaml", [{"optimizer": DELETE}, {"optimizer": {"name": "lion"}}])
    assert again["optimizer"] == {"name": "lion"}


def test_taking_away_what_is_not_there_is_an_error_with_a_place(manager: ConfigurationManager) -> None:
    write(manager, "a.yaml", BASE)
    path = write(manager, "b.yaml", "extends: a.yaml\noptimizer:\n  beta: ${delete}\n")
    with pytest.raises(ConfigurationError, match=r"b.yaml:3:3: optimizer.beta: .*did you mean 'betas'") as caught:
        manager.load_config(path)
    assert not isinstance(caught.value, ValidationError)


def test_files_extend_files(manager: ConfigurationManager) -> None:
    write(manager, "common/base.yaml", BASE)
    write(manager, "common/fast.yaml", "training: {epochs: 1}\nseed: 8\n")
    write(manager, "child.yaml", "extends: [common/base.yaml, common/fast.yaml]\ntraining: {batch_size: 2}\n")
    write(manager, "grandchild.json", '{"extends": "child.yaml", "seed": null}')
    config = manager.load_config("grandchild.json")
    assert config["training"] == {"epochs": 1, "batch_size": 2}
    assert config["seed"] is None
    assert "extends" not in config


def test_circles_of_files_are_refused(manager: ConfigurationManager) -> None:
    write(manager, "a.yaml", "extends: b.yaml\n")
    write(manager, "b.yaml", "seed: 1\nextends: [sub/../a.yaml]\n")
    (manager.config_dir / "sub").mkdir()
    with pytest.raises(
        ConfigurationError, match=r"b.yaml:2:11: extends\[0\]: .*circle: .*a.yaml -> .*b.yaml -> .*a.yaml"
    ):
        manager.load_config("a.yaml")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + "/a.yaml", "loop.yaml", "a\0b", "a.yaml/b"])
def test_what_can_be_no_file_is_reported_as_missing(manager: ConfigurationManager, name: str) -> None:
    (manager.config_dir / "loop.yaml").symlink_to("loop.yaml")
    with pytest.raises(ConfigurationError, match="there is no such file"):
        manager.load_config(name)
    write(manager, "a.yaml", json.dumps({"extends": name}))
    with pytest.raises(ConfigurationError, match=r"a.yaml:1:13: extends: (there is no file|expected a file)"):
        manager.load_config("a.yaml")
    write(manager, "sweep.yaml", json.dumps({"base": name, "grids": [{"name": "g"}]}))
    with pytest.raises(ConfigurationError, match=r"sweep.yaml:1:10: base: there is no such file"):
        load_sweep("sweep.yaml", manager)


def test_a_missing_parent_is_reported_with_its_place(manager: ConfigurationManager) -> None:
    write(manager, "base.yaml", BASE)
    write(manager, "a.yaml", "seed: 1\nextends: bsae.yaml\n")
    with pytest.raises(ConfigurationError, match=r"a.yaml:2:10: .*did you mean 'base.yaml'"):
        manager.load_config("a.yaml")
    write(manager, "b.yaml", "extends: {a: 1}\n")
    with pytest.raises(ConfigurationError, match=r"b.yaml:1:10: extends: expected a file"):
        manager.load_config("b.yaml")


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("# only words\n", "nothing"), ("- 1\n", "a list")])
def test_what_is_no_mapping_is_refused(manager: ConfigurationManager, text: str, found: str) -> None:
    write(manager, "a.yaml", text)
    with pytest.raises(ConfigurationError, match=f"found {found}"):
        manager.load_config("a.yaml")


def test_references_follow_overrides(manager: ConfigurationManager) -> None:
    write(manager, "a.yaml", BASE + "custom_params: {ffn: '${model.hidden_size}', tag: 'h${model.hidden_size}'}\n")
    config = manager.compose_configs("a.yaml", parameter_overrides={"model.hidden_size": 128})
    assert config["custom_params"] == {"ffn": 128, "tag": "h128"}


def test_problems_of_a_composition_name_the_layer(manager: ConfigurationManager) -> None:
    base = write(manager, "a.yaml", BASE.replace("epochs: 5", "epochs: five"))
    over = write(manager, "b.yaml", "optimizer:\n  nmae: x\n")
    with pytest.raises(ValidationError) as caught:
        manager.compose_configs(base, [over, {"slurm": {"mm": "1G"}}], {"training.batch_siz": 3})
    assert str(caught.value).splitlines()[1:] == [
        f"  {base}:4:11: training.epochs: expected an integer, found the string 'five'",
        f"  {over}:2:3: optimizer.nmae: unknown key 'nmae', which looks like a slip for a known one "
        "(did you mean 'name'?)",
        "  overrides[1]: slurm.mm: unknown key 'mm' (did you mean 'mem'?)",
        "  parameter_overrides: training.batch_siz: unknown key 'batch_siz' (did you mean 'batch_size'?)",
    ]


def test_every_key_knows_its_origin(manager: ConfigurationManager) -> None:
    base = write(manager, "a.yaml", BASE)
    child = write(manager, "b.yaml", "extends: a.yaml\nmodel:\n  hidden_size: 1\n")
    composition = manager.composition(child, [{"seed": 4, "optimizer": DELETE}], {"optimizer.name": "sgd"})
    assert composition.origin(("model", "hidden_size")) == Position(str(child), 3, 16)
    assert composition.origin(("model", "layers", 1)) == Position(str(base), 2, 49)
    assert composition.origin(("training", "epochs")) == Position(str(base), 4, 11)
    assert composition.origin(("seed",)) == "overrides[0]"
    assert composition.origin(("optimizer", "name")) == "parameter_overrides"
    assert composition.origin(("training", "learning_rate")) is None


@pytest.mark.parametrize(
    "parameters", [{"model": 3, "model.x": 1}, {"": 1}, {"a..b": 1}, {3: 1}, {"model.x": object()}, {"model.x": 1e999}]
)
def test_unusable_parameter_overrides_are_refused(manager: ConfigurationManager, parameters: Any) -> None:
    with pytest.raises(ConfigurationError):
        manager.compose_configs(MINIMAL, parameter_overrides=parameters)


def merged(below: Any, above: Any) -> Any:
    """Deep merge, by its definition."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {
        key: merged(below[key], above[key])
        if key in below and key in above
        else (above if key in above else below)[key]
        for key in {**below, **above}
    }


MAPPINGS = st.dictionaries(st.sampled_from("abc"), plain_data(), max_size=3)


@given(st.lists(MAPPINGS, min_size=1, max_size=4))
def test_merging_is_what_its_definition_says(layers: list[dict[str, Any]]) -> None:
    expected: Any = {}
    for layer in layers:
        expected = merged(expected, layer)
    composition = Composition(mapping_layer(layer, str(number)) for number, layer in enumerate(layers))
    assert composition.data == expected


@given(MAPPINGS)
def test_saved_yaml_is_read_alike_by_yaml_1_1_and_1_2(data: dict[str, Any]) -> None:
    text = dump_yaml(data)
    assert parse_text(text, "file").data == data
    assert yaml.safe_load(text) == data


@pytest.mark.parametrize(
    "text", ["no", "1e-8", "24:00:00", "0o17", "null", "~", "", "1_0", "<<", "2026-01-31", " a", "1"]
)
def test_strings_that_look_like_something_else_stay_strings(manager: ConfigurationManager, text: str) -> None:
    config = ExperimentConfig.from_dict(with_changes(custom_params={"value": text, "list": [text, {text: text}]}))
    manager.save_config(config, "a.yaml")
    assert manager.load_experiment("a.yaml") == config
    content = (manager.config_dir / "a.yaml").read_text()
    for loader in (yaml.SafeLoader, yaml.CSafeLoader):
        assert yaml.load(content, loader)["custom_params"]["value"] == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.dictionaries(free_keys(), plain_data(), max_size=3),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_what_was_saved_loads_equal(manager: ConfigurationManager, model: dict[str, Any], description: str) -> None:
    config = ExperimentConfig.from_dict(with_changes(model=model, description=description, slurm={"mem": "1G"}))
    for name, format in (("a.yaml", "yaml"), ("b.json", "json"), ("c.json", "yaml"), ("d.yml", "json")):
        manager.save_config(config, name, format)
        assert manager.load_experiment(name) == config
    manager.save_config(config.to_dict(), "dict.yaml")
    assert manager.load_config("dict.yaml") == config.to_dict()


def test_saving_makes_folders_and_leaves_nothing_behind(manager: ConfigurationManager, tmp_path: Path) -> None:
    manager.save_config(MINIMAL, "deep/er/a.yaml")
    manager.save_config(MINIMAL, tmp_path / "b.yaml")
    assert manager.load_config("deep/er/a.yaml") == MINIMAL
    assert [item.name for item in (manager.config_dir / "deep/er").iterdir()] == ["a.yaml"]
    assert manager.load_config(tmp_path / "b.yaml") == MINIMAL


@pytest.mark.parametrize(
    ("config", "format"),
    [({"a": object()}, "yaml"), ({"a": float("nan")}, "json"), (MINIMAL, "toml"), ([1], "yaml"), ({1: 2}, "yaml"),
     ({"a": "\ud800"}, "yaml"), ({"a": "\ud800"}, "json")],
)  # fmt: skip
def test_what_cannot_be_saved_is_refused_and_the_file_unchanged(
    manager: ConfigurationManager, config: Any, format: str
) -> None:
    path = write(manager, "a.yaml", BASE)
    with pytest.raises(ConfigurationError):
        manager.save_config(config, "a.yaml", format)
    assert path.read_text() == BASE
    assert [item.name for item in manager.config_dir.iterdir()] == ["a.yaml"]


def test_an_unwritable_place_is_a_configuration_error(manager: ConfigurationManager) -> None:
    write(manager, "file", "")
    with pytest.raises(ConfigurationError, match="cannot write it"):
        manager.save_config(MINIMAL, "file/a.yaml")
    with pytest.raises(ConfigurationError, match="cannot write it"):
        manager.save_config(MINIMAL, "a\0.yaml")
    with pytest.raises(ConfigurationError, match="cannot write it"):
        manager.save_config(MINIMAL, "a\0/b.yaml")


def test_a_path_that_leads_into_config_dir_is_not_nested_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    manager = ConfigurationManager(Path())
    manager.save_config(MINIMAL, "configs/run.yaml")
    manager.save_config(MINIMAL, "deeper/run.yaml")
    manager.save_config(MINIMAL, "../beside.yaml")
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml"))
    assert written == ["beside.yaml", "configs/deeper/run.yaml", "configs/run.yaml"]
    assert manager.load_config("configs/run.yaml", validate=False) == MINIMAL
    (tmp_path / "configs/configs").mkdir()  # now it could be meant
    manager.save_config(MINIMAL, "configs/run.yaml")
    assert (tmp_path / "configs/configs/run.yaml").is_file()
