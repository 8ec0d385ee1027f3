"""The shared sections: every default is valid, every field is documented, slips are caught."""

from __future__ import annotations

import dataclasses

import pytest

from mtf_utils import (
    CheckpointConfig,
    DistributedConfig,
    LoggingConfig,
    PerformanceConfig,
    PreemptionConfig,
    Settings,
    SettingsError,
)

SECTIONS = [CheckpointConfig, DistributedConfig, LoggingConfig, PerformanceConfig, PreemptionConfig]


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_are_valid_and_come_back(section: type[Settings]) -> None:
    assert section.from_dict(section().to_dict()) == section()


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_says_what_it_is_for(section: type[Settings]) -> None:
    for field in dataclasses.fields(section):
        assert field.metadata["doc"].endswith(".")


@pytest.mark.parametrize(
    ("section", "data", "path"),
    [
        (LoggingConfig, {"log_level": "info"}, "log_level"),
        (LoggingConfig, {"log_every_n_steps": 0}, "log_every_n_steps"),
        (CheckpointConfig, {"mode": "most"}, "mode"),
        (CheckpointConfig, {"save_every_n_minutes": 0}, "save_every_n_minutes"),
        (CheckpointConfig, {"save_top_k": -1}, "save_top_k"),
        (PerformanceConfig, {"prefetch_factor": 0}, "prefetch_factor"),
        (DistributedConfig, {"strategy": "dp"}, "strategy"),
        (DistributedConfig, {"timeout_minutes": 0}, "timeout_minutes"),
        (PreemptionConfig, {"max_preemptions": -1}, "max_preemptions"),
        (PreemptionConfig, {"signals": ["SIGTERM", "SIGKILL"]}, "signals[1]"),
    ],
)
def test_bad_values_are_refused_by_name(section: type[Settings], data: dict[str, object], path: str) -> None:
    with pytest.raises(SettingsError, match=path.replace("[", r"\[")):
        section.from_dict(data)


def test_a_signal_without_its_prefix_is_understood() -> None:
    with pytest.raises(SettingsError, match="did you mean 'SIGUSR1'"):
        PreemptionConfig(signals=["USR1"])


def test_signals_that_only_other_systems_have_can_be_declared() -> None:
    assert PreemptionConfig(signals=["SIGUSR2", "SIGXCPU"]).signals == ["SIGUSR2", "SIGXCPU"]
