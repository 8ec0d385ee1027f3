"""What an experiment declares and the trainer reads is the same setting on both sides: type, default, limits."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import pytest

from mtf_config import ExperimentConfig, TrainingConfig
from mtf_trainer import GenericTrainerConfig
from mtf_trainer.config import BUILDER_KEYS, TOP_LEVEL_KEYS, TRAINING_KEYS


def described(owner: type, key: str) -> dict[str, Any]:
    [field] = [field for field in dataclasses.fields(owner) if field.name == key]
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    metadata = {name: value for name, value in field.metadata.items() if name != "doc"}
    return {"type": typing.get_type_hints(owner)[key], "default": default} | metadata


@pytest.mark.parametrize("key", TRAINING_KEYS)
def test_a_key_of_training_means_the_same_to_both(key: str) -> None:
    assert described(TrainingConfig, key) == described(GenericTrainerConfig, key)


@pytest.mark.parametrize("key", TOP_LEVEL_KEYS)
def test_a_key_at_the_top_means_the_same_to_both(key: str) -> None:
    assert described(ExperimentConfig, key) == described(GenericTrainerConfig, key)


def test_every_key_of_training_has_a_reader() -> None:
    declared = {field.name for field in dataclasses.fields(TrainingConfig)}
    assert declared == {*TRAINING_KEYS, *BUILDER_KEYS}
