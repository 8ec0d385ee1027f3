"""The status of a run that shares its task: its own receipts, and of the task only what is true of the run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_slurm.cluster.answers import TaskState
from mtf_slurm.judgement import judge
from mtf_slurm.status import AttemptEvidence, Evidence, JobEvidence, JobStatus
from mtf_utils.rundir import FinishReceipt, Outcome, StartReceipt

S = JobStatus
SLURM_STATES = [state for state in S if state not in (S.NOT_SUBMITTED, S.LOST, S.UNKNOWN)]


def attempt(outcome: Outcome | None = None, status: int | None = None, restart: int = 0) -> AttemptEvidence:
    started = StartReceipt(attempt=1, token="t", restart=restart, host="h", pid=7, job_id="7_0", started_at="then")
    if outcome is None:
        return AttemptEvidence(number=1, started=started)
    finished = FinishReceipt(attempt=1, outcome=outcome, exit_status=status, reason="why", finished_at="now")
    return AttemptEvidence(number=1, started=started, finished=finished)


OPEN, SAVED = attempt(), attempt(Outcome.PREEMPTED, 75)
FAILED, KILLED = attempt(Outcome.FAILED, 1), attempt(Outcome.FAILED, 137)
SPENT, UNQUEUED = attempt(Outcome.DO_NOT_REQUEUE, 76), attempt(Outcome.WANTS_REQUEUE, 75)


def shared(state: JobStatus | None = None, *, restarts: int | None = 0, **known: Any) -> JobEvidence:
    """The task `7_0` of the submission `t`, in which the run has the third place."""
    task = TaskState("7_0", "name", state, "", "squeue", restarts=restarts) if state else None
    return JobEvidence(**({"token": "t", "first_attempt": 1, "job_id": "7_0", "place": 2, "task": task} | known))


@pytest.mark.parametrize(
    ("job", "attempts", "status", "reason"),
    [
        (shared(S.PENDING), (), S.PENDING, ""),
        (shared(S.RUNNING), (), S.PENDING, "waits for its turn in job 7_0"),
        (shared(S.COMPLETING), (), S.PENDING, "waits for its turn"),
        (shared(S.RUNNING), (OPEN,), S.RUNNING, ""),
        (shared(S.RUNNING, restarts=None), (OPEN,), S.RUNNING, ""),
        (shared(S.RUNNING), (AttemptEvidence(number=1),), S.RUNNING, ""),
        (shared(S.SUSPENDED), (OPEN,), S.SUSPENDED, ""),
        (shared(S.RUNNING, restarts=1), (OPEN,), S.PENDING, "waits for its turn"),
        (shared(S.RUNNING, restarts=1), (SAVED,), S.PENDING, "waits for its turn in job 7_0; preempted once"),
        (shared(S.RUNNING, restarts=1), (attempt(restart=1),), S.RUNNING, ""),
        (shared(S.PENDING, restarts=1), (SAVED,), S.PENDING, "preempted once"),
        (shared(S.COMPLETED), (), S.LOST, "job 7_0 ended (COMPLETED) before its turn came"),
        (shared(S.TIMEOUT), (), S.LOST, "job 7_0 ended (TIMEOUT) before its turn came"),
        (shared(S.CANCELLED), (), S.CANCELLED, ""),
        (shared(S.COMPLETED), (OPEN,), S.UNKNOWN, "left no finish receipt"),
        (shared(S.FAILED), (OPEN,), S.UNKNOWN, "job 7_0 failed, but attempt 1 (process 7 on h) left no finish receipt"),
        (shared(S.TIMEOUT), (OPEN,), S.TIMEOUT, "the time limit was reached"),
        (shared(S.NODE_FAIL), (OPEN,), S.NODE_FAIL, "a node failed"),
        (shared(S.OUT_OF_MEMORY), (OPEN,), S.OUT_OF_MEMORY, "out of memory"),
        (shared(S.TIMEOUT), (SAVED,), S.TIMEOUT, "the state is saved"),
        (shared(S.FAILED), (SAVED,), S.PREEMPTED, "Slurm has not queued the job again"),
        (shared(S.FAILED, settled=True), (UNQUEUED,), S.PREEMPTED, "why"),
        (shared(S.OUT_OF_MEMORY, settled=True), (KILLED,), S.OUT_OF_MEMORY, "out of memory"),
        (shared(S.OUT_OF_MEMORY, settled=True), (FAILED,), S.FAILED, "why"),
        (shared(S.RUNNING, settled=True), (), S.CANCELLED, "cancelled before its turn came"),
        (shared(unforgettable=True), (), S.LOST, "it never started"),
        (shared(), (OPEN,), S.UNKNOWN, "Slurm has forgotten job 7_0"),
        (shared(unseen="down"), (OPEN,), S.UNKNOWN, "Slurm cannot be asked (down)"),
        (shared(unseen="down", settled=True), (FAILED,), S.FAILED, "why"),
    ],
)
def test_what_is_said(job: JobEvidence, attempts: tuple[AttemptEvidence, ...], status: JobStatus, reason: str) -> None:
    verdict = judge(Evidence(attempts=attempts, job=job))
    assert verdict.status is status
    assert reason in verdict.reason
    assert verdict.may_change is (status.is_active or bool(job.unseen and not job.settled))


@given(st.sampled_from(SLURM_STATES), st.sampled_from([FAILED, KILLED, SPENT]), st.sampled_from(["", "down"]))
def test_whatever_becomes_of_the_task_a_run_that_failed_has_failed(
    state: JobStatus, last: AttemptEvidence, unseen: str
) -> None:
    job = shared(state, settled=True, unseen=unseen)
    verdict = judge(Evidence(attempts=(last,), job=job))
    told = state is S.OUT_OF_MEMORY and last is KILLED and not unseen
    assert verdict.status is (S.OUT_OF_MEMORY if told else S.FAILED)
    assert not verdict.may_change
    assert not job.is_active
    assert not job.may_be_active


@given(st.sampled_from(SLURM_STATES), st.sampled_from([(), (OPEN,), (SAVED,), (FAILED,), (SAVED, OPEN)]))
def test_no_end_of_the_task_is_a_success_or_a_failure_of_the_run(
    state: JobStatus, attempts: tuple[AttemptEvidence, ...]
) -> None:
    settled = bool(attempts) and attempts[-1] is FAILED
    verdict = judge(Evidence(attempts=attempts, job=shared(state, settled=settled)))
    assert verdict.status is not S.COMPLETED
    assert (verdict.status is S.FAILED) is settled


@given(st.sampled_from(SLURM_STATES))
def test_receipts_that_run_ahead_of_the_task_are_no_reason_to_ask_slurm_again(state: JobStatus) -> None:
    assert not Evidence(attempts=(FAILED,), job=shared(state, settled=True)).is_ahead
    alone = shared(state, place=None)
    assert Evidence(attempts=(FAILED,), job=alone).is_ahead is (state in (S.RUNNING, S.COMPLETING))
