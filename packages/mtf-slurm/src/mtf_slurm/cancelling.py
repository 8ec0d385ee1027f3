"""Cancel runs, wherever they are: note it first, so that nothing starts them again, then tell who is at work."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterable
from typing import Final

from mtf_slurm.cluster.watch import Watch
from mtf_slurm.errors import ClusterUnreachableError
from mtf_slurm.evidence import Witness
from mtf_slurm.status import Evidence, JobEvidence, JobStatus, Verdict
from mtf_slurm.submissions import Submission, Submissions
from mtf_slurm.wording import counted
from mtf_utils.rundir import SweepDirectory

__all__ = ["cancel_runs", "cancel_submitted"]

LOOK: Final = "URG"
"""Has the script of a task that runs share look which of them have been cancelled; whatever else it is ignores it."""


def cancel_runs(directory: SweepDirectory, names: Iterable[str], watch: Watch | None = None) -> dict[str, bool]:
    """Have runs save and end, and not be started again.

    Args:
        directory: the folder of the sweep.
        names: of its runs.
        watch: asks Slurm; None is one of its own.

    Returns:
        Whether the run was active, by name; where it was not, nothing has been done.

    Raises:
        ClusterUnreachableError: the cluster cannot be asked whether a run is active, or cannot be told. Runs on this
            machine have been told all the same.
        SLURMError: the cluster refuses.
    """
    names = list(dict.fromkeys(names))
    watch = watch or Watch()
    witness = _look(directory, watch, names)
    cancelled: dict[str, bool] = {}
    jobs: list[tuple[str, JobEvidence]] = []
    unseen: list[str] = []
    for name in names:
        evidence, verdict = witness.verdict(name)
        job = evidence.job
        if job is not None and job.unseen and job.may_be_active and verdict.may_change:
            unseen.append(f"{name}: {job.unseen}")
            continue
        cancelled[name] = _withdraw(witness, name, evidence, verdict)
        if cancelled[name] and job is not None and job.is_active:
            jobs.append((name, job))
    watch.forget()
    try:
        _tell_slurm(watch, witness, jobs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted while Slurm was told to end {counted(len(jobs), 'run')}; the cancellation is noted, so that "
            "none of them is started again; repeat the call or command to end what is at work"
        ) from None
    if unseen:
        more = f" (and {len(unseen) - 1} more)" if len(unseen) > 1 else ""
        raise ClusterUnreachableError(f"{unseen[0]}{more}; nothing was cancelled there, repeat it when Slurm answers")
    return cancelled


def _look(directory: SweepDirectory, watch: Watch, names: Collection[str]) -> Witness:
    """What is known of runs, and of those that share tasks with them."""
    witness = Witness.look(directory, watch, names=names)
    mates = {mate for job in witness.jobs.values() if job.place is not None for mate in job.mates}
    if mates.issubset(names):
        return witness
    return Witness.look(directory, watch, patient=True, names=mates.union(names))


def cancel_submitted(directory: SweepDirectory, submission: Submission, name: str, watch: Watch) -> bool:
    """The same for a run as it was submitted once; if it was submitted again since, nothing is done.

    Args:
        directory: the folder of the sweep.
        submission: that of the run.
        name: of the run.
        watch: asks Slurm.
    """
    witness = Witness.look(directory, watch, names=[name])
    job = witness.verdict(name)[0].job
    counts = job.token if job is not None and job.may_be_active else witness.latest[name].token
    return counts == submission.token and cancel_runs(directory, [name], watch)[name]


def _withdraw(witness: Witness, name: str, evidence: Evidence, verdict: Verdict) -> bool:
    """Note the cancellation of a run that is active, and tell its process if it is on this machine."""
    if not verdict.may_change:
        return False
    submissions = Submissions(witness.directory)
    job = evidence.job if evidence.job is not None and evidence.job.may_be_active else None
    submission = submissions.find(job.token) if job else witness.latest.get(name)
    if submission is not None:
        submissions.cancel(submission, name)
    if job is None:
        _tell_process(witness.evidence(name))  # looked at again, now that the mark is there for who begins after this
    return verdict.status is not JobStatus.UNKNOWN


def _tell_process(evidence: Evidence) -> None:
    """Tell the process of a run that is at work on this machine."""
    if evidence.alive and evidence.last is not None and evidence.last.started is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(evidence.last.started.pid, signal.SIGTERM)


def _tell_slurm(watch: Watch, witness: Witness, jobs: list[tuple[str, JobEvidence]]) -> None:
    """One request for all tasks of an array; the name keeps it from another job that got the same id."""
    by_name: dict[str, list[str]] = {}
    shared: list[str] = []
    tasks = {job.job_id: (witness.jobs[name], job.token) for name, job in jobs}
    for job_id, (reference, token) in tasks.items():
        if reference.place is not None and _is_needed(witness, reference.mates, token):
            shared.append(job_id)
        else:
            by_name.setdefault(reference.job_name, []).append(job_id)
    for job_name, ids in by_name.items():
        watch.controller.cancel(ids, job_name=job_name)
    if shared:  # a task that has not begun finds out by itself
        watch.controller.signal_script(shared, LOOK)


def _is_needed(witness: Witness, mates: Iterable[str], token: str) -> bool:
    """Whether a task has runs to do that nobody has cancelled; asked once all cancellations are noted."""
    left = (mate for mate in mates if not witness.is_withdrawn(mate, token))
    return any(witness.verdict(mate)[1].may_change for mate in left)
