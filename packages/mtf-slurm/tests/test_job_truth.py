"""A run in a modelled Slurm that forgets, lags, crashes and falls silent: what is said of it is never false."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mtf_slurm.cluster.answers import TaskState
from mtf_slurm.cluster.controller import Observation
from mtf_slurm.cluster.references import CLOCKS_AGREE_S, JobReference
from mtf_slurm.decisions import Step, decide, due
from mtf_slurm.judgement import judge
from mtf_slurm.policy import Budgets, Cause, held_back
from mtf_slurm.status import AttemptEvidence, Evidence, JobStatus
from mtf_utils.rundir import FinishReceipt, Outcome, StartReceipt

S = JobStatus
NAME, ID, TOKEN, MIN_JOB_AGE_S = "tiny-t.0", "7_3", "t", 10
ENDS = (S.TIMEOUT, S.OUT_OF_MEMORY, S.NODE_FAIL, S.FAILED, S.CANCELLED, S.COMPLETED, S.PREEMPTED)
BUDGETS = Budgets(limits={Cause.FAILURE: 0, Cause.OUT_OF_MEMORY: 0, Cause.TIMEOUT: 1})
WORDS_OF_SLURM = {S.TIMEOUT, S.OUT_OF_MEMORY, S.NODE_FAIL, S.PREEMPTED}


def started(number: int, token: str = TOKEN) -> StartReceipt:
    return StartReceipt(attempt=number, token=token, host="node1", pid=5, job_id=ID, started_at="then")


def finished(number: int, outcome: Outcome, status: int | None = None, limit: str | None = None) -> FinishReceipt:
    return FinishReceipt(
        attempt=number, outcome=outcome, exit_status=status, reason="why", finished_at="then", limit=limit
    )


@dataclass
class Truth:
    """What really is."""

    sent: bool = False
    answered: bool = False
    job: JobStatus | None = None  # None: it is not in Slurm
    lost: bool = False
    ended_s: float | None = None
    struck: bool = False
    attempts: list[AttemptEvidence] = field(default_factory=list)


class Slurm(RuleBasedStateMachine):
    """One run, submitted once, by itself or as a task of an array, and everything that may befall it."""

    def __init__(self) -> None:
        super().__init__()
        self.truth = Truth()
        self.now_s = 1000.0
        self.sent_s = 0.0
        self.mark = False
        self.squeue_fails = self.sacct_fails = self.reused = False
        self.siblings = True
        self.id = ID
        self.accounted: JobStatus | None = None

    @initialize(plain=st.booleans())
    def choose(self, plain: bool) -> None:
        if plain:
            self.id, self.siblings = "7", False

    @precondition(lambda self: not self.truth.sent)
    @rule(answered=st.booleans())
    def send(self, answered: bool) -> None:
        self.truth = replace(self.truth, sent=True, answered=answered, job=S.PENDING)
        self.sent_s = self.now_s

    @precondition(lambda self: self.truth.sent and not self.truth.answered and not self.truth.lost)
    @rule()
    def be_told_the_id(self) -> None:
        self.truth.answered = True

    @precondition(lambda self: self.truth.job is S.PENDING)
    @rule(receipt=st.booleans())
    def start(self, receipt: bool) -> None:
        number = len(self.truth.attempts) + 1
        self.truth.attempts.append(AttemptEvidence(number=number, started=started(number) if receipt else None))
        self.truth.job = S.RUNNING

    @precondition(lambda self: self.truth.job is S.RUNNING)
    @rule(outcome=st.sampled_from(Outcome), status=st.sampled_from([None, 1, 137]), limited=st.booleans())
    def leave_a_receipt(self, outcome: Outcome, status: int | None, limited: bool) -> None:
        last = self.truth.attempts[-1]
        if last.finished is None:
            limit = "timeout" if limited and outcome is Outcome.DO_NOT_REQUEUE else None
            receipt = finished(last.number, outcome, status, limit)
            self.truth.attempts[-1] = replace(last, started=started(last.number), finished=receipt)

    @precondition(lambda self: self.truth.job is S.RUNNING)
    @rule()
    def be_requeued(self) -> None:
        last = self.truth.attempts[-1].finished
        if last is None or last.outcome is Outcome.PREEMPTED:
            self.truth.job = S.PENDING

    @precondition(lambda self: self.truth.job in (S.PENDING, S.RUNNING))
    @rule(how=st.sampled_from(ENDS))
    def end(self, how: JobStatus) -> None:
        if self.truth.job is S.PENDING:
            how = S.CANCELLED
            self.truth.struck = self.siblings
        receipt = self.truth.attempts[-1].finished if self.truth.job is S.RUNNING else None
        if receipt is not None and receipt.outcome is Outcome.FINISHED:
            how = S.COMPLETED
        self.truth = replace(self.truth, job=how, ended_s=self.now_s)

    @precondition(lambda self: self.truth.job in (S.PENDING, S.RUNNING))
    @rule()
    def lose_all_in_a_crash(self) -> None:
        """The controller is killed before it saved the array."""
        self.truth = replace(self.truth, job=None, lost=True)
        self.siblings = False

    @rule(seconds=st.sampled_from([1.0, 5.0, 9.0, 30.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def reuse_the_id(self) -> None:
        if self.truth.job is None:
            self.reused = True

    @rule(squeue=st.booleans(), sacct=st.booleans())
    def break_or_mend(self, squeue: bool, sacct: bool) -> None:
        self.squeue_fails, self.sacct_fails = squeue, sacct

    @rule()
    def account(self) -> None:
        """The accounting catches up; otherwise it says what it last knew."""
        self.accounted = self.truth.job if self.truth.sent and not self.truth.lost else self.accounted

    @precondition(lambda self: self.truth.sent)
    @rule()
    def mark_as_cancelled(self) -> None:
        self.mark = True

    def observation(self) -> Observation:
        """As the controller gives it, with all that may be wrong with it."""
        truth, tasks, outdated = self.truth, {}, {}
        error = "squeue: down" if self.squeue_fails else ""
        known = truth.job is not None and not truth.struck
        if known and truth.ended_s is not None:
            known = self.now_s - truth.ended_s < MIN_JOB_AGE_S
        if known and not error:
            assert truth.job is not None
            tasks[self.id] = TaskState(self.id, NAME, truth.job, "", "squeue")
        elif self.reused and not error:
            tasks[self.id] = TaskState(self.id, "other-job.0", S.RUNNING, "", "squeue")
        elif self.accounted is not None and not self.sacct_fails:
            row = TaskState(self.id, NAME, self.accounted, "", "sacct")
            (outdated if self.accounted.is_active and not error else tasks)[self.id] = row
        if self.siblings and truth.sent and not error:
            tasks["7_4"] = TaskState("7_4", NAME, S.PENDING, "", "squeue")
        accounting = "sacct: down" if self.sacct_fails else ""
        return Observation(
            tasks=tasks,
            outdated=outdated,
            queue_error=error,
            accounting_error=accounting,
            min_job_age_s=MIN_JOB_AGE_S,
            seen_at=self.now_s,
        )

    def evidence(self) -> Evidence:
        truth = self.truth
        reference = JobReference(
            token=TOKEN,
            job_name=NAME,
            first_attempt=1,
            index=3 if self.id == ID else None,
            job_id=self.id if truth.answered else "",
            submitted_at=self.sent_s if truth.answered else None,
            sent=truth.sent,
        )
        job = reference.evidence(self.observation())
        alive = None if truth.attempts and truth.attempts[-1].finished is None and job.may_be_active else False
        return Evidence(attempts=tuple(truth.attempts), alive=alive, cancelled=self.mark, job=job)

    @invariant()
    def nothing_false_is_said(self) -> None:
        truth, verdict = self.truth, judge(self.evidence())
        status = verdict.status
        receipts = [attempt.finished.outcome for attempt in truth.attempts if attempt.finished]
        last = truth.attempts[-1].finished if truth.attempts else None
        assert (status is S.COMPLETED) == (Outcome.FINISHED in receipts)
        if status is S.COMPLETED:
            return
        if status.is_active:
            assert truth.job is status
            assert not self.squeue_fails
        if status is S.FAILED:
            said = last is not None and last.outcome in (Outcome.FAILED, Outcome.DO_NOT_REQUEUE)
            assert said or truth.job is S.FAILED
        if status in WORDS_OF_SLURM and status is not S.PREEMPTED:
            assert truth.job is status
        if status is S.PREEMPTED:
            assert truth.job is not S.PENDING
            assert truth.job is S.PREEMPTED or receipts
        if status is S.LOST:
            assert truth.lost
            assert not truth.attempts
        if status is S.CANCELLED:
            assert truth.job is S.CANCELLED or self.mark
            assert truth.job is None or not truth.job.is_active
        if status is S.NOT_SUBMITTED:
            assert not truth.sent
        if self.squeue_fails and truth.sent:
            assert status in (S.UNKNOWN, S.FAILED)
            assert verdict.may_change or status is S.FAILED
        assert verdict.reason or status not in (S.UNKNOWN, S.LOST)

    @invariant()
    def nothing_is_submitted_that_may_be_at_work(self) -> None:
        evidence, truth = self.evidence(), self.truth
        decision = due(evidence, held_back(evidence, BUDGETS, stalled=False))
        active = truth.job is not None and truth.job.is_active
        if decision.step is Step.START:
            assert not active
            assert not evidence.is_finished
            assert not truth.sent or not self.squeue_fails
        if decision.step is Step.ADOPT:
            assert active
        if decision.step is Step.GIVE_UP:
            assert decision.reason
        if decision.step is Step.HOLD:
            assert decision.hold is not None
            assert evidence.attempts
            assert not evidence.is_finished
        step = decide(evidence, None).step
        if active and not evidence.is_finished:
            assert step in (Step.GIVE_UP, Step.DONE)  # what is cancelled is left to its cancellation

    @invariant()
    def a_lost_job_is_told_while_that_is_certain(self) -> None:
        truth = self.truth
        young = self.now_s - self.sent_s < MIN_JOB_AGE_S - CLOCKS_AGREE_S
        plain = truth.answered and not truth.attempts and not self.mark and not self.squeue_fails
        if truth.lost and young and plain and not (self.accounted and not self.accounted.is_active):
            assert judge(self.evidence()).status is S.LOST


Slurm.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestSlurm = pytest.mark.filterwarnings("default")(Slurm.TestCase)
