"""Evidence in, status out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_slurm.decisions import MAX_STALLED, Step, decide
from mtf_slurm.status import AttemptEvidence, Evidence, JobStatus, judge
from mtf_utils.rundir import FinishReceipt, Outcome, StartReceipt

STARTED = StartReceipt(attempt=1, token="t", host="h", pid=7, started_at="2026-01-01T00:00:00Z")


def finished(outcome: Outcome, status: int | None = None, *, number: int = 1) -> AttemptEvidence:
    receipt = FinishReceipt(attempt=number, outcome=outcome, exit_status=status, reason="why", finished_at="now")
    return AttemptEvidence(number=number, started=STARTED, finished=receipt)


OPEN = AttemptEvidence(number=1, started=STARTED)
CLAIMED = AttemptEvidence(number=1)
S = JobStatus


@pytest.mark.parametrize(
    ("evidence", "status"),
    [
        (Evidence(), S.NOT_SUBMITTED),
        (Evidence(queued=True), S.PENDING),
        (Evidence(queued=True, cancelled=True), S.CANCELLED),
        (Evidence(queued=True, given_up="no bash"), S.NOT_SUBMITTED),
        (Evidence(attempts=(OPEN,), alive=True), S.RUNNING),
        (Evidence(attempts=(OPEN,), alive=True, cancelled=True), S.RUNNING),
        (Evidence(attempts=(OPEN,), alive=False), S.LOST),
        (Evidence(attempts=(OPEN,), alive=None), S.UNKNOWN),
        (Evidence(attempts=(OPEN,), alive=None, queued=True), S.UNKNOWN),
        (Evidence(attempts=(OPEN,), alive=False, queued=True), S.PENDING),
        (Evidence(attempts=(OPEN,), alive=False, queued=True, given_up="stalled"), S.LOST),
        (Evidence(attempts=(OPEN,), alive=False, cancelled=True), S.CANCELLED),
        (Evidence(attempts=(CLAIMED,), alive=None), S.UNKNOWN),
        (Evidence(attempts=(CLAIMED,), alive=False), S.LOST),
        (Evidence(attempts=(finished(Outcome.FINISHED),)), S.COMPLETED),
        (Evidence(attempts=(finished(Outcome.FINISHED), OPEN), alive=False), S.COMPLETED),
        (Evidence(attempts=(finished(Outcome.FINISHED),), cancelled=True), S.COMPLETED),
        (Evidence(attempts=(finished(Outcome.FAILED, 1),)), S.FAILED),
        (Evidence(attempts=(finished(Outcome.FAILED, 1),), queued=True), S.FAILED),
        (Evidence(attempts=(finished(Outcome.FAILED, 137),), queued=True), S.PENDING),
        (Evidence(attempts=(finished(Outcome.FAILED, 137),)), S.FAILED),
        (Evidence(attempts=(finished(Outcome.PREEMPTED, 75),)), S.PREEMPTED),
        (Evidence(attempts=(finished(Outcome.PREEMPTED, 75),), queued=True), S.PENDING),
        (Evidence(attempts=(finished(Outcome.PREEMPTED, 75),), cancelled=True), S.CANCELLED),
        (Evidence(attempts=(finished(Outcome.WANTS_REQUEUE),)), S.PREEMPTED),
        (Evidence(attempts=(finished(Outcome.DO_NOT_REQUEUE, 76),), queued=True), S.FAILED),
    ],
)
def test_judge(evidence: Evidence, status: JobStatus) -> None:
    assert judge(evidence).status is status


attempts = st.one_of(
    st.just(CLAIMED),
    st.just(OPEN),
    st.builds(finished, st.sampled_from(Outcome), st.sampled_from([None, 0, 1, 75, 137])),
)
evidences = st.builds(
    Evidence,
    attempts=st.lists(attempts, max_size=4).map(tuple),
    alive=st.sampled_from([True, False, None]),
    queued=st.booleans(),
    cancelled=st.booleans(),
    given_up=st.sampled_from(["", "why"]),
)


@given(evidences)
def test_success_and_failure_need_a_receipt(evidence: Evidence) -> None:
    status = judge(evidence).status
    outcomes = [attempt.finished.outcome for attempt in evidence.attempts if attempt.finished]
    if status is S.COMPLETED:
        assert Outcome.FINISHED in outcomes
    if status is S.FAILED:
        assert evidence.last is not None
        assert evidence.last.finished is not None
        assert evidence.last.finished.outcome in (Outcome.FAILED, Outcome.DO_NOT_REQUEUE)
    if status is S.RUNNING:
        assert evidence.alive


@given(evidences, st.integers(0, 4), st.integers(0, 4), st.none() | st.integers(0, 3))
def test_nothing_is_started_that_is_over_or_may_be_at_work(
    evidence: Evidence, known: int, stalled: int, limit: int | None
) -> None:
    step = decide(evidence, known=known, stalled=stalled, max_preemptions=limit).step
    if evidence.is_finished:
        assert step is Step.DONE
    last = evidence.last
    if step is Step.START:
        assert not evidence.cancelled
        assert last is None or last.finished is not None or evidence.alive is False
        assert last is None or last.finished is None or last.finished.outcome is not Outcome.DO_NOT_REQUEUE
    if step is Step.ADOPT:
        assert evidence.alive


@pytest.mark.parametrize(
    ("evidence", "arguments", "step"),
    [
        (Evidence(), {}, Step.START),
        (Evidence(attempts=(OPEN,), alive=True), {}, Step.ADOPT),
        (Evidence(attempts=(OPEN,), alive=False), {}, Step.START),
        (Evidence(attempts=(OPEN,), alive=False), {"stalled": MAX_STALLED}, Step.GIVE_UP),
        (Evidence(attempts=(OPEN,), alive=None), {}, Step.GIVE_UP),
        (Evidence(attempts=(CLAIMED,), alive=None), {}, Step.LOOK_AGAIN),
        (Evidence(attempts=(finished(Outcome.FAILED, 1),)), {"known": 1}, Step.START),
        (Evidence(attempts=(finished(Outcome.FAILED, 1),)), {"known": 0}, Step.DONE),
        (Evidence(attempts=(finished(Outcome.FAILED, 137),)), {"known": 0}, Step.START),
        (Evidence(attempts=(finished(Outcome.PREEMPTED),)), {}, Step.START),
        (Evidence(attempts=(finished(Outcome.PREEMPTED),)), {"max_preemptions": 0}, Step.GIVE_UP),
        (Evidence(attempts=(finished(Outcome.PREEMPTED),)), {"max_preemptions": 1}, Step.START),
        (Evidence(attempts=(finished(Outcome.DO_NOT_REQUEUE),)), {"known": 1}, Step.DONE),
    ],
)
def test_decide(evidence: Evidence, arguments: dict[str, int], step: Step) -> None:
    settings: dict[str, int | None] = {"known": 0, "stalled": 0, "max_preemptions": None}
    assert decide(evidence, **(settings | arguments)).step is step  # type: ignore[arg-type]


def test_statuses_are_strings_as_slurm_writes_them() -> None:
    assert JobStatus("OUT_OF_MEMORY") == "OUT_OF_MEMORY"
    assert f"{JobStatus.RUNNING}" == "RUNNING"
    assert isinstance(JobStatus.LOST, str)
