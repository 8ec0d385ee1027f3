"""Runs that are to be tried again: which they are, with which code, and what became of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from mtf_config import ExecutionMode, SweepPoint
from mtf_slurm.asking import BY_NAME, has_other_code
from mtf_slurm.budgets import ask_for, hold_of
from mtf_slurm.code.isolation import Code, code_file_of
from mtf_slurm.code.record import CODE, CodeFile
from mtf_slurm.configurations import read_experiment
from mtf_slurm.decisions import Step, due
from mtf_slurm.errors import SLURMError
from mtf_slurm.evidence import Witness
from mtf_slurm.execute import Executed, refuse_problems
from mtf_slurm.executor import Executor
from mtf_slurm.policy import Hold
from mtf_slurm.requests import check_names
from mtf_slurm.results import GridSearchResult
from mtf_slurm.status import JobStatus
from mtf_slurm.submissions import Submissions
from mtf_slurm.sweep import FOREIGN, SweepPlan, SweepRequest, code_change, plan_sweep
from mtf_utils.rundir import RunDirectory, RunDirectoryError, SweepDirectory, SweepFile

__all__ = ["KINDS", "Retry", "RetryResult", "prepare_retry"]

KINDS: Final = {
    "failed": (JobStatus.FAILED,),
    "missing": (JobStatus.NOT_SUBMITTED, JobStatus.LOST, JobStatus.UNKNOWN),
    "timeout": (JobStatus.TIMEOUT, JobStatus.DEADLINE),
    "oom": (JobStatus.OUT_OF_MEMORY,),
    "node-failure": (JobStatus.NODE_FAIL, JobStatus.BOOT_FAIL),
    "preempted": (JobStatus.PREEMPTED,),
    "cancelled": (JobStatus.CANCELLED,),
}
"""What runs can be chosen by."""


@dataclass(frozen=True, kw_only=True)
class RetryResult:
    """What became of runs that were to be tried again.

    Attributes:
        result: the sweep, as it stands now.
        retried: the names of the runs that are tried again, or would be.
        left_out: why others are not, by name.
        job_ids: of those that are, by name.
        code: of each run that is tried again: the hash of its snapshot; empty where it runs in the project itself.
    """

    result: GridSearchResult
    retried: tuple[str, ...]
    left_out: dict[str, str]
    job_ids: dict[str, str]
    code: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """What became of them, as plain data."""
        retried = [
            {"name": name, "job_id": self.job_ids.get(name), "code": self.code[name] or None} for name in self.retried
        ]
        return {"output_dir": str(self.result.output_dir), "retried": retried, "left_out": self.left_out}


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Runs that are to be tried again.

    Attributes:
        result: the sweep that they belong to.
        sweep: its description.
        names: of the runs.
        left_out: why others are not among them.
        mode: how they are executed.
        limit: how many run at a time.
        how: they were asked for explicitly; empty if they are those that would be submitted again.
        held: what holds back those that nobody has asked for by their names.
        code: what those run that do not keep theirs; None if all do.
        keep: the names of runs that keep the code that they have.
    """

    result: GridSearchResult
    sweep: SweepFile
    names: tuple[str, ...]
    left_out: dict[str, str]
    mode: ExecutionMode
    limit: int | None
    how: str
    held: dict[str, Hold] = field(default_factory=dict)
    code: Code | None = None
    keep: frozenset[str] = field(default_factory=frozenset)

    @property
    def directory(self) -> SweepDirectory:
        """The folder of the sweep."""
        return SweepDirectory(self.result.output_dir)

    def with_code(self, code: Code | None, *, keep: Collection[str], resume_across_code: bool) -> Retry:
        """The same with the code that is to run; without those runs for which there is none that they may run.

        Other code counts as asking for a run that is held back, as it does when the sweep is submitted again.

        Args:
            code: that of now; None: every run keeps its own.
            keep: the names of runs that keep theirs.
            resume_across_code: whether checkpoints that other code has made may be continued.
        """
        left_out = dict(self.left_out)
        names = list(self.names)
        for name, hold in self.held.items():
            if code is not None and name not in keep and has_other_code(self.directory.run(name), hold, code.record):
                names.append(name)
            else:
                left_out[name] = hold.reason
        for name in names:
            run = self.directory.run(name)
            keeps = code is None or name in keep
            if keeps and (trouble := self._missing_code(run)):
                left_out[name] = trouble
            elif code is not None and not keeps and not resume_across_code and code_change(run, code.record):
                left_out[name] = FOREIGN
        chosen = tuple(run.name for run in self.result if run.name in set(names) - set(left_out))
        kept = chosen if code is None else [name for name in chosen if name in keep]
        return replace(self, names=chosen, left_out=left_out, held={}, code=code, keep=frozenset(kept))

    def _missing_code(self, run: RunDirectory) -> str:
        try:
            code = code_file_of(run)
        except RunDirectoryError as error:
            return str(error)
        if code is None or code.tree is None or (self.directory.path / CODE / code.tree).is_dir():
            return ""
        return f"the copy of its code, code/{code.tree}, is gone; try it again without --same-code"

    def note_code(self) -> None:
        """Note that runs were asked for, and which continue checkpoints of other code."""
        for name in self.names:
            run = self.directory.run(name)
            if self.code is not None and name not in self.keep and (change := code_change(run, self.code.record)):
                ask_for(run, f"{self.how or 'submitted again'}, across code", **change)
            elif self.how and run.attempts():
                ask_for(run, self.how)

    def plan(self, project_root: Path) -> SweepPlan:
        """The plan for these runs; the description of the sweep stays as it is, but for its code."""
        record = self.code.record if self.code is not None else CodeFile.from_dict(self.sweep.code)
        entries = {entry["name"]: entry for entry in self.sweep.runs}
        points = [
            SweepPoint(
                name,
                entries[name]["grid"],
                entries[name]["parameters"],
                read_experiment(self.directory.run(name)),
                entries[name]["identity"],
            )
            for name in self.names
        ]
        request = SweepRequest(
            name=self.sweep.name,
            points=points,
            project_root=project_root,
            command=tuple(self.sweep.command),
            code=self.code or Code(record),
            keep_code=self.keep,
            additive=True,
        )
        sweep = replace(self.sweep, code=record.to_dict())
        return replace(plan_sweep(self.directory, request), sweep=sweep, orphaned=())

    def carry_out(self, executor: Executor) -> Executed | None:
        """Have them tried again; the caller holds the folder.

        Raises:
            JobSubmissionError: some cannot be executed as they were planned, and nothing was done.
        """
        plan = self.plan(executor.project_root)
        problems = executor.problems(plan.configs, self.mode, self.sweep.command, self.keep)
        refuse_problems(self.directory, problems)
        self.note_code()
        return executor.carry_out(plan, self.mode, self.limit, asked=self.how, resume_across_code=True)

    def outcome(self, done: Executed | None) -> RetryResult:
        """What became of it; None if nothing was done."""
        left_out = self.left_out | (done.refused | done.held if done is not None else {})
        names = tuple(name for name in self.names if name not in left_out)
        return RetryResult(
            result=self.result.refresh() if done is not None else self.result,
            retried=names,
            left_out=left_out,
            job_ids={name: done.job_ids[name] for name in names if name in done.job_ids} if done is not None else {},
            code={name: self._tree_of(name) for name in names},
        )

    def _tree_of(self, name: str) -> str:
        if self.code is not None and name not in self.keep:
            return self.code.record.tree or ""
        kept = code_file_of(self.directory.run(name))
        return (kept.tree or "") if kept else ""


