"""Evidence in, status out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_slurm.cluster.answers import TaskState
from mtf_slurm.decisions import Step, decide, due
from mtf_slurm.judgement import judge
from mtf_slurm.policy import Budgets, Cause, Hold, held_back
from mtf_slurm.status import AttemptEvidence, Evidence, JobEvidence, JobStatus
from mtf_utils.rundir import FinishReceipt, Outcome, StartReceipt

STARTED = StartReceipt(attempt=1, token="t", host="h", pid=7, started_at="2026-01-01T00:00:00Z")


def finished(
    outcome: Outcome, status: int | None = None, *, number: int = 1, limit: str | None = None
) -> AttemptEvidence:
    receipt = FinishReceipt(
        attempt=number, outcome=outcome, exit_status=status, reason="why", finished_at="now", limit=limit
    )
    return AttemptEvidence(number=number, started=STARTED, finished=receipt)


OPEN = AttemptEvidence(number=1, started=STARTED)
CLAIMED = AttemptEvidence(number=1)
STARVED = replace(finished(Outcome.FAILED, 137), starved=True, peak_memory="up to 9M in use")
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
        (Evidence(attempts=(STARVED,), queued=True), S.OUT_OF_MEMORY),
        (Evidence(attempts=(STARVED,), cancelled=True), S.CANCELLED),
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


limits = st.dictionaries(
    st.sampled_from([Cause.PREEMPTION, Cause.TIMEOUT, Cause.NODE_FAILURE, Cause.FAILURE]), st.none() | st.integers(0, 3)
)


def hold(evidence: Evidence, *, stalled: bool = False, **most: int | None) -> Hold | None:
    """What holds a run back, with the usual budgets but for those given."""
    usual: dict[Cause, int | None] = {Cause.FAILURE: 0, Cause.OUT_OF_MEMORY: 0}
    budgets = Budgets(limits=usual | {Cause(name): limit for name, limit in most.items()})
    return held_back(evidence, budgets, stalled=stalled)


@given(evidences, limits, st.booleans())
def test_nothing_is_started_that_is_over_or_may_be_at_work(
    evidence: Evidence, limits: dict[Cause, int | None], stalled: bool
) -> None:
    step = decide(evidence, held_back(evidence, Budgets(limits=limits), stalled=stalled)).step
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
        (Evidence(attempts=(OPEN,), alive=False), {"stalled": True}, Step.HOLD),
        (Evidence(attempts=(OPEN,), alive=False), {"node_failure": 0}, Step.HOLD),
        (Evidence(attempts=(OPEN,), alive=None), {}, Step.GIVE_UP),
        (Evidence(attempts=(CLAIMED,), alive=None), {}, Step.LOOK_AGAIN),
        (Evidence(attempts=(finished(Outcome.FAILED, 1),)), {}, Step.HOLD),
        (Evidence(attempts=(finished(Outcome.FAILED, 1),)), {"failure": 1}, Step.START),
        (Evidence(attempts=(finished(Outcome.FAILED, 1),)), {"failure": None, "stalled": True}, Step.HOLD),
        (Evidence(attempts=(finished(Outcome.FAILED, 1),), counts_from=2), {}, Step.START),
        (Evidence(attempts=(finished(Outcome.FAILED, 137),)), {}, Step.START),
        (Evidence(attempts=(finished(Outcome.PREEMPTED),)), {}, Step.START),
        (Evidence(attempts=(finished(Outcome.PREEMPTED),)), {"preemption": 0}, Step.HOLD),
        (Evidence(attempts=(finished(Outcome.PREEMPTED),)), {"preemption": 1}, Step.START),
        (Evidence(attempts=(finished(Outcome.DO_NOT_REQUEUE),)), {}, Step.HOLD),
        (Evidence(attempts=(finished(Outcome.DO_NOT_REQUEUE),), counts_from=2), {}, Step.START),
    ],
)
def test_decide(evidence: Evidence, arguments: dict[str, Any], step: Step) -> None:
    assert decide(evidence, hold(evidence, **arguments)).step is step


def in_slurm(state: JobStatus | None = None, *, source: Any = "squeue", **known: Any) -> JobEvidence:
    """A job of the submission `t`; what Slurm says of it, and what else is known."""
    told = ("reason", "exit_status", "signal", "memory", "peak_memory", "time_limit")
    details = {key: known.pop(key) for key in told if key in known}
    task = TaskState("7", "name", state, details.pop("reason", ""), source, **details) if state else None
    return JobEvidence(**({"token": "t", "first_attempt": 1, "job_id": "7", "task": task} | known))


SAVED = finished(Outcome.PREEMPTED, 75)
LIMITED = finished(Outcome.DO_NOT_REQUEUE, 76, limit="preemption")
NEVER_RAN = finished(Outcome.DO_NOT_REQUEUE, None, limit="preemption")
FAILED = finished(Outcome.FAILED, 1)
KILLED = finished(Outcome.FAILED, 137)
FOREIGN = AttemptEvidence(
    number=1, started=StartReceipt(attempt=1, token="by-hand", host="h", pid=7, started_at="then")
)


@pytest.mark.parametrize(
    ("job", "attempts", "status", "reason", "step"),
    [
        (in_slurm(S.PENDING, reason="Priority"), (), S.PENDING, "Priority", Step.ADOPT),
        (in_slurm(S.RUNNING), (OPEN,), S.RUNNING, "", Step.ADOPT),
        (in_slurm(S.RUNNING), (FAILED,), S.RUNNING, "", Step.ADOPT),
        (in_slurm(S.PENDING, reason="BeginTime"), (SAVED, SAVED), S.PENDING, "Time; preempted 2 times", Step.ADOPT),
        (in_slurm(S.RUNNING), (finished(Outcome.FINISHED, 0),), S.COMPLETED, "", Step.DONE),
        (in_slurm(S.COMPLETED), (finished(Outcome.FINISHED, 0),), S.COMPLETED, "", Step.DONE),
        (in_slurm(S.COMPLETED), (OPEN,), S.UNKNOWN, "left no finish receipt", Step.START),
        (in_slurm(S.COMPLETED, output="0.out"), (), S.UNKNOWN, "no attempt was claimed; see 0.out", Step.START),
        (in_slurm(S.TIMEOUT, time_limit="1:00"), (SAVED,), S.TIMEOUT, "1:00 was reached; the state", Step.START),
        (in_slurm(S.TIMEOUT), (OPEN,), S.TIMEOUT, "the time limit was reached", Step.START),
        (in_slurm(S.OUT_OF_MEMORY, memory="4G"), (KILLED,), S.OUT_OF_MEMORY, "memory (4G asked for)", Step.HOLD),
        (
            in_slurm(S.OUT_OF_MEMORY, memory="4G", peak_memory="3.9G"),
            (KILLED,),
            S.OUT_OF_MEMORY,
            "out of memory (4G asked for, up to 3.9G in use when sampled)",
            Step.HOLD,
        ),
        (
            in_slurm(S.OUT_OF_MEMORY, memory="4G", peak_memory="3M"),
            (STARVED,),
            S.OUT_OF_MEMORY,
            "out of memory (4G asked for, up to 9M in use)",
            Step.HOLD,
        ),
        (in_slurm(S.FAILED, signal=9), (STARVED,), S.OUT_OF_MEMORY, "why", Step.HOLD),
        (in_slurm(), (STARVED,), S.OUT_OF_MEMORY, "why", Step.HOLD),
        (in_slurm(unseen="down"), (STARVED,), S.OUT_OF_MEMORY, "why", Step.GIVE_UP),
        (in_slurm(S.NODE_FAIL), (OPEN,), S.NODE_FAIL, "a node failed", Step.START),
        (in_slurm(S.CANCELLED), (SAVED,), S.CANCELLED, "the state is saved", Step.START),
        (in_slurm(S.PREEMPTED), (OPEN,), S.PREEMPTED, "not queued again", Step.START),
        (in_slurm(S.FAILED, exit_status=1), (FAILED,), S.FAILED, "why", Step.HOLD),
        (in_slurm(S.FAILED, exit_status=3), (OPEN,), S.FAILED, "ended with status 3, without a receipt", Step.START),
        (in_slurm(S.FAILED, signal=9), (OPEN,), S.FAILED, "ended by signal 9", Step.START),
        (in_slurm(S.FAILED, reason="BadConstraints"), (), S.FAILED, "start the job: BadConstraints", Step.START),
        (in_slurm(S.FAILED), (SAVED,), S.PREEMPTED, "Slurm has not queued the job again", Step.START),
        (in_slurm(S.TIMEOUT), (finished(Outcome.DO_NOT_REQUEUE, 76),), S.FAILED, "why", Step.HOLD),
        (in_slurm(S.TIMEOUT), (LIMITED,), S.TIMEOUT, "the time limit was reached; why", Step.START),
        (in_slurm(S.PREEMPTED), (LIMITED,), S.PREEMPTED, "not queued again; why", Step.START),
        (in_slurm(S.FAILED), (LIMITED,), S.FAILED, "why", Step.START),
        (in_slurm(), (LIMITED,), S.FAILED, "why", Step.START),
        (in_slurm(unseen="down"), (LIMITED,), S.UNKNOWN, "ended do-not-requeue; whether", Step.GIVE_UP),
        (in_slurm(S.CANCELLED), (NEVER_RAN,), S.FAILED, "why", Step.START),
        (in_slurm(S.UNKNOWN), (), S.UNKNOWN, "no word for", Step.GIVE_UP),
        (in_slurm(S.SPECIAL_EXIT), (FAILED,), S.SPECIAL_EXIT, "", Step.ADOPT),
        (in_slurm(), (), S.UNKNOWN, "forgotten job 7, which claimed no attempt", Step.START),
        (in_slurm(unforgettable=True), (), S.LOST, "it never started", Step.START),
        (in_slurm(unforgettable=True, siblings=True), (), S.CANCELLED, "struck off its array", Step.START),
        (in_slurm(unforgettable=True), (CLAIMED,), S.UNKNOWN, "attempt 1 left no finish receipt", Step.START),
        (in_slurm(unaccounted="off"), (OPEN,), S.UNKNOWN, "the accounting cannot be asked: off", Step.START),
        (in_slurm(), (SAVED,), S.PREEMPTED, "Slurm has not queued the job again", Step.START),
        (in_slurm(), (KILLED,), S.FAILED, "why", Step.START),
        (in_slurm(S.RUNNING, source="sacct"), (OPEN,), S.UNKNOWN, "has forgotten job 7", Step.START),
        (in_slurm(S.TIMEOUT, source="sacct"), (OPEN,), S.TIMEOUT, "the time limit", Step.START),
        (in_slurm(unseen="down"), (), S.UNKNOWN, "cannot be asked (down); job 7 was submitted", Step.GIVE_UP),
        (in_slurm(unseen="down"), (OPEN,), S.UNKNOWN, "attempt 1 (process 7 on h) started", Step.GIVE_UP),
        (in_slurm(unseen="down"), (SAVED,), S.UNKNOWN, "ended preempted; whether it is queued again", Step.GIVE_UP),
        (in_slurm(S.TIMEOUT, source="sacct", unseen="down"), (OPEN,), S.UNKNOWN, "says TIMEOUT", Step.GIVE_UP),
        (in_slurm(unseen="down"), (FAILED,), S.FAILED, "why", Step.GIVE_UP),
        (in_slurm(unseen="down"), (finished(Outcome.DO_NOT_REQUEUE, 76),), S.FAILED, "why", Step.HOLD),
        (in_slurm(unseen="down"), (finished(Outcome.FINISHED, 0),), S.COMPLETED, "", Step.DONE),
        (in_slurm(job_id=""), (), S.UNKNOWN, "what came of it was not noted", Step.GIVE_UP),
        (in_slurm(S.PENDING, job_id="7"), (), S.PENDING, "", Step.ADOPT),
        (in_slurm(sent=False, job_id=""), (), S.NOT_SUBMITTED, "never sent", Step.START),
        (in_slurm(refused="no such partition", job_id=""), (), S.NOT_SUBMITTED, "no such partition", Step.START),
        (in_slurm(S.PENDING), (FOREIGN,), S.LOST, "ended without a receipt", Step.ADOPT),
        (in_slurm(S.TIMEOUT, superseded=True), (), S.NOT_SUBMITTED, "", Step.START),
        (in_slurm(S.RUNNING, superseded=True), (OPEN,), S.RUNNING, "", Step.ADOPT),
    ],
)  # fmt: skip
def test_jobs(
    job: JobEvidence, attempts: tuple[AttemptEvidence, ...], status: JobStatus, reason: str, step: Step
) -> None:
    evidence = Evidence(attempts=attempts, job=job)
    verdict = judge(evidence)
    assert (verdict.status, due(evidence, hold(evidence)).step) == (status, step)
    assert reason in verdict.reason
    assert bool(verdict.reason) or not reason
    assert verdict.may_change is (
        status.is_active or (status is S.UNKNOWN and (bool(job.unseen) or job.state is S.UNKNOWN))
    )


@pytest.mark.parametrize(
    ("job", "attempts", "status"),
    [
        (in_slurm(), (), S.CANCELLED),
        (in_slurm(), (OPEN,), S.CANCELLED),
        (in_slurm(), (SAVED,), S.CANCELLED),
        (in_slurm(), (FAILED,), S.FAILED),
        (in_slurm(S.FAILED, exit_status=1), (SAVED,), S.CANCELLED),
        (in_slurm(S.RUNNING), (OPEN,), S.RUNNING),
        (in_slurm(unseen="down"), (OPEN,), S.UNKNOWN),
        (in_slurm(sent=False, job_id=""), (), S.CANCELLED),
    ],
)
def test_a_cancelled_run_is_cancelled_once_it_is_known_to_be_over(
    job: JobEvidence, attempts: tuple[AttemptEvidence, ...], status: JobStatus
) -> None:
    assert judge(Evidence(attempts=attempts, job=job, cancelled=True)).status is status


def test_a_job_decides_unless_the_run_is_about_to_run_elsewhere() -> None:
    over = in_slurm(S.TIMEOUT, superseded=True)
    assert judge(Evidence(job=over, queued=True)).status is S.PENDING
    assert judge(Evidence(job=over, given_up="it is RUNNING in Slurm")).status is S.TIMEOUT
    assert judge(Evidence(job=over, attempts=(FOREIGN,))).status is S.LOST


def test_what_a_launcher_is_about_to_send_waits() -> None:
    assert judge(Evidence(job=in_slurm(sent=False, job_id=""), queued=True)).reason == "not sent to Slurm yet"
    assert judge(Evidence(job=in_slurm(job_id=""), queued=True)).status is S.PENDING


@pytest.mark.parametrize(
    ("attempts", "alive", "step"),
    [
        ((), False, Step.START),
        ((OPEN,), True, Step.GIVE_UP),
        ((OPEN,), None, Step.GIVE_UP),
        ((OPEN,), False, Step.START),
        ((CLAIMED,), None, Step.GIVE_UP),
        ((FAILED,), False, Step.HOLD),
        ((SAVED,), False, Step.START),
        ((finished(Outcome.DO_NOT_REQUEUE),), False, Step.HOLD),
        ((finished(Outcome.FINISHED),), False, Step.DONE),
    ],
)
def test_a_submission_takes_what_is_not_at_work_on_a_machine(
    attempts: tuple[AttemptEvidence, ...], alive: bool | None, step: Step
) -> None:
    evidence = Evidence(attempts=attempts, alive=alive, cancelled=True)
    decision = due(evidence, hold(evidence))
    assert decision.step is step
    assert decision.reason or step is not Step.GIVE_UP


@pytest.mark.parametrize("job", [in_slurm(S.PENDING), in_slurm(unseen="down"), in_slurm(job_id="")])
def test_what_is_or_may_be_in_slurm_is_not_started_here(job: JobEvidence) -> None:
    decision = decide(Evidence(job=job), None)
    assert decision.step is Step.GIVE_UP
    assert "in Slurm" in decision.reason


def test_statuses_are_strings_as_slurm_writes_them() -> None:
    assert JobStatus("OUT_OF_MEMORY") == "OUT_OF_MEMORY"
    assert f"{JobStatus.RUNNING}" == "RUNNING"
    assert isinstance(JobStatus.LOST, str)
