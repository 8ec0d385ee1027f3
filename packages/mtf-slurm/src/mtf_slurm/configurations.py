"""The configuration of a run as it lies in its folder, and whether it is still the one that was planned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mtf_config import ExperimentConfig, run_identity
from mtf_config.identity import IDENTITY_FIELDS
from mtf_slurm.wording import shown
from mtf_utils.rundir import RunDirectory

__all__ = ["differences", "objection", "read_experiment", "taken_by"]

_KEYS_NAMED: Final = 3
_EMPTY: Final[tuple[Any, ...]] = (None, [], {})  # of a section that is not given, and one with nothing in it


def read_experiment(run: RunDirectory) -> ExperimentConfig:
    """The experiment in a run's `config.json`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no experiment.
    """
    return ExperimentConfig.from_dict(json.loads(run.config_json.read_text("utf-8")))


def objection(run: RunDirectory, identity: str) -> str:
    """Why a run must not be started with the `config.json` that is there; empty if it is the run that was planned."""
    file = run.config_json
    try:
        found = run_identity(read_experiment(run))
    except OSError as error:
        trouble = f"{file} cannot be read ({error.strerror})"
    except ValueError as error:
        trouble = f"{file} holds no experiment ({str(error).splitlines()[0]})"
    else:
        if found == identity:
            return ""
        trouble = f"{file} has other settings than the run that was planned"
    return f"{trouble}; restore the file, or plan the sweep again from its description, which writes it anew"


def taken_by(run: RunDirectory, config: ExperimentConfig) -> str:
    """That the folder of a run belongs to another experiment than this one, and in what they differ."""
    trouble = f"{run.path} belongs to a run with other settings"
    try:
        there = read_experiment(run).to_dict()
    except (OSError, ValueError):
        return trouble
    here = config.to_dict()
    found = differences(
        {key: there.get(key) for key in IDENTITY_FIELDS}, {key: here.get(key) for key in IDENTITY_FIELDS}
    )
    return f"{trouble}: {found}" if found else trouble


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """The first few of the dotted keys in which two configurations differ, each with both values; empty without any."""
    changes = list(_differences(first, second, ""))
    more = f", and {len(changes) - _KEYS_NAMED} more" if len(changes) > _KEYS_NAMED else ""
    return f"{', '.join(changes[:_KEYS_NAMED])}{more}"


def _differences(first: Any, second: Any, path: str) -> Iterator[str]:
    if first in _EMPTY and second in _EMPTY:
        return
    if isinstance(first, dict | None) and isinstance(second, dict | None):
        left, right = first or {}, second or {}
        for key in {**left, **right}:
            inner = f"{path}.{key}" if path else str(key)
            yield from _differences(left.get(key), right.get(key), inner)
    elif type(first) is not type(second) or first != second:
        yield f"{path} ({shown(first)} and {shown(second)})"
