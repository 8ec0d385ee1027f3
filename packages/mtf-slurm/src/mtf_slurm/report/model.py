"""What a report shows, as typed plain data; `to_dict` is what the page reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["CodeView", "Curve", "Report", "RunRow", "Span"]


@dataclass(frozen=True)
class Curve:
    """One metric of one run, over its steps.

    Attributes:
        steps: optimizer steps, ascending.
        epochs: the epoch of each point, counted from 1; -1 where none was recorded.
        values: as many; None stands for NaN.
    """

    steps: Sequence[int]
    epochs: Sequence[int]
    values: Sequence[float | None]

    def to_list(self) -> list[Any]:
        """Three lists, steps and epochs as differences: they are short then."""
        return [_differences(self.steps), _differences(self.epochs), list(self.values)]


@dataclass(frozen=True, kw_only=True)
class Span:
    """One attempt, on the clock.

    Attributes:
        attempt: its number.
        start_s: seconds since 1970.
        end_s: the same; None while it is at work, or if nobody knows.
        outcome: of its receipt, or `running`, or `no receipt`.
        host: where it ran.
    """

    attempt: int
    start_s: int
    end_s: int | None
    outcome: str
    host: str


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run.

    Attributes:
        name: of the experiment.
        state: its status.
        grid: where it comes from.
        parameters: what its grid says.
        metrics: its last values; one that is no number of JSON by its name, such as `NaN`.
        best: the best value of the monitored metric; None without one.
        epoch: epochs completed.
        step: optimizer steps taken.
        attempts: how many were started.
        job_id: of its last submission.
        reason: why it is in its state, where there is something to say.
        code: which of the report's codes it runs; None if that is not known.
        spans: its attempts, of which there may be fewer than counted: some leave no time.
        curves: metric → curve; empty where the report leaves curves out.
    """

    name: str
    state: str
    grid: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float | str]
    best: float | None
    epoch: int | None
    step: int | None
    attempts: int
    job_id: str | None
    reason: str
    code: int | None = None
    spans: Sequence[Span] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CodeView:
    """Code that runs of the sweep run.

    Attributes:
        facts: label → text, in the order to be shown.
        diff: how it differs from its commit, perhaps cut; empty if it does not, or nothing is known.
        runs: how many runs have it.
    """

    facts: Mapping[str, str]
    diff: str
    runs: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report shows.

    Attributes:
        name: of the sweep.
        output_dir: its folder.
        mode: how it was last submitted; empty if it never was.
        created_at: of the sweep, UTC.
        made_at: of the report, UTC.
        made_s: the same in seconds since 1970.
        metric: what runs are ranked by; empty if no run has any.
        goal: whether its smallest or largest value is the best.
        runs: in the order of the sweep.
        codes: the code they run.
        environment: label → text.
        config: the whole configuration of one run, as YAML.
        config_of: the name of that run.
        remarks: what a reader should know about the report itself.
    """

    name: str
    output_dir: str
    mode: str
    created_at: str
    made_at: str
    made_s: int
    metric: str
    goal: Literal["min", "max"]
    runs: Sequence[RunRow]
    codes: Sequence[CodeView]
    environment: Mapping[str, str]
    config: str
    config_of: str
    remarks: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """As the page reads it: a list for each property of the runs, words that repeat by their numbers."""
        simple = {key: getattr(self, key) for key in _SIMPLE}
        states, grids = _Words(), _Words()
        outcomes, hosts = _Words(), _Words()
        spans = [
            [place, span.attempt, span.start_s, span.end_s, outcomes[span.outcome], hosts[span.host]]
            for place, run in enumerate(self.runs)
            for span in run.spans
        ]
        runs = {
            "name": [run.name for run in self.runs],
            "state": [states[run.state] for run in self.runs],
            "grid": [grids[run.grid] for run in self.runs],
            "best": [run.best for run in self.runs],
            "epoch": [run.epoch for run in self.runs],
            "step": [run.step for run in self.runs],
            "attempts": [run.attempts for run in self.runs],
            "job": [run.job_id for run in self.runs],
            "code": [run.code for run in self.runs],
            "parameters": _columns([run.parameters for run in self.runs]),
            "metrics": _columns([run.metrics for run in self.runs]),
        }
        return simple | {
            "runs": runs,
            "reasons": {place: run.reason for place, run in enumerate(self.runs) if run.reason},
            "states": list(states),
            "grids": list(grids),
            "spans": spans,
            "outcomes": list(outcomes),
            "hosts": list(hosts),
            "curves": {
                place: {name: curve.to_list() for name, curve in run.curves.items()}
                for place, run in enumerate(self.runs)
                if run.curves
            },
            "codes": [dataclasses.asdict(code) for code in self.codes],
        }


_SIMPLE = (
    "name",
    "output_dir",
    "mode",
    "created_at",
    "made_at",
    "made_s",
    "metric",
    "goal",
    "environment",
    "config",
    "config_of",
    "remarks",
)


class _Words(dict[str, int]):
    """Numbers words in the order of their appearance."""

    def __missing__(self, word: str) -> int:
        self[word] = len(self)
        return self[word]


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _differences(numbers: Sequence[int]) -> list[int]:
    return [number - before for before, number in zip([0, *numbers], numbers, strict=False)]
