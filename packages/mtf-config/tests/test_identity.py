"""Identity: equal for equal runs, everywhere and forever."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
from config_pythons import VERSIONS, find_python, identities, shuffled
from config_support import DATA, MINIMAL, free_keys, plain_data, with_changes
from hypothesis import given
from hypothesis import strategies as st

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
    data = [golden_data(name) for name in GOLDEN]
    assert identities(sys.executable, data, {"PYTHONHASHSEED": hash_seed}) == list(GOLDEN.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_equal_in_every_python(version: str) -> None:
    if (python := find_python(version)) is None:
        pytest.skip(f"there is no Python {version} here")
    assert identities(python, [golden_data(name) for name in GOLDEN]) == list(GOLDEN.values())


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
