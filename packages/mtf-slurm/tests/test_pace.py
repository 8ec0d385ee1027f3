"""How fast a run goes, from its journal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_slurm.pace import Goal, Pace, duration, pace_of, took_s
from mtf_slurm.status import AttemptEvidence, JobStatus
from mtf_slurm.views import RunView, left_of_all
from mtf_utils.rundir import FinishReceipt, GoalFile, Outcome, RunDirectory, StartReceipt

T0 = 1_800_000_000


def started(at: float = T0) -> StartReceipt:
    moment = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return StartReceipt(attempt=1, token="t", host="h", pid=1, started_at=moment)


def train(step: int, at: float, epoch: int = 0) -> dict[str, Any]:
    return {"event": "train", "epoch": epoch, "step": step, "loss": 1.0, "time": T0 + at}


def test_a_run_of_known_length_is_over_when_its_steps_are_taken() -> None:
    pace = pace_of([train(10, 5), train(30, 15)], Goal(max_steps=100), started())
    assert pace == Pace(steps_per_s=2.0, total_steps=100, began_at=T0, ends_at=T0 + 50)
    assert pace.left_s(T0 + 20) == 30
    assert pace.left_s(T0 + 99) == 0


def test_an_epoch_that_is_over_tells_how_long_all_are() -> None:
    epochs = [train(6, 3), train(12, 6) | {"event": "epoch"}, train(18, 9, 1), train(24, 12, 1) | {"event": "epoch"}]
    assert pace_of(epochs[:1], Goal(epochs=5), started()).total_steps is None
    assert pace_of(epochs[:2], Goal(epochs=5), started()).total_steps == 60
    assert pace_of(epochs, Goal(epochs=5), started()) == Pace(
        steps_per_s=2.0, total_steps=60, began_at=T0, ends_at=T0 + 30
    )
    assert pace_of(epochs, Goal(epochs=5, max_steps=50), started()).ends_at == T0 + 25


def test_what_lies_before_a_restart_is_in_no_rate() -> None:
    records = [train(10, -3600), train(20, -3590), train(30, 10), train(40, 20)]
    assert pace_of(records, Goal(max_steps=60), started()) == Pace(
        steps_per_s=1.0, total_steps=60, began_at=T0, ends_at=T0 + 40
    )
    assert pace_of(records[:3], Goal(max_steps=60), started()) == Pace(total_steps=60)
    assert pace_of(records, Goal(max_steps=60), None) == Pace(total_steps=60)  # it is not at work


VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([10**9, 10**400, 1e300, 1e-300]),
    st.floats(allow_nan=True),
    st.just("epoch"),
)
RECORD = st.dictionaries(st.sampled_from(["event", "epoch", "step", "global_step", "time"]), VALUE)


@given(records=st.lists(RECORD, max_size=8), epochs=st.one_of(st.none(), st.integers(1, 9)))
def test_whatever_a_script_writes_is_no_error(records: list[dict[str, Any]], epochs: int | None) -> None:
    pace = pace_of(records, Goal(epochs=epochs), started(0))
    assert pace.steps_per_s is None or pace.steps_per_s > 0
    left_s = pace.left_s(0)
    assert left_s is None or duration(left_s)


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("{}", Goal()),
        ("nonsense", Goal()),
        ("[]", Goal()),
        ('{"training": {"epochs": "x", "max_steps": true}, "checkpoint": {"monitor": 3}}', Goal()),
        (json.dumps({"training": {"epochs": 3}, "checkpoint": {"monitor": "acc"}}), Goal(epochs=3, monitor="acc")),
    ],
)
def test_the_goal_is_that_of_the_configuration(tmp_path: Path, text: str, goal: Goal) -> None:
    run = RunDirectory(tmp_path)
    assert Goal.of(run) == Goal()  # not planned yet
    run.config_json.write_text(text)
    assert Goal.of(run) == goal


def test_what_the_trainer_says_of_the_goal_counts(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.config_json.write_text('{"training": {"epochs": 3, "max_steps": 99}}')
    GoalFile(epochs=4, total_steps=80).write(run.goal_file)
    goal = Goal.of(run)
    assert (goal.epochs, goal.total_steps) == (4, 80)
    # known in the first epoch already
    assert pace_of([train(10, 5), train(30, 15)], goal, started()).ends_at == T0 + 40
    GoalFile(epochs=4).write(run.goal_file)  # streamed data
    assert pace_of([train(10, 5)], Goal.of(run), started()).total_steps == 99


def running(began: float, left_s: float | None) -> RunView:
    pace = Pace() if left_s is None else Pace(began_at=T0 + began, ends_at=T0 + 100 + left_s)
    return RunView(name="r", status=JobStatus.RUNNING, pace=pace)


PENDING = RunView(name="p", status=JobStatus.PENDING)
DONE = RunView(name="d", status=JobStatus.COMPLETED, took_s=60.0)


@pytest.mark.parametrize(
    ("runs", "left_s"),
    [
        ([], None),
        ([DONE], None),
        ([PENDING, PENDING], None),  # nothing is at work
        ([running(0, 20)], 20),
        ([running(0, 20), running(0, None), PENDING], None),  # one has not told yet
        ([running(0, 20), PENDING], 20 + 120),  # like the one at work, which takes 120
        ([running(80, 40), running(80, 20), PENDING, PENDING, DONE], (40 + 20 + 2 * (60 + 60 + 40) / 3) / 2),
        ([running(0, 900), running(80, 10), PENDING, DONE], 900),  # the longest decides
    ],
)
def test_how_long_all_take(runs: list[RunView], left_s: float | None) -> None:
    assert left_of_all(runs, T0 + 100) == pytest.approx(left_s)


def test_how_long_attempts_took() -> None:
    start, killed = started(), started(T0 + 500)
    end = FinishReceipt(attempt=1, outcome=Outcome.PREEMPTED, finished_at="2027-01-15T08:01:30Z")
    odd = FinishReceipt(attempt=1, outcome=Outcome.FINISHED, finished_at="noon")
    attempts = [
        AttemptEvidence(number=1, started=start, finished=end),
        AttemptEvidence(number=2, started=killed),
        AttemptEvidence(number=3, started=killed, finished=odd),
        AttemptEvidence(number=4),
    ]
    assert start.started_at == "2027-01-15T08:00:00Z"
    assert took_s(attempts) == 90


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (-3, "0:00"), (64.6, "1:05"), (7200, "2:00:00"), (3 * 86400 + 61, "3 d 0:01:01")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
