"""The schema: fields, defaults, what is accepted, and what is said about the rest."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import tracemalloc
from typing import Any

import pytest
from config_support import MINIMAL, free_keys, plain_data, with_changes
from hypothesis import given
from hypothesis import strategies as st

import mtf_config
from mtf_config import (
    DataConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    SchedulerConfig,
    SLURMConfig,
    TrainingConfig,
    ValidationError,
)
from mtf_utils import sections
from mtf_utils.settings import SettingsError


def problems_of(data: Any) -> dict[str, str]:
    """Dotted key → message."""
    with pytest.raises(ValidationError) as caught:
        ExperimentConfig.from_dict(data)
    return {".".join(map(str, problem.path)): problem.message for problem in caught.value.problems}


def test_fields_and_defaults_are_those_of_the_public_interface() -> None:
    fields = dataclasses.fields(ExperimentConfig)
    assert [field.name for field in fields] == [
        "experiment_name", "model", "training", "data", "optimizer", "scheduler", "slurm", "logging", "checkpoint",
        "preemption", "performance", "description", "tags", "created_by", "created_at", "version", "seed",
        "deterministic", "benchmark", "custom_params", "distributed",
    ]  # fmt: skip
    config = ExperimentConfig(
        "name", ModelConfig(name="m"), TrainingConfig(), DataConfig(dataset_name="d"), OptimizerConfig(name="o")
    )
    assert (config.scheduler, config.slurm, config.seed, config.description) == (None, None, None, None)
    assert (config.version, config.deterministic, config.benchmark, config.tags) == ("1.0", True, False, [])
    assert config.custom_params == {}
    assert config.logging == sections.LoggingConfig()
    assert TrainingConfig() == TrainingConfig(
        epochs=100, max_steps=None, batch_size=32, learning_rate=0.001, gradient_accumulation_steps=1,
        max_grad_norm=None, precision="fp32", validate_every_n_epochs=1, validate_every_n_steps=None,
    )  # fmt: skip
    assert SchedulerConfig(name="cosine") == SchedulerConfig(name="cosine", warmup_steps=0, min_lr=0.0)


def test_every_slurm_key_is_none_or_empty_by_default() -> None:
    assert set(map(str, SLURMConfig().to_dict().values())) == {"None", "[]"}


def test_every_field_is_documented() -> None:
    classes = [getattr(mtf_config, name) for name in mtf_config.__all__ if name.endswith("Config")]
    assert len(classes) == 13
    for cls in classes:
        for field in dataclasses.fields(cls):
            assert field.metadata["doc"].endswith("."), (cls, field.name)


def test_shared_sections_are_the_same_classes() -> None:
    for name in ("CheckpointConfig", "DistributedConfig", "PreemptionConfig", "PerformanceConfig", "LoggingConfig"):
        assert getattr(mtf_config, name) is getattr(sections, name)


def test_defaults_fill_in_what_is_not_written() -> None:
    config = ExperimentConfig.from_dict(MINIMAL)
    assert config.training == TrainingConfig()
    assert config.to_dict()["training"]["epochs"] == 100


def test_required_keys_are_all_named() -> None:
    assert set(problems_of({})) == {"experiment_name", "model", "data", "optimizer"}
    data = {"experiment_name": "x", "model": {}, "data": {}, "optimizer": {}, "scheduler": {}}
    assert set(problems_of(data)) == {"model.name", "data.dataset_name", "optimizer.name", "scheduler.name"}


def test_all_problems_are_reported_at_once() -> None:
    data = with_changes(
        training={"epochs": 0, "batch_size": "8", "precison": "fp16"},
        optimizer={"betas": [0.9, 1.5], "eps": -1, "lr": 0.1},
        slurm={"mail_type": ["END", "NEVER"], "nodes": 0, "mem": "lots", "link": ["../data"]},
        deterministic=True,
        benchmark=True,
        seed="7",
        version="2.0",
        custom_params={"nan": float("nan")},
    )
    assert set(problems_of(data)) == {
        "training.epochs", "training.batch_size", "training.precison", "optimizer.betas.1", "optimizer.eps",
        "optimizer.lr", "slurm.mail_type.1", "slurm.nodes", "slurm.mem", "slurm.link.0", "benchmark", "seed",
        "version", "custom_params.nan",
    }  # fmt: skip


def test_closed_sections_refuse_unknown_keys_and_suggest() -> None:
    with pytest.raises(ValidationError) as caught:
        ExperimentConfig.from_dict(with_changes(training={"batchsize": 1, "warp": 2}))
    assert [problem.suggestion for problem in caught.value.problems] == ["batch_size", None]
    assert "known are: epochs" in caught.value.problems[1].message


def test_open_sections_keep_further_keys() -> None:
    written = with_changes(
        model={"hidden_size": 512, "layers": [{"kind": "conv"}, None]}, data={"dataset_path": "/data", "shuffle": True}
    )
    config = ExperimentConfig.from_dict(written)
    assert config.model.hidden_size == 512
    assert config.model.get("hidden_size") == 512
    assert config.model.get("depth", 3) == 3
    assert config.data.dataset_path == "/data"
    assert config.to_dict()["model"] == written["model"]
    with pytest.raises(AttributeError, match="did you mean 'hidden_size'"):
        _ = config.model.hiden_size


def test_open_sections_refuse_slips() -> None:
    assert set(problems_of(with_changes(optimizer={"weigth_decay": 0.1}, data={"datset_name": "x"}))) == {
        "optimizer.weigth_decay",
        "data.datset_name",
    }


def test_setting_a_further_key_is_not_lost() -> None:
    config = ExperimentConfig.from_dict(MINIMAL)
    config.model.hidden_size = 64
    config.model.name = "other"
    assert config.to_dict()["model"] == {"name": "other", "hidden_size": 64}


def test_open_sections_take_further_keys_by_keyword() -> None:
    model = ModelConfig(name="cnn", channels=(16, 32))
    assert model == ModelConfig(name="cnn", extra={"channels": [16, 32]})
    assert dataclasses.replace(model, name="mlp").channels == [16, 32]
    with pytest.raises(ValidationError, match="name: this key is required"):
        ModelConfig(channels=3)
    with pytest.raises(ValidationError, match="did you mean 'name'"):
        ModelConfig(nmae="cnn")


@pytest.mark.parametrize("key", ["lr", "learning_rate"])
def test_the_learning_rate_belongs_to_the_training(key: str) -> None:
    assert "training.learning_rate" in problems_of(with_changes(optimizer={key: 0.1}))[f"optimizer.{key}"]


def test_deterministic_with_benchmark_is_refused_also_when_deterministic_is_a_default() -> None:
    assert set(problems_of(with_changes(benchmark=True))) == {"benchmark"}
    assert ExperimentConfig.from_dict(with_changes(benchmark=True, deterministic=False)).benchmark


@pytest.mark.parametrize(
    ("version", "kept"), [("1.0", "1.0"), (1, "1.0"), (1.0, "1.0"), ("1.7.2", "1.7.2"), (1.5, "1.5")]
)
def test_minor_versions_are_read(version: Any, kept: str) -> None:
    assert ExperimentConfig.from_dict(with_changes(version=version)).version == kept


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", 2, "one", "1.", True, None, "9" * 5000])
def test_other_versions_are_refused(version: Any) -> None:
    assert set(problems_of(with_changes(version=version))) == {"version"}


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        (
            "time_limit",
            ["24:00:00", "90", "90:30", "2-12", "2-12:30", "2-12:30:59", "UNLIMITED"],
            ["1h", "24:00:00:00", "1:99", "", "1-", "٣"],
        ),
        ("mem", ["32G", "900M", "4000", "1TB", "0"], ["32 G", "G", "1.5G", "-1G", "32GiB"]),
        ("gres", ["gpu:1", "gpu:a100:2", "gpu:2,shard:4", "gpu", "none"], ["gpu:", "1", "gpu:1;rm", "gpu:1 ", ":2"]),
        ("signal", ["USR1@300", "B:USR1@60", "TERM", "10@5"], ["usr1@", "USR1@", "USR1@-5", "B:"]),
        ("partition", ["gpu", "a,b"], ["", " ", "gpu\n#SBATCH --uid=0", "${env:PARTITION}"]),
        ("link", [["data"], ["a/b.txt", "..data"]], [["/data"], ["../data"], ["a/../../b"], ["a/.."], ["~/x"], [""]]),
        ("additional_args", [["--nice=100", "-H"]], [["nice"], ["--x\n--y"], ["-"]]),
    ],
)
def test_formats_of_slurm(key: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert getattr(SLURMConfig(**{key: value}), key) == value
    for value in bad:
        with pytest.raises(ValidationError, match="expected") as caught:
            SLURMConfig(**{key: value})
        assert caught.value.problems[0].path[0] == key


def test_a_number_where_text_is_expected_is_told_how_to_become_text() -> None:
    found = problems_of(with_changes(slurm={"time_limit": 60, "mem": 32}, tags=[1]))
    assert set(found.values()) == {f"expected a string, found {value}; put it in quotes" for value in (60, 32, 1)}


@pytest.mark.parametrize("name", ["run-1", "a", "A.b_c=1+2-3", "x" * 128])
def test_safe_names_are_accepted(name: str) -> None:
    assert ExperimentConfig.from_dict(with_changes(experiment_name=name)).experiment_name == name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", ".hidden", "-x", "a..b", "a.lock", "x" * 129, "é", "a\n"])
def test_unsafe_names_are_refused(name: str) -> None:
    assert set(problems_of(with_changes(experiment_name=name))) == {"experiment_name"}


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_what_is_no_mapping_is_refused(data: Any) -> None:
    assert set(problems_of(data)) == {""}


def test_a_shared_section_raises_an_error_that_callers_of_both_packages_catch() -> None:
    with pytest.raises(SettingsError):
        ExperimentConfig.from_dict(with_changes(checkpoint={"mode": "best"}))
    with pytest.raises(ValueError):
        ExperimentConfig.from_dict(with_changes(checkpoint={"mode": "best"}))


def test_references_keep_their_type_and_reach_defaults() -> None:
    config = ExperimentConfig.from_dict(
        with_changes(
            training={"batch_size": "${custom_params.sizes.0}"},
            custom_params={
                "sizes": [64, 128],
                "epochs": "${training.epochs}",
                "again": "${custom_params.epochs}",
                "section": "${model}",
                "text": "bs${training.batch_size}, ${deterministic}, ${seed}",
                "shell": "${HOME}/$x/${env:NAME,default}",
            },
        )
    )
    assert config.training.batch_size == 64
    assert config.custom_params == {
        "sizes": [64, 128],
        "epochs": 100,
        "again": 100,
        "section": {"name": "mlp"},
        "text": "bs64, true, null",
        "shell": "${HOME}/$x/${env:NAME,default}",
    }
    assert ExperimentConfig.from_dict(config.to_dict()) == config


def test_broken_references_are_reported_where_they_are_written() -> None:
    found = problems_of(
        with_changes(
            model={"a": "${model.b}", "b": "${model.a}", "c": "${model.nmae}", "d": "x${model}", "e": "${nothing}"},
            training={"epochs": "${training.epoch}"},
            custom_params={"secret": "${env:}", "open": "${env:NAME"},
        )
    )
    assert set(found) == {
        "model.a", "model.c", "model.d", "model.e", "training.epochs", "custom_params.secret",
        "custom_params.open",
    }  # fmt: skip
    assert "circle" in found["model.a"]
    assert "for a shell variable write $nothing" in found["model.e"]


@pytest.mark.parametrize(
    ("value", "levels", "message"),
    [(["${custom_params.a#}"] * 10, 30, "more than 200000"), ("${custom_params.a#}" * 10, 30, "more than 200000"),
     ("${custom_params.a#}", 2000, "more than 50 others")],
)  # fmt: skip
def test_references_cannot_make_much_of_little(value: Any, levels: int, message: str) -> None:
    written = json.dumps(value)
    params = {f"a{n}": json.loads(written.replace("#", str(n + 1))) for n in range(levels)} | {f"a{levels}": "xx"}
    tracemalloc.start()
    try:
        found = problems_of(with_changes(custom_params=params))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert any(message in text for text in found.values())
    assert peak < 100 * 2**20


@given(
    st.dictionaries(free_keys(), plain_data(), max_size=3),
    st.dictionaries(free_keys(), plain_data(), max_size=3),
    st.integers(1, 10**6),
    st.none() | st.integers(0, 2**63 - 1),
    st.lists(st.text(max_size=5), max_size=2),
)
def test_round_trip(model: Any, custom: Any, epochs: int, seed: int | None, tags: list[str]) -> None:
    config = ExperimentConfig.from_dict(
        with_changes(model=model, training={"epochs": epochs}, custom_params=custom, seed=seed, tags=tags)
    )
    again = ExperimentConfig.from_dict(config.to_dict())
    assert again == config
    assert again.to_dict() == config.to_dict()
    assert again.model.extra == model
    assert copy.deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_equality_sees_every_part() -> None:
    base = ExperimentConfig.from_dict(MINIMAL)
    for change in (
        {"model": {"depth": 1}},
        {"training": {"epochs": 1}},
        {"slurm": {}},
        {"tags": ["a"]},
        {"custom_params": {"a": 1}},
        {"seed": 1},
        {"logging": {"use_wandb": True}},
    ):
        assert ExperimentConfig.from_dict(with_changes(**change)) != base


def test_what_is_read_is_not_shared_with_what_it_was_read_from() -> None:
    data = with_changes(model={"layers": [1, 2]}, custom_params={"a": {"b": 1}}, tags=["x"])
    config = ExperimentConfig.from_dict(data)
    config.model.layers.append(3)
    config.custom_params["a"]["b"] = 2
    config.tags.append("y")
    assert data == with_changes(model={"layers": [1, 2]}, custom_params={"a": {"b": 1}}, tags=["x"])
