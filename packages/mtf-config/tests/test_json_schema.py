"""The JSON Schema says what the dataclasses say."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import yaml
from config_fuzzing import mangled
from config_support import DATA, MINIMAL, with_changes
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mtf_config import ConfigurationError, ExperimentConfig, SweepSpec, ValidationError
from mtf_config.json_schema import experiment_schema, schema_problems, sweep_schema
from mtf_config.reader import parse_text, read_document
from mtf_config.references import resolve_references
from mtf_config.schema import schema_defaults


def accepted(data: Any) -> bool:
    try:
        ExperimentConfig.from_dict(data)
    except ValidationError:
        return False
    return True


def test_the_schemas_are_valid_and_describe_every_key() -> None:
    for schema in (
        experiment_schema(),
        experiment_schema(as_written=True),
        experiment_schema(partial=True),
        sweep_schema(),
    ):
        Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        for section in [schema, *schema["$defs"].values()]:
            assert section["description"].endswith(".")
            for name, prop in section["properties"].items():
                assert prop["description"], name
        assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize("name", ["complete.yaml", "vision.yaml", "language.json"])
def test_real_files_meet_the_schema(name: str) -> None:
    data = read_document(DATA / name).data
    assert not list(Draft202012Validator(experiment_schema(as_written=True)).iter_errors(data))
    assert schema_problems(ExperimentConfig.from_dict(data).to_dict()) == []


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"training": {"epochs": 0}}, "training.epochs"),
    ({"training": {"epochs": "3"}}, "training.epochs"),
    ({"training": {"epochs": True}}, "training.epochs"),
    ({"training": {"epohcs": 3}}, "training"),
    ({"training": {"precision": "fp8"}}, "training.precision"),
    ({"training": {"max_grad_norm": 0}}, "training.max_grad_norm"),
    ({"optimizer": {"lr": 0.1}}, "optimizer.lr"),
    ({"optimizer": {"betas": [0.9, "x"]}}, "optimizer.betas.1"),
    ({"slurm": {"mem": "much"}}, "slurm.mem"),
    ({"slurm": {"time_limit": "24h"}}, "slurm.time_limit"),
    ({"slurm": {"gres": "gpu:"}}, "slurm.gres"),
    ({"slurm": {"mail_type": ["END", "NEVER"]}}, "slurm.mail_type.1"),
    ({"slurm": {"link": ["../x"]}}, "slurm.link.0"),
    ({"slurm": {"partition": "a\nb"}}, "slurm.partition"),
    ({"logging": {"log_level": "LOUD"}}, "logging.log_level"),
    ({"checkpoint": {"mode": "best"}}, "checkpoint.mode"),
    ({"experiment_name": "a b"}, "experiment_name"),
    ({"experiment_name": ""}, "experiment_name"),
    ({"seed": -1}, "seed"),
    ({"tags": "word"}, "tags"),
    ({"unknown": 1}, ""),
    ({"scheduler": {"warmup_steps": 1}}, "scheduler"),
    ({"version": True}, "version"),
]


@pytest.mark.parametrize(("change", "place"), CHANGES)
def test_what_the_dataclasses_refuse_the_schema_refuses_at_the_same_place(change: dict[str, Any], place: str) -> None:
    data = with_changes(**change)
    assert not accepted(data)
    assert {".".join(map(str, problem.path)) for problem in schema_problems(data)} == {place}


GOOD_VALUES: dict[str, list[Any]] = {
    "time_limit": ["24:00:00", "2-12", "UNLIMITED", "bad", "1:99", "7-1:2:3"],
    "mem": ["1G", "1.5G", "0", "x", "12kb"],
    "gres": ["gpu", "gpu:1", "gpu:1g.10gb:2", "gpu:1g", "gpu:a:1,b:2", "gpu:,b", "none", ",", "a b"],
    "signal": ["USR1@3", "usr1", "B:TERM@10", "@3"],
    "partition": ["a", "", " ", "a\tb", "ü", " x "],
    "link": [["a"], ["a/.."], ["..a"], ["/a"], ["a/../b"], ["."], ["~"], ["a\nb"], ["//"]],
    "additional_args": [["-x"], ["x"], ["--a b"], ["-\n"], ["-"]],
    "setup": [["a\nb"], ["a\0"], [""]],
}


@pytest.mark.parametrize("key", GOOD_VALUES)
def test_formats_agree(key: str) -> None:
    for value in GOOD_VALUES[key]:
        data = with_changes(slurm={key: value})
        assert (not schema_problems(data)) == accepted(data), value


@given(
    st.dictionaries(
        st.sampled_from(["epochs", "batch_size", "learning_rate", "max_grad_norm", "precision", "max_steps", "other"]),
        st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, -0.5, "fp16", "x", "1", [], {}]),
        max_size=4,
    )
)
def test_dataclasses_and_schema_agree(training: dict[str, Any]) -> None:
    data = with_changes(training=training)
    assert (not schema_problems(data)) == accepted(data)


@settings(max_examples=200)
@given(st.sampled_from(["complete.yaml", "vision.yaml", "language.json"]), st.randoms(use_true_random=False))
def test_what_the_dataclasses_accept_of_changed_files_the_schema_accepts(name: str, chance: random.Random) -> None:
    data = mangled(read_document(DATA / name).data, chance)
    if isinstance(data, dict) and accepted(data):
        assert schema_problems(resolve_references(data, schema_defaults)[0]) == []


def test_the_schema_of_files_accepts_what_composition_resolves() -> None:
    validator = Draft202012Validator(experiment_schema(as_written=True))
    text = "extends: base.yaml\ntraining: {epochs: '${custom_params.n}'}\nscheduler: ${delete}\n"
    assert not list(validator.iter_errors(parse_text(text, "file").data))
    assert list(validator.iter_errors({"training": {}}))
    assert list(validator.iter_errors({"extends": 3}))
    partial = Draft202012Validator(experiment_schema(as_written=True, partial=True))
    assert not list(partial.iter_errors({"model": {"depth": 1}}))
    assert list(partial.iter_errors({"training": {"epohcs": 1}}))


def test_sweeps_meet_their_schema() -> None:
    text = """
    base: {experiment_name: x}
    grids:
      - name: g
        parameters: {seed: [1]}
        sampled: [{count: 1, ranges: {model.a: {low: 0, high: 1, scale: log}}}]
        conditional: [{key: a, values: [1], when: {seed: 1}}]
    """
    data = yaml.safe_load(text)
    assert not list(Draft202012Validator(sweep_schema()).iter_errors(data))
    data["grids"][0]["sampled"][0]["ranges"]["model.a"]["scale"] = "cubic"
    assert list(Draft202012Validator(sweep_schema()).iter_errors(data))
    spec = SweepSpec(base=MINIMAL, grids=[{"name": "g"}])  # type: ignore[list-item]
    assert not list(Draft202012Validator(sweep_schema()).iter_errors(spec.to_dict()))


def test_a_schema_of_the_users_own() -> None:
    schema = {"properties": {"model": {"properties": {"depth": {"type": "integer"}}, "required": ["depth"]}}}
    assert schema_problems(with_changes(model={"depth": 3}), schema) == []
    (problem,) = schema_problems(with_changes(model={"depth": "3"}), schema)
    assert problem.path == ("model", "depth")
    with pytest.raises(ConfigurationError, match="not a JSON Schema"):
        schema_problems({}, {"type": "nonsense"})
