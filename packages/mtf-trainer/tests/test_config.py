from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.run_config import RunConfig, RunConfigError
from mtf_utils.sections import CheckpointConfig, DistributedConfig, LoggingConfig, PerformanceConfig, PreemptionConfig
from mtf_utils.settings import SettingsError

TRAINING = {
    "epochs": 7,
    "max_steps": 50,
    "gradient_accumulation_steps": 4,
    "max_grad_norm": 1.5,
    "precision": "bf16",
    "validate_every_n_epochs": None,
    "validate_every_n_steps": 20,
}
SECTIONS = {
    "checkpoint": CheckpointConfig(keep_last=5, mode="max"),
    "preemption": PreemptionConfig(grace_period_seconds=9),
    "performance": PerformanceConfig(num_workers=3),
    "distributed": DistributedConfig(strategy="none"),
    "logging": LoggingConfig(log_every_n_steps=2),
}


def whole_experiment() -> dict[str, Any]:
    return {
        "experiment_name": "digits-1",
        "model": {"name": "cnn", "width": 8},
        "training": TRAINING | {"batch_size": 64, "learning_rate": 0.1},
        "data": {"dataset_name": "digits"},
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "scheduler": {"name": "cosine", "warmup_steps": 5},
        "slurm": {"partition": "gpu"},
        "description": None,
        "tags": ["a", "b"],
        "created_by": None,
        "created_at": None,
        "version": "1.0",
        "seed": 3,
        "deterministic": False,
        "benchmark": True,
        "custom_params": {"anything": [1, 2]},
    } | {name: section.to_dict() for name, section in SECTIONS.items()}


class ExperimentLike:
    """What the trainer may know of an experiment: that it tells itself as plain data."""

    def to_dict(self) -> dict[str, Any]:
        return whole_experiment()


def keys_of(error: pytest.ExceptionInfo[SettingsError]) -> list[str]:
    return [".".join(map(str, problem.path)) for problem in error.value.problems]


def test_every_field_has_a_default_and_a_description() -> None:
    assert GenericTrainerConfig() == GenericTrainerConfig.from_experiment({})
    for field in dataclasses.fields(GenericTrainerConfig):
        assert field.metadata["doc"].endswith(".")
        assert field.kw_only


def test_an_experiment_comes_as_object_mapping_or_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(whole_experiment()))
    expected = GenericTrainerConfig(
        **TRAINING,  # type: ignore[arg-type]
        **SECTIONS,  # type: ignore[arg-type]
        seed=3,
        deterministic=False,
        benchmark=True,
        experiment_name="digits-1",
        tags=["a", "b"],
        run=whole_experiment(),
        identity=GenericTrainerConfig.from_experiment(whole_experiment()).identity,
    )
    for source in (ExperimentLike(), whole_experiment(), path, str(path), RunConfig(whole_experiment())):
        assert GenericTrainerConfig.from_experiment(source) == expected


def changed(path: str, value: object) -> str | None:
    source = whole_experiment()
    *sections, key = path.split(".")
    target = source
    for section in sections:
        target = target[section]
    target[key] = value
    return GenericTrainerConfig.from_experiment(source).identity


def test_the_identity_is_the_same_whatever_the_length_the_name_and_the_spelling() -> None:
    source = whole_experiment()
    identity = GenericTrainerConfig.from_experiment(source).identity
    assert identity is not None
    assert len(identity) == 32
    assert changed("training.epochs", 99) == changed("training.max_steps", None) == identity
    assert changed("experiment_name", "other") == changed("checkpoint.keep_last", 9) == identity
    assert changed("model.width", 8.0) == changed("model.depth", None) == identity
    assert GenericTrainerConfig.from_experiment(dict(reversed(source.items()))).identity == identity
    del source["performance"]["pin_memory"]  # its default was spelled out
    assert GenericTrainerConfig.from_experiment(source).identity == identity


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.width", 9),
        ("model.bias", False),
        ("data.dataset_name", "faces"),
        ("training.batch_size", 65),
        ("training.gradient_accumulation_steps", 1),
        ("optimizer.momentum", 0.0),
        ("scheduler", None),
        ("performance.num_workers", 0),
        ("seed", None),
        ("custom_params.anything", [2, 1]),
    ],
)
def test_the_identity_changes_with_what_changes_the_result(path: str, value: object) -> None:
    assert changed(path, value) not in (None, GenericTrainerConfig.from_experiment(whole_experiment()).identity)


