"""Identity: equal for equal runs, everywhere and forever."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from config_support import DATA, MINIMAL, free_keys, plain_data, with_changes
from hypothesis import given
from hypothesis import strategies as st

import mtf_config
import mtf_utils
from mtf_config import ExperimentConfig, run_identity
from mtf_config.identity import canonical_form
from mtf_config.reader import read_document

# These values are kept by every later release: run directories of users are found again by them.
GOLDEN = {
    "minimal": "df0e9592209e26ac60231afa9255353f",
    "complete.yaml": "80572e86a34f13f0236a2e784f89d3f7",
    "vision.yaml": "9a385e178e618b4320f32b02eb6f7bff",
    "language.json": "5f8af43973457a581dccdc1a8970f694",
}


PROGRAM = (
    "import json, sys\n"
    "from mtf_config import ExperimentConfig, run_identity\n"
    "print([run_identity(ExperimentConfig.from_dict(item)) for item in json.load(sys.stdin)])\n"
)


def identity_of(data: Any) -> str:
    return run_identity(ExperimentConfig.from_dict(data))


def golden_data(name: str) -> Any:
    return MINIMAL if name == "minimal" else read_document(DATA / name).data


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name: str) -> None:
    assert identity_of(golden_data(name)) == GOLDEN[name]


def test_canonical_form_is_frozen() -> None:
    config = ExperimentConfig.from_dict(with_changes(model={"b": 1.0, "a": [0.1, {"é": None}]}, seed=3, scheduler=None))
    assert canonical_form(config) == (
        '{"data":{"dataset_name":"digits"},"model":{"a":[0.1,{"\\u00e9":null}],"b":1,"name":"mlp"},'
        '"optimizer":{"name":"adamw"},"seed":3}'
    )


@pytest.mark.parametrize("hash_seed", ["0", "1", "random"])
def test_equal_in_every_process(hash_seed: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([golden_data(name) for name in GOLDEN]),
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.strip() == str(list(GOLDEN.values()))


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_equal_in_every_python(version: str) -> None:
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no Python {version} here")
    sources = os.pathsep.join(str(Path(module.__file__).parents[1]) for module in (mtf_config, mtf_utils))
    result = subprocess.run(
        [python, "-c", PROGRAM],
        input=json.dumps([golden_data(name) for name in GOLDEN]),
        env={**os.environ, "PYTHONPATH": sources},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.strip() == str(list(GOLDEN.values()))


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, list):
        return [shuffled(item, chance) for item in value]
    if not isinstance(value, dict):
        return value
    keys = list(value)
    chance.shuffle(keys)
    return {key: shuffled(value[key], chance) for key in keys}


@given(st.dictionaries(free_keys(), plain_data(), max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(model: dict[str, Any], chance: random.Random) -> None:
    data = with_changes(model=model, custom_params=model, training={"epochs": 3, "batch_size": 4})
    assert identity_of(shuffled(data, chance)) == identity_of(data)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"training": {"learning_rate": 1}}, {"training": {"learning_rate": 1.0}}),
        ({"training": {"max_grad_norm": 2}}, {"training": {"max_grad_norm": 2.0}}),
        ({"model": {"dropout": 0}}, {"model": {"dropout": -0.0}}),
        ({"optimizer": {"betas": [0, 0.5]}}, {"optimizer": {"betas": [0.0, 0.5]}}),
        ({"training": {"epochs": 100}}, {}),
        ({"scheduler": None, "training": {}, "performance": {}, "custom_params": {}}, {}),
        ({"performance": {"num_workers": 0, "pin_memory": True}, "deterministic": True}, {}),
        ({"optimizer": {"eps": None}}, {}),
        ({"data": {"preprocessing": {}}}, {}),
        ({"model": {"a": (1, 2)}}, {"model": {"a": [1, 2]}}),
        ({"model": {"a": "${seed}"}, "seed": 4}, {"model": {"a": 4}, "seed": 4}),
        (
            {"experiment_name": "x", "description": "d", "tags": ["t"], "created_by": "me", "created_at": "now"},
            {"slurm": {"mem": "1G"}, "logging": {"use_wandb": True}, "checkpoint": {"keep_last": 7}},
        ),
    ],
)
def test_what_makes_no_other_run(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert identity_of(with_changes(**one)) == identity_of(with_changes(**other))


def test_what_makes_another_run() -> None:
    changes: list[dict[str, Any]] = [
        {}, {"model": {"a": 1}}, {"model": {"a": True}}, {"model": {"a": "1"}}, {"model": {"a": None}},
        {"model": {"a": [1]}}, {"model": {"a": {"b": 1}}}, {"model": {"b": 1}}, {"model": {"name": "cnn"}},
        {"data": {"a": 1}}, {"optimizer": {"a": 1}}, {"custom_params": {"a": 1}}, {"scheduler": {"name": "a"}},
        {"training": {"epochs": 1}}, {"training": {"precision": "bf16"}}, {"seed": 0}, {"seed": 1},
        {"deterministic": False}, {"deterministic": False, "benchmark": True}, {"performance": {"num_workers": 1}},
        {"training": {"learning_rate": 0.1}}, {"training": {"learning_rate": 0.1 + 2**-56}},
        {"model": {"a": 2**53}}, {"model": {"a": 2**53 + 1}}, {"model": {"a": 1e300}},
    ]  # fmt: skip
    identities = [identity_of(with_changes(**change)) for change in changes]
    assert len(set(identities)) == len(changes)


@given(plain_data(), plain_data())
def test_equal_exactly_when_the_values_are(one: Any, other: Any) -> None:
    def by_value(value: Any) -> str:
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if isinstance(value, dict):
            return "mapping" + str(sorted((key, by_value(item)) for key, item in value.items()))
        return str([by_value(item) for item in value]) if isinstance(value, list) else repr(value)

    equal = identity_of(with_changes(custom_params={"a": one})) == identity_of(with_changes(custom_params={"a": other}))
    assert equal == (by_value(one) == by_value(other))
