from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mtf_trainer.errors import TrainerError
from mtf_trainer.run_config import Experiment, MissingKeyError, RunConfig, RunConfigError, load_run_config
from mtf_utils.rundir import ENV_CONFIG
from mtf_utils.settings import SettingsError

DATA: dict[str, Any] = {
    "experiment_name": "digits",
    "model": {"name": "cnn", "hidden_size": 32, "widths": [8, 16], "blocks": [{"kind": "conv"}], "items": 3},
    "training": {"learning_rate": 1e-3},
    "scheduler": None,
}


def test_values_are_reached_by_attribute_and_by_key() -> None:
    run = RunConfig(DATA)
    assert run.experiment_name == run["experiment_name"] == "digits"
    assert run.model.hidden_size == run["model"]["hidden_size"] == run.model["hidden_size"] == 32
    assert run.model.blocks[0].kind == "conv"
    assert run.scheduler is None
    assert run.get("nothing") is None
    assert run.model.get("dropout", 0.1) == 0.1
    assert list(run) == list(DATA)
    assert "model" in run
    assert "modle" not in run
    assert run == DATA
    assert isinstance(run.model, Mapping)
    assert isinstance(run, Experiment)
    assert {"experiment_name", "to_dict"} <= set(dir(run))


def test_a_key_with_the_name_of_a_method_is_reached_by_key() -> None:
    run = RunConfig(DATA)
    assert run.model["items"] == 3
    assert callable(run.model.items)


def test_nothing_changes_the_configuration() -> None:
    source = copy.deepcopy(DATA)
    run = RunConfig(source)
    with pytest.raises(TypeError, match=r"cannot set 'model\.width': .* read-only"):
        run.model.width = 3
    with pytest.raises(TypeError, match=r"cannot delete 'model': .* read-only"):
        del run.model
    with pytest.raises(TypeError):
        run["model"] = {}  # type: ignore[index]
    run.model.widths.append(99)
    run.to_dict()["model"]["name"] = "other"
    source["model"]["name"] = "other"
    assert run == DATA


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda run: run.model.hidden_sise,
            r"model\.hidden_sise: there is no such key \(did you mean 'hidden_size'\?\)",
        ),
        (lambda run: run["modle"], r"modle: there is no such key \(did you mean 'model'\?\)"),
        (lambda run: run.training["momentum"], r"training\.momentum: .*`training` has: learning_rate\)"),
        (lambda run: run.model.blocks[0].stride, r"model\.blocks\[0\]\.stride: there is no such key"),
    ],
)
def test_a_missing_key_is_named_with_its_place_and_its_neighbour(ask: Any, message: str) -> None:
    with pytest.raises(MissingKeyError, match=message) as error:
        ask(RunConfig(DATA))
    assert isinstance(error.value, AttributeError)
    assert isinstance(error.value, KeyError)
    assert isinstance(error.value, TrainerError)


def test_defaults_of_getattr_and_hasattr_work() -> None:
    run = RunConfig(DATA)
    assert getattr(run.model, "dropout", 0.5) == 0.5
    assert not hasattr(run, "anything")
    assert not hasattr(run, "__wrapped__")


def test_references_are_resolved_on_the_way_out_and_never_shown() -> None:
    source = {
        "data": {"url": "https://x/${env:TOKEN}", "parts": ["${env:TOKEN}"]},
        "logging": {"entity": "${env:TEAM,us}"},
    }
    run = RunConfig(source, environ={"TOKEN": "hunter2"})
    assert run.data.url == "https://x/hunter2"
    assert run.data.parts == ["hunter2"]
    assert run.logging.entity == "us"
    assert run.to_dict() == source
    assert run.data.to_dict() == source["data"]
    assert "hunter2" not in f"{run!r} {run.data!r} {run}"


def test_a_missing_variable_is_an_error_at_once() -> None:
    with pytest.raises(SettingsError, match=r"data\.url: .*TOKEN"):
        RunConfig({"data": {"url": "${env:TOKEN}"}}, environ={})


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
def test_copies_are_the_same_configuration(duplicate: Any) -> None:
    run = RunConfig({"model": {"key": "${env:A}"}}, environ={"A": "1"})
    for original in (run, run.model):
        twin = duplicate(original)
        assert twin == original
        assert twin.to_dict() == original.to_dict()
    with pytest.raises(MissingKeyError, match=r"model\.kez"):
        _ = duplicate(run.model).kez


def test_a_file_is_read_by_path_or_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(DATA))
    monkeypatch.delenv(ENV_CONFIG, raising=False)
    assert load_run_config(path) == load_run_config(str(path)) == DATA
    with pytest.raises(RunConfigError, match="MTF_CONFIG is not set"):
        load_run_config()
    monkeypatch.setenv(ENV_CONFIG, str(path))
    assert load_run_config() == DATA


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b'{"a": ', r"config\.json is not valid JSON: .*line 1 column"),
        ("config.json", b"\xff\xfe\x00", r"config\.json is not valid JSON"),
        ("config.json", b"[" * 100_000, r"config\.json is not valid JSON"),
        ("config.json", b"[1, 2]", r"config\.json must be a JSON object, found list"),
        ("config.yaml", b"a: 1\n", r"config\.yaml is not valid JSON: .*pass the config\.json that lies beside it"),
    ],
)
def test_files_that_hold_something_else_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RunConfigError, match=message):
        load_run_config(tmp_path / name)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunConfigError, match=r"cannot read the configuration .*nowhere\.json: No such file"):
        load_run_config(tmp_path / "nowhere.json")
    with pytest.raises(RunConfigError, match="Is a directory"):
        load_run_config(tmp_path)
