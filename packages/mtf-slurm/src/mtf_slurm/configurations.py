"""The configuration of a run as it lies in its folder, and whether it is still the one that was planned."""

from __future__ import annotations

import json

from mtf_config import ExperimentConfig, run_identity
from mtf_utils.rundir import RunDirectory

__all__ = ["objection", "read_experiment"]


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
