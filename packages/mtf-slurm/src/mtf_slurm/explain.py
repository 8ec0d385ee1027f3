"""Everything that is known of one run, and what follows from it: why it is in its state, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mtf_slurm.budgets import Limits, retry_words
from mtf_slurm.cluster.judgement import memory_words
from mtf_slurm.cluster.reasons import what_to_do
from mtf_slurm.evidence import Witness
from mtf_slurm.policy import Budgets, used
from mtf_slurm.run_result import RunResult, read_run
from mtf_slurm.status import AttemptEvidence, Evidence, JobStatus
from mtf_slurm.telemetry import last_error_lines
from mtf_slurm.views import format_metric

__all__ = ["Explanation", "explain"]

_AGAIN: Final = "submit the sweep again: it continues from its last checkpoint, if it has one"
_REMEDIES: Final[Mapping[JobStatus, str]] = {
    JobStatus.BOOT_FAIL: _AGAIN,
    JobStatus.CANCELLED: _AGAIN,
    JobStatus.DEADLINE: _AGAIN,
    JobStatus.FAILED: "see the log, mend what is wrong, and submit the sweep again",
    JobStatus.LOST: "submit the sweep again; nothing runs twice",
    JobStatus.NODE_FAIL: _AGAIN,
    JobStatus.NOT_SUBMITTED: "submit or run the sweep",
    JobStatus.OUT_OF_MEMORY: f"ask for more (slurm.mem), or make the batch smaller, and {_AGAIN}",
    JobStatus.PREEMPTED: _AGAIN,
    JobStatus.TIMEOUT: f"{_AGAIN}; a longer slurm.time_limit saves the restart",
}
_MENDING: Final[Mapping[JobStatus, str]] = {
    JobStatus.FAILED: "see the log, mend what is wrong",
    JobStatus.OUT_OF_MEMORY: "ask for more (slurm.mem), or make the batch smaller",
    JobStatus.TIMEOUT: "ask for more time (slurm.time_limit)",
}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What is known of one run.

    Attributes:
        run: the run as results tell it.
        evidence: what that was concluded from.
        remedy: what to do now; empty if there is nothing to do.
        log: the output of the last attempt, or of the job if there was none; None without either.
        last_words: the end of that, if it tells what went wrong.
        submitted: when and how it was submitted last; empty if it never was.
        budgets: what was used up of what there is.
        asks: who asked for it again when, and how.
    """

    run: RunResult
    evidence: Evidence
    remedy: str = ""
    log: Path | None = None
    last_words: list[str] = field(default_factory=list)
    submitted: str = ""
    budgets: list[str] = field(default_factory=list)
    asks: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The explanation as text."""
        run = self.run
        yield f"{run.name}: {run.status.value}"
        for label, text in self._facts():
            if text:
                yield f"  {label:<10} {text}"
        for attempt in self.evidence.attempts:
            yield f"  attempt {attempt.number}: {'; '.join(_attempt_words(attempt))}"
        if self.last_words:
            yield f"  last lines of {self.log}:"
            yield from (f"    {line}" for line in self.last_words)

    def _facts(self) -> Iterator[tuple[str, str]]:
        run = self.run
        yield "because", run.reason
        yield "held back", "" if run.held == run.reason else run.held
        yield "submitted", self.submitted
        yield from (("asked for", ask) for ask in self.asks)
        yield "Slurm", _slurm_words(self.evidence)
        yield "budgets", "; ".join(self.budgets)
        yield "to do", self.remedy
        place = [f"epoch {run.epoch}"] if run.epoch is not None else []
        place += [f"step {run.global_step}"] if run.global_step is not None else []
        place += [format_metric(run.headline, run.metrics[run.headline])] if run.headline else []
        yield "progress", ", ".join(place)
        yield "folder", str(run.path)

    def to_dict(self) -> dict[str, Any]:
        """The explanation as plain data."""
        run = self.run
        return {
            "name": run.name,
            "status": run.status.value,
            "reason": run.reason,
            "may_change": run.may_change,
            "held": run.held,
            "budgets": self.budgets,
            "asks": self.asks,
            "remedy": self.remedy,
            "submitted": self.submitted,
            "slurm": _slurm_words(self.evidence),
            "job_id": run.job_id,
            "attempts": [_attempt_data(attempt) for attempt in self.evidence.attempts],
            "path": str(run.path),
            "log": str(self.log) if self.log else None,
            "last_words": self.last_words,
        }


def explain(witness: Witness, entry: Mapping[str, Any]) -> Explanation:
    """Explain one run.

    Args:
        witness: what is known of the runs of its folder.
        entry: of the run in `sweep.json`.
    """
    run = read_run(witness, entry)
    evidence, _ = witness.verdict(run.name)
    submission = witness.latest.get(run.name)
    folder = witness.directory.run(run.name)
    # what ended as somebody wished leaves nothing in its log that would explain it
    over = not run.may_change and run.status not in (JobStatus.COMPLETED, JobStatus.CANCELLED)
    # of a job that came to no attempt, what it said itself
    said = Path(evidence.job.output) if evidence.job and evidence.job.output else None
    log = run.log or (said if said is not None and said.is_file() else None)
    return Explanation(
        run=run,
        evidence=evidence,
        remedy=_asking(witness, run) or _remedy(run, evidence),
        log=log,
        last_words=last_error_lines(log) if over and log is not None else [],
        submitted=f"{submission.created_at}, {submission.mode.value}" if submission else "",
        budgets=list(_budget_words(evidence, Limits.of(folder).budgets)) if evidence.attempts else [],
        asks=[f"{ask.asked_at} by {ask.by}, {ask.how}, from attempt {ask.attempt} on" for ask in folder.asks()],
    )


def _asking(witness: Witness, run: RunResult) -> str:
    """How to have a run go on that is held back; empty if nothing holds it."""
    if not run.held:
        return ""
    mend = f"{_MENDING[run.status]}, and submit the sweep again; or " if run.status in _MENDING else ""
    return f"{mend}ask for it: {retry_words(witness.directory)} {run.name}"


def _budget_words(evidence: Evidence, budgets: Budgets) -> Iterator[str]:
    for cause, count in used(evidence).items():
        limit = budgets.limits.get(cause)
        if count or limit:
            yield f"{cause.value} {count} of {'no limit' if limit is None else limit}"


def _remedy(run: RunResult, evidence: Evidence) -> str:
    job = evidence.job
    if run.status is JobStatus.UNKNOWN:
        if run.may_change:
            return "ask again when Slurm answers"
        return "submit the sweep again: what is not over is left alone, and nothing runs twice"
    if run.status.is_active:
        return what_to_do(job.task.reason) if job and job.task and run.status is JobStatus.PENDING else ""
    if job is not None and job.refused and run.status is JobStatus.NOT_SUBMITTED:
        return "change what it asks for (section slurm), and submit the sweep again"
    return _REMEDIES.get(run.status, "")


def _slurm_words(evidence: Evidence) -> str:
    """What Slurm says of the job, or why it says nothing."""
    job = evidence.job
    if job is None:
        return ""
    name = f"job {job.job_id}" if job.job_id else "a job without a known id"
    if job.refused:
        return "did not take it"
    if not job.sent:
        return "not sent"
    if job.task is not None:
        parts = [f"{job.task.source} says {job.task.state.value}", job.task.reason]
        parts += [f"exit status {job.task.exit_status}"] if job.task.exit_status else []
        parts += [f"signal {job.task.signal}"] if job.task.signal else []
        parts += [f"memory: {memory_words(job.task)}"] if job.task.peak_memory else []
        said = ", ".join(part for part in parts if part)
    else:
        # Slurm is not asked about what has finished
        unknown = "not asked, the receipt says it all" if evidence.is_finished else "the controller does not know it"
        said = "" if job.unseen else unknown
    told = "; ".join(part for part in (said, job.unseen and f"squeue does not answer: {job.unseen}") if part)
    unaccounted = f"; sacct does not answer: {job.unaccounted}" if job.unaccounted else ""
    return f"{name}: {told}{unaccounted}"


def _attempt_words(attempt: AttemptEvidence) -> Iterator[str]:
    started, finished = attempt.started, attempt.finished
    if started is not None:
        job = f", job {started.job_id}" if started.job_id else ""
        yield f"started {started.started_at} on {started.host} (process {started.pid}{job})"
    else:
        yield "claimed, no start receipt"
    if finished is not None:
        status = f", status {finished.exit_status}" if finished.exit_status is not None else ""
        why = f": {finished.reason}" if finished.reason else ""
        yield f"{finished.outcome.value} {finished.finished_at}{status}{why}"
    else:
        yield "no finish receipt"


def _attempt_data(attempt: AttemptEvidence) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "started": attempt.started.to_dict() if attempt.started else None,
        "finished": attempt.finished.to_dict() if attempt.finished else None,
    }
