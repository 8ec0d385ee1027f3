"""Carry out a plan in the folder of a sweep: hold the folder, note the intent, act; one function for each mode."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from mtf_config import ExecutionMode
from mtf_slurm.asking import ends_of, reconsider
from mtf_slurm.budgets import hold_of, retry_words
from mtf_slurm.cluster.watch import Watch
from mtf_slurm.decisions import Step, decide
from mtf_slurm.errors import JobSubmissionError, SLURMError, SweepLockedError, by_reason
from mtf_slurm.evidence import Witness
from mtf_slurm.local import LocalRunner
from mtf_slurm.lock import hold, is_locked
from mtf_slurm.status import Evidence
from mtf_slurm.submissions import Ended, Submissions
from mtf_slurm.sweep import SweepPlan
from mtf_slurm.views import Display
from mtf_utils.rundir import RunDirectoryError, SweepDirectory

if TYPE_CHECKING:
    from mtf_slurm.cluster.planning import SubmissionPlanner
    from mtf_slurm.cluster.submission import Launch

__all__ = [
    "Executed",
    "active_elsewhere",
    "default_display",
    "execute_locally",
    "explain_write_errors",
    "held",
    "plan_only",
    "refuse_problems",
    "submit",
    "tell_left",
    "teller",
]

LOCK_WAIT_S: Final = 30.0
"""How long a submission to Slurm, which is over soon, waits for another one in the same folder."""

TOLD_AFTER_S: Final = 2.0
"""How long it does so silently."""


@dataclass(frozen=True)
class Executed:
    """What became of a submission.

    Attributes:
        job_ids: the job ids of the runs, by their names.
        refused: why a run could not be started at all, by its name.
        unnoted: why runs were given up, by token and name, where the disk took no note of it.
        left: why a run was left as it is though it was asked for, by its name.
        held: why runs were left out that are not tried again until somebody asks for them, by name.
        foreign: why runs were left out whose checkpoints other code has made, by name; it has been said.
    """

    job_ids: dict[str, str]
    refused: dict[str, str] = field(default_factory=dict)
    unnoted: dict[tuple[str, str], str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def held(
    directory: SweepDirectory,
    *,
    wait_s: float = 0.0,
    say: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Be the one launcher of the folder while the block runs; the folder is made if needed.

    Args:
        directory: the folder of the sweep.
        wait_s: how long to wait for another launcher.
        say: is told once what is being waited for, should that take long.
        clock: tells the time.

    Raises:
        SLURMError: the folder cannot be made or locked.
    """
    began = clock()
    with contextlib.ExitStack() as stack:
        with explain_write_errors(directory):
            directory.path.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    stack.enter_context(hold(directory))
                    break
                except SweepLockedError as error:
                    waited = clock() - began
                    if waited >= wait_s:
                        raise
                    if say is not None and waited >= TOLD_AFTER_S:
                        who = f"another launcher is at work here ({error.holder})"
                        say(f"{directory.path}: {who}; waiting for it, for {wait_s:g} s at most")
                        say = None
        yield


@contextlib.contextmanager
def explain_write_errors(directory: SweepDirectory) -> Iterator[None]:
    """Say where and why when the folder cannot be written."""
    try:
        yield
    except SLURMError:
        raise
    except OSError as error:
        raise SLURMError(
            f"{directory.path} cannot be written: {error.strerror or error}; nothing was started; make room or choose "
            "another output folder, and repeat the call"
        ) from error


def execute_locally(
    directory: SweepDirectory,
    names: Sequence[str],
    max_concurrent_jobs: int | None,
    *,
    single: bool = False,
    display: Display | None = None,
    remarks: Sequence[str] = (),
    asked: str = "",
) -> Executed:
    """Run planned runs on this machine, to their ends; the caller holds the folder.

    Args:
        directory: the folder of the sweep.
        names: the runs, which have folders.
        max_concurrent_jobs: how many run at a time.
        single: whether it is one experiment, submitted by itself.
        display: shows the progress; None chooses by the terminal.
        remarks: lines for the user, shown with the progress.
        asked: how the runs were asked for explicitly, so that their budgets begin anew; empty if they were not.

    Raises:
        SLURMError: the intent cannot be written.
        LaunchInterrupted: the launcher was told to stop; the runs have saved and ended.
    """
    with explain_write_errors(directory):
        ended = _ask_locally(directory, names, asked)
        submission = Submissions(directory).add(ExecutionMode.LOCAL, names, single=single, ended=ended)
    display = display or default_display()
    runner = LocalRunner(directory, submission, max_concurrent=max_concurrent_jobs, display=display)
    for remark in remarks:
        display.say(remark)
    runner.run()
    return Executed({name: submission.job_id(name) for name in names}, runner.refused, runner.unnoted, held=runner.held)