def test_what_is_carried_is_independent_of_the_source() -> None:
    source = whole_experiment()
    config = GenericTrainerConfig.from_experiment(source)
    source["model"]["width"] = 99
    assert config.run["model"]["width"] == 8


def test_references_are_resolved_for_the_trainer_and_kept_for_the_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM", "vision")
    monkeypatch.setenv("TOKEN", "hunter2")
    source = {
        "logging": {"wandb_entity": "${env:TEAM}"},
        "model": {"name": "m", "token": "${env:TOKEN}"},
        "tags": ["${env:TOKEN}"],
    }
    for experiment in (source, RunConfig(source)):
        config = GenericTrainerConfig.from_experiment(experiment)
        assert config.logging.wandb_entity == "vision"
        assert config.run == source
        assert "hunter2" not in repr(config)


def test_a_missing_variable_is_named_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(SettingsError, match=r"NOT_THERE") as error:
        GenericTrainerConfig.from_experiment({"training": {"precision": "${env:NOT_THERE}"}})
    assert keys_of(error) == ["training.precision"]


def test_every_problem_is_reported_with_the_path_of_the_experiment() -> None:
    source = whole_experiment()
    source["training"] |= {"epochs": 0, "epohcs": 3, "precision": "fp64"}
    source["checkpoint"]["mode"] = "best"
    source["schedular"] = {}
    source["seed"] = -1
    with pytest.raises(SettingsError) as error:
        GenericTrainerConfig.from_experiment(source)
    assert sorted(keys_of(error)) == [
        "checkpoint.mode",
        "schedular",
        "seed",
        "training.epochs",
        "training.epohcs",
        "training.precision",
    ]
    assert "training.epohcs: unknown key 'epohcs' (did you mean 'epochs'?)" in str(error.value)
    assert "(did you mean 'scheduler'?)" in str(error.value)


@pytest.mark.parametrize("training", [None, 3, ["epochs"]])
def test_a_section_must_be_a_mapping(training: object) -> None:
    with pytest.raises(SettingsError, match="training: expected a mapping"):
        GenericTrainerConfig.from_experiment({"training": training})


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunConfigError, match=r"nowhere\.json: No such file"):
        GenericTrainerConfig.from_experiment(tmp_path / "nowhere.json")
    path = tmp_path / "config.json"
    path.write_text('{"training": {"epochs": 0}}')
    with pytest.raises(SettingsError, match=r"config\.json: training\.epochs: expected a number >= 1, found 0"):
        GenericTrainerConfig.from_experiment(path)


def test_anything_else_is_not_an_experiment() -> None:
    with pytest.raises(SettingsError, match="expected an experiment, a mapping or a path, found 3"):
        GenericTrainerConfig.from_experiment(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"epochs": 0}, "epochs"),
        ({"max_steps": 0}, "max_steps"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"max_grad_value": -1.0}, "max_grad_value"),
        ({"precision": "float16"}, "precision"),
        ({"seed": 2**63}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 10**400}, "seed"),
        ({"device": "gpu please"}, "device"),
        ({"tags": "one"}, "tags"),
        ({"non_finite_loss": "ignore"}, "non_finite_loss"),
        ({"benchmark": True}, "benchmark"),
        (
            {"scheduler_interval": "metric", "validate_every_n_epochs": None},
            "scheduler_interval",
        ),
    ],
)
def test_values_that_make_no_sense_are_refused(settings: dict[str, Any], place: str) -> None:
    with pytest.raises(SettingsError) as error:
        GenericTrainerConfig(**settings)
    assert keys_of(error) == [place]


@pytest.mark.parametrize(
    "settings",
    [
        {"benchmark": True, "deterministic": False},
        {"scheduler_interval": "metric", "validate_every_n_epochs": None, "validate_every_n_steps": 5},
        {"seed": 2**63 - 1},
        {"device": "cuda:1"},
    ],
)
def test_values_at_the_edge_are_accepted(settings: dict[str, Any]) -> None:
    config = GenericTrainerConfig(**settings)
    assert {name: getattr(config, name) for name in settings} == settings
    assert GenericTrainerConfig.from_dict(config.to_dict()) == config
