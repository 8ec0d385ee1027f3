"""What ended the attempts of a run, and what its budgets leave it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_slurm.cluster.answers import TaskState
from mtf_slurm.cluster.memory import grown, megabytes
from mtf_slurm.policy import Budgets, Cause, causes, held_back, used
from mtf_slurm.status import AttemptEvidence, Evidence, JobEvidence, JobStatus
from mtf_utils.rundir import FinishReceipt, Outcome, StartReceipt

S = JobStatus
C = Cause


def attempt(
    number: int,
    outcome: Outcome | None = None,
    status: int | None = None,
    *,
    limit: str | None = None,
    **known: bool,
) -> AttemptEvidence:
    started = StartReceipt(attempt=number, token="t", host="h", pid=7, job_id="7", started_at="then")
    finished = None
    if outcome is not None:
        finished = FinishReceipt(
            attempt=number, outcome=outcome, exit_status=status, reason="why", limit=limit, finished_at="then"
        )
    return AttemptEvidence(number=number, started=started, finished=finished, **known)


def in_slurm(state: JobStatus, **known: Any) -> JobEvidence:
    task = TaskState("7", "name", state, "", "squeue")
    return JobEvidence(**({"token": "t", "first_attempt": 1, "job_id": "7", "task": task} | known))


SAVED, FAILED = Outcome.PREEMPTED, Outcome.FAILED


@pytest.mark.parametrize(
    ("last", "state", "cause"),
    [
        (attempt(1, SAVED, 75), None, C.PREEMPTION),
        (attempt(1, SAVED, 75, out_of_time=True), None, C.TIMEOUT),
        (attempt(1, Outcome.WANTS_REQUEUE, 75), None, C.PREEMPTION),
        (attempt(1, SAVED, 75), S.TIMEOUT, C.TIMEOUT),
        (attempt(1), S.TIMEOUT, C.TIMEOUT),
        (attempt(1), S.DEADLINE, C.TIMEOUT),
        (attempt(1), S.NODE_FAIL, C.NODE_FAILURE),
        (attempt(1), None, C.NODE_FAILURE),
        (attempt(1), S.PREEMPTED, C.PREEMPTION),
        (attempt(1), S.CANCELLED, C.NOTHING),
        (attempt(1, FAILED, 137), None, C.NODE_FAILURE),
        (attempt(1, FAILED, 137), S.OUT_OF_MEMORY, C.OUT_OF_MEMORY),
        (attempt(1, FAILED, 1), S.OUT_OF_MEMORY, C.OUT_OF_MEMORY),
        (attempt(1, FAILED, 137, starved=True), None, C.OUT_OF_MEMORY),
        (attempt(1, FAILED, 1, starved=True), S.FAILED, C.OUT_OF_MEMORY),
        (attempt(1, FAILED, 137, starved=True), S.NODE_FAIL, C.NODE_FAILURE),
        (attempt(1, FAILED, 1), S.FAILED, C.FAILURE),
        (attempt(1), S.FAILED, C.NODE_FAILURE),
        (attempt(1, Outcome.DO_NOT_REQUEUE, 76), S.TIMEOUT, C.ITSELF),
        (attempt(1, Outcome.DO_NOT_REQUEUE, 76, limit="preemption"), None, C.PREEMPTION),
        (attempt(1, Outcome.DO_NOT_REQUEUE, 76, limit="without_progress"), None, C.PREEMPTION),
        (attempt(1, Outcome.DO_NOT_REQUEUE, 76, limit="timeout", out_of_time=True), None, C.TIMEOUT),
        (attempt(1, Outcome.FINISHED, 0), None, C.NOTHING),
    ],
)
def test_what_ended_an_attempt(last: AttemptEvidence, state: JobStatus | None, cause: Cause) -> None:
    job = in_slurm(state) if state else None
    assert causes(Evidence(attempts=(last,), job=job)) == {1: cause}


def test_what_was_noted_outlives_what_slurm_remembers() -> None:
    evidence = Evidence(attempts=(attempt(1, FAILED, 137), attempt(2)), noted={1: C.OUT_OF_MEMORY})
    assert causes(evidence) == {1: C.OUT_OF_MEMORY, 2: C.NODE_FAILURE}


@pytest.mark.parametrize("alive", [True, None])
def test_what_may_be_at_work_counts_against_nothing(alive: bool | None) -> None:
    assert causes(Evidence(attempts=(attempt(1),), alive=alive)) == {1: C.NOTHING}


def test_attempts_of_another_submission_are_not_ended_by_this_job() -> None:
    job = in_slurm(S.TIMEOUT, first_attempt=2)
    assert causes(Evidence(attempts=(attempt(1, SAVED),), job=job)) == {1: C.PREEMPTION}


ends = st.sampled_from([C.PREEMPTION, C.TIMEOUT, C.NODE_FAILURE, C.FAILURE])
MADE = {
    C.PREEMPTION: lambda number: attempt(number, SAVED, 75),
    C.TIMEOUT: lambda number: attempt(number, SAVED, 75, out_of_time=True),
    C.NODE_FAILURE: attempt,
    C.FAILURE: lambda number: attempt(number, FAILED, 1),
}


@given(st.lists(ends, min_size=1, max_size=8), st.dictionaries(ends, st.none() | st.integers(0, 4)), st.data())
def test_each_budget_is_used_up_by_its_own_ends_alone(
    history: list[Cause], limits: dict[Cause, int | None], data: st.DataObject
) -> None:
    attempts = tuple(MADE[cause](number) for number, cause in enumerate(history, 1))
    since = data.draw(st.integers(1, len(history) + 1))
    evidence = Evidence(attempts=attempts, counts_from=since)
    counted = history[since - 1 :]
    assert {cause: count for cause, count in used(evidence).items() if count} == {
        cause: counted.count(cause) for cause in set(counted)
    }
    hold = held_back(evidence, Budgets(limits=limits), stalled=False)
    limit = limits.get(history[-1])
    over = bool(counted) and limit is not None and counted.count(history[-1]) > limit
    assert (hold is not None) is over
    if hold is not None:
        assert hold.cause is history[-1]
        assert str(limit) in hold.reason


def test_a_raised_limit_or_an_asking_lets_it_go_on() -> None:
    evidence = Evidence(attempts=(attempt(1, SAVED), attempt(2, Outcome.DO_NOT_REQUEUE, 76, limit="preemption")))
    one, two = Budgets(limits={C.PREEMPTION: 1}), Budgets(limits={C.PREEMPTION: 2})
    held = held_back(evidence, one, stalled=False)
    assert held is not None
    assert held.reason == "preempted 2 times, and preemption.max_preemptions is 1"
    assert held_back(evidence, two, stalled=False) is None
    assert held_back(replace(evidence, counts_from=3), one, stalled=True) is None


@pytest.mark.parametrize(
    ("last", "stalled"),
    [
        (attempt(1, SAVED), True),
        (attempt(1), True),
        (attempt(1, FAILED, 137), True),
        (attempt(1, FAILED, 1), False),  # three more tries were allowed
    ],
)
def test_what_brings_nothing_is_not_repeated(last: AttemptEvidence, stalled: bool) -> None:
    hold = held_back(Evidence(attempts=(last,)), Budgets(limits={C.FAILURE: 3}), stalled=True)
    assert (hold is not None and hold.cause is C.PROGRESS) is stalled


amounts = st.builds(str.__add__, st.integers(1, 10**6).map(str), st.sampled_from(["", "K", "M", "G", "g", "MB", "T"]))


@given(amounts, st.floats(1, 4), st.none() | amounts)
def test_memory_grows_up_to_its_bound_and_never_shrinks(amount: str, growth: float, most: str | None) -> None:
    more = grown(amount, Budgets(memory_growth=growth, max_memory=most))
    before, after = megabytes(amount), megabytes(more)
    assert after >= before
    if most is not None and after > before:
        assert after < megabytes(most) + 1
    if most is None:
        assert before * growth <= after + 1e-6
        assert after < before * growth + 1


def test_memory_as_people_write_it() -> None:
    assert [megabytes(text) for text in ("2G", "900", "900MB", "1t", "512K")] == [2048, 900, 900, 1024**2, 0.5]
    assert grown("4G", Budgets(memory_growth=1.5)) == "6144M"
    assert grown("4G", Budgets(max_memory="4G")) == "4G"
    with pytest.raises(ValueError, match="much"):
        megabytes("much")