def _ask_locally(directory: SweepDirectory, names: Sequence[str], asked: str) -> list[Ended]:
    """Note for which runs budgets begin anew; returns how the last attempts of those have ended that go on."""
    witness = Witness.look(directory, names=names)
    known: list[tuple[str, Evidence]] = []
    for name in names:
        run = directory.run(name)
        with contextlib.suppress(RunDirectoryError):  # the runner gives it up, and says why
            evidence = witness.evidence(name)
            willing = decide(replace(evidence, cancelled=False), hold_of(run, evidence))  # the last submission was
            decision = reconsider(run, evidence, willing, asked)
            known += [(name, evidence)] if decision.step is Step.START else []
    return ends_of(known)


def plan_only(
    planner: SubmissionPlanner,
    names: Sequence[str],
    max_tasks: int,
    max_concurrent_jobs: int | None,
    *,
    single: bool = False,
) -> Executed:
    """Write everything that a submission to Slurm consists of, and submit nothing; the caller holds the folder.

    Args:
        planner: for the folder.
        names: the runs, which have folders.
        max_tasks: how many tasks an array may have.
        max_concurrent_jobs: how many would run at a time.
        single: whether it is one experiment, submitted by itself.

    Raises:
        SLURMError: the intent cannot be written.
    """
    with explain_write_errors(planner.directory):
        submission, files = planner.plan(
            names, mode=ExecutionMode.DRY_RUN, max_tasks=max_tasks, limit=max_concurrent_jobs, single=single
        )
        Submissions(planner.directory).publish(submission, files)
    return Executed({name: submission.job_id(name) for name in names})


def submit(
    launch: Launch,
    names: Sequence[str],
    max_concurrent_jobs: int | None,
    *,
    single: bool = False,
    asked: str = "",
) -> Executed:
    """Submit planned runs to Slurm, and return when it has them; the caller holds the folder.

    Args:
        launch: for the folder.
        names: the runs, which have folders.
        max_concurrent_jobs: how many run at a time in this folder.
        single: whether it is one experiment, submitted by itself.
        asked: how the runs were asked for explicitly, so that their budgets begin anew; empty if they were not.

    Raises:
        JobSubmissionError: the cluster did not take a job in time; a repeated call goes on.
        SLURMError: something cannot be written.
    """
    directory = launch.planner.directory
    with explain_write_errors(directory):
        done = launch.submit(names, max_concurrent_jobs, single=single, asked=asked)
    return Executed(done.job_ids, done.refused, left=done.left, held=done.held)


def active_elsewhere(directory: SweepDirectory, plan: SweepPlan, watch: Watch) -> dict[str, str]:
    """The job ids of those planned runs that another launcher has at work or in its queue."""
    if not is_locked(directory):
        return {}
    witness = Witness.look(directory, watch, names=plan.names)
    return {
        name: job_id
        for name in plan.names
        if name not in plan.conflicts and (job_id := witness.job_id(name)) and witness.verdict(name)[1].status.is_active
    }


def tell_left(directory: SweepDirectory, done: Executed, say: Callable[[str], None]) -> None:
    """Say which runs were not submitted, and why; they stop no other.

    Raises:
        JobSubmissionError: some could not be submitted, and there is no other.
    """
    for reason in by_reason(done.left):
        say(f"left as it is: {reason}")
    for reason in by_reason(done.held):
        say(f"left out: {reason}")
    if done.held:
        say(f"to have one tried again, change its code or settings, or: {retry_words(directory)} RUN")
    reasons = "; ".join(by_reason(done.refused))
    if done.refused and not done.job_ids:
        raise JobSubmissionError(f"{directory.path}: no run was submitted: {reasons}", reasons=done.refused)
    if reasons:
        say(f"not submitted: {reasons}")


def default_display() -> Display:
    """The display that fits the terminal."""
    from mtf_slurm.progress import choose_display  # draws with rich, which takes long to load

    return choose_display()


def teller(display: Display | None) -> Callable[[str], None]:
    """What says a line to the user: the display; without one whatever prints lines, for there is nothing to draw."""
    if display is not None:
        return display.say

    def say(text: str) -> None:
        from mtf_slurm.progress import PlainLines  # loads rich

        PlainLines().say(text)

    return say


def refuse_problems(directory: SweepDirectory, problems: Mapping[str, str]) -> None:
    """Raise if there are reasons why runs cannot be submitted, by their names.

    Raises:
        JobSubmissionError: with all of them.
    """
    if problems:
        reasons = "\n".join(by_reason(problems))
        raise JobSubmissionError(f"{directory.path}: nothing was submitted:\n{reasons}", reasons=problems)