def prepare_retry(
    result: GridSearchResult,
    names: Iterable[str] | None,
    *,
    execution_mode: ExecutionMode | None,
    max_concurrent_jobs: int | None,
) -> Retry:
    """Which runs of a sweep are to be tried again, and how.

    Args:
        result: the sweep as it stands.
        names: the runs that are asked for; None: those that would be submitted again.
        execution_mode: how they are executed; None: as at the last submission.
        max_concurrent_jobs: how many run at a time; None: as at the last submission.

    Raises:
        KeyError: there is no run of a name.
        SLURMError: it cannot be told how they are to be executed.
    """
    if execution_mode is ExecutionMode.DRY_RUN:
        raise SLURMError("execution_mode=ExecutionMode.DRY_RUN: what would be tried again is told with dry_run=True")
    names = None if names is None else check_names(names)
    directory = SweepDirectory(result.output_dir)
    sweep = directory.sweep()
    if sweep is None:
        raise SLURMError(f"{directory.path}: there is no sweep here")
    chosen = [run.name for run in result] if names is None else [result[name].name for name in dict.fromkeys(names)]
    witness = Witness.look(directory, names=chosen)
    taken: list[str] = []
    left_out: dict[str, str] = {}
    held: dict[str, Hold] = {}
    for name in chosen:
        run = directory.run(name)
        try:
            evidence = witness.evidence(name)
        except RunDirectoryError as error:
            left_out[name] = str(error)
            continue
        decision = due(evidence, hold_of(run, evidence))
        if decision.step is Step.START or (decision.step is Step.HOLD and names is not None):
            taken.append(name)
        elif decision.hold is not None:
            held[name] = decision.hold
        elif decision.step is not Step.DONE or names is not None:
            left_out[name] = _why_not(decision.step, result[name].status, decision.reason)
    sent = [submission for submission in Submissions(directory).all() if submission.mode is not ExecutionMode.DRY_RUN]
    mode = execution_mode or (sent[-1].mode if sent else None)
    if mode is None:
        raise SLURMError(f"{directory.path}: nothing of it was ever submitted; say how its runs are to be executed")
    return Retry(
        result=result,
        sweep=sweep,
        names=tuple(taken),
        left_out=left_out,
        mode=mode,
        limit=sent[-1].max_concurrent_jobs if max_concurrent_jobs is None and sent else max_concurrent_jobs,
        how=BY_NAME if names is not None else "",
        held=held,
    )


def _why_not(step: Step, status: JobStatus, reason: str) -> str:
    if step is Step.DONE:
        return "it has finished"
    if step is Step.ADOPT:
        return f"it is {status.value}; cancel it first"
    return reason
