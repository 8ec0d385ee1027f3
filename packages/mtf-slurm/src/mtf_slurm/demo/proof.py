"""Compares what two runs left: metrics and result here, checkpoints by `mtf checkpoint diff`, which has torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mtf_slurm.errors import SLURMError
from mtf_utils.rundir import WALL_CLOCK_FIELDS, RunDirectory, read_metrics

__all__ = ["Part", "compare_runs"]


@dataclass(frozen=True)
class Part:
    """One thing that was compared.

    Attributes:
        what: it is.
        difference: the first one found; empty if there is none.
    """

    what: str
    difference: str = ""


def compare_runs(ours: RunDirectory, theirs: RunDirectory) -> Iterator[Part]:
    """What two runs ended with: the final checkpoint, every record of metrics, and the result.

    Raises:
        SLURMError: a run has no result, or the checkpoints cannot be compared.
    """
    first, second = _result(ours), _result(theirs)
    yield Part("weights, optimizer, scheduler, random streams", _checkpoints(ours, first, theirs, second))
    yield Part("every record of metrics.jsonl", _first_change(_journal(ours), _journal(theirs)))
    same = [{key: value for key, value in result.items() if key not in _OF_THE_MOMENT} for result in (first, second)]
    yield Part("result.json", _first_change([same[0]], [same[1]]))


_OF_THE_MOMENT = ("finished_at", "checkpoint")
"""What two runs cannot have in common: the time, and the number of the checkpoint, which counts the saves."""


_STATE = ("model", "optimizer", "training.rng", "training.engine.scheduler")
"""What training goes on from; beside that a checkpoint has times and counts of attempts."""


def _result(run: RunDirectory) -> dict[str, Any]:
    result = run.result()
    if result is None:
        raise SLURMError(f"{run.path} has no result")
    return result.to_dict()


def _checkpoints(ours: RunDirectory, first: dict[str, Any], theirs: RunDirectory, second: dict[str, Any]) -> str:
    paths = [str(run.path / result["checkpoint"]) for run, result in ((ours, first), (theirs, second))]
    command = [sys.executable, "-m", "mtf_utils", "checkpoint", "diff", "--json", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SLURMError(f"the checkpoints cannot be compared: {done.stderr.strip()}")
    every = json.loads(done.stdout)["data"]["differences"]
    found = [difference for difference in every if difference["place"].startswith(_STATE)]
    return f"{found[0]['place']}: {found[0]['text']}" if found else ""


def _journal(run: RunDirectory) -> list[dict[str, Any]]:
    every = read_metrics(run.metrics_file)
    return [{key: value for key, value in record.items() if key not in WALL_CLOCK_FIELDS} for record in every]


def _first_change(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    for number, (one, two) in enumerate(zip(ours, theirs, strict=False), 1):
        for key in {**one, **two}:
            if one.get(key) != two.get(key):
                return f"record {number}: {key} {one.get(key)!r} and {two.get(key)!r}"
    return "" if len(ours) == len(theirs) else f"{len(ours)} records and {len(theirs)}"
