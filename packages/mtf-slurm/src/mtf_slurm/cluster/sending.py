"""Send one job to Slurm: note it, call sbatch, and find out what came of that if sbatch does not say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mtf_config import SLURMConfig
from mtf_slurm.cluster.answers import TaskState, base_id
from mtf_slurm.cluster.controller import Controller
from mtf_slurm.cluster.journal import JobJournal
from mtf_slurm.cluster.patience import NotYetError, Patience
from mtf_slurm.cluster.refusals import Answer, Outcome, explain_refusal
from mtf_slurm.cluster.script import JobScriptSpec
from mtf_slurm.errors import ClusterUnreachableError, JobSubmissionError
from mtf_slurm.status import JobStatus
from mtf_slurm.submissions import Submission
from mtf_utils.rundir import SweepDirectory

__all__ = ["Sending", "job_spec"]

_LOOKS: Final = 4
"""How often to look while it settles whether a job is there."""

_ANSWERS: Final = 5
"""That takes at least so many times as long as an answer."""

_REFUSED_CHAINS: Final = 3
"""How often Slurm has to refuse what a job is chained behind until it is believed."""


@dataclass
class Sending:
    """The tries to send one job.

    Attributes:
        directory: the folder of the sweep.
        submission: that the job belongs to; another one, of the same token, once the job had to be cut.
        number: of the job in it.
        controller: the cluster.
        split: see `Submitter`.
        patience: how long to wait for what.
        refused_chains: how often Slurm has refused what the job is chained behind.
    """

    directory: SweepDirectory
    submission: Submission
    number: int
    controller: Controller
    split: Callable[[Submission, int], Submission | None]
    patience: Patience
    refused_chains: int = field(default=0, init=False)

    @property
    def journal(self) -> JobJournal:
        """Of the job."""
        return JobJournal(self.directory, self.submission, self.number, self.patience.wall_clock)

    def step(self) -> None:
        """Make sure that no call of sbatch has queued the job, and call it.

        Raises:
            NotYetError: for now it is neither known to be in the queue nor refused.
        """
        if self.journal.may_be_queued:
            found = self._find()
            if found is not None:
                self.journal.note(found, found=True)
                return
        with self.journal.in_flight() as descriptor:
            answer = self.controller.submit(self.journal.script, self._options(), keep_open=[descriptor])
        if answer.outcome is Outcome.QUEUED:
            self.journal.note(answer.job_id, found=False)
        elif answer.outcome is Outcome.UNCLEAR:
            raise NotYetError(f"sbatch did not say whether it queued the job ({answer.message})")
        elif answer.outcome is Outcome.AWAY:
            self.journal.unsend()
            raise NotYetError(f"the controller is away ({answer.message})")
        elif answer.outcome is Outcome.FULL:
            self.journal.unsend()
            self._make_room(answer)
        else:
            self._take_refusal(answer)

    def _predecessors(self) -> list[str]:
        """The ids of the jobs that have to be over first."""
        ids: dict[str, None] = {}
        for reference in self.submission.jobs[self.number].after:
            if not reference.startswith("@"):
                ids[reference] = None
            elif (job := self.journal.store.job(self.submission, int(reference[1:]))) is not None:
                ids[job.job_id] = None  # else it was refused, and what it waited for is waited for as well
        return list(ids)

    def _options(self) -> tuple[str, ...]:
        ids = self._predecessors()
        after = ":".join(["afterany", *ids]) if ids else None
        return job_spec(self.directory, self.submission, self.number, SLURMConfig()).words(after)

    def _find(self) -> str | None:
        """The id of the job, if some call of sbatch has queued it; None only if that is certain.

        A request that the controller has received may be carried out a moment after it has answered another one. So
        squeue has to answer without the job for a while, several times what an answer takes. An answer that takes long
        says that the controller was held up meanwhile, so the while begins again.
        """
        patience, journal = self.patience, self.journal
        if journal.is_in_flight():
            raise NotYetError("sbatch, called by a launcher that was killed since, is still at work")
        quiet_since = patience.clock()
        usual = slowest = 0.0
        while True:
            start = patience.clock()
            if found := self._look():
                return found
            end = patience.clock()
            if end - start > max(patience.settle_s / _LOOKS, 2 * usual):
                quiet_since = end
            usual, slowest = end - start, max(slowest, end - start)
            if end - quiet_since >= max(patience.settle_s, _ANSWERS * slowest):
                return None
            patience.sleep(patience.settle_s / _LOOKS)

    def _look(self) -> str | None:
        journal = self.journal
        seen = self.controller.observe((), names=[journal.job_name])
        ids = {base_id(task.job_id) for task in seen.tasks.values() if _is_ours(task, journal.job_name)}
        ids |= {job_id for _, job_id in journal.claims() if job_id}
        if ids:
            return min(ids, key=int)
        if seen.queue_error:
            raise NotYetError(f"whether sbatch queued the job cannot be told yet ({seen.queue_error})")
        return None

    def _make_room(self, answer: Answer) -> None:
        """The cluster takes no more jobs: send fewer at once, or wait until some of ours are over."""
        cut = self.split(self.submission, self.number)
        if cut is not None:
            self.submission = cut
            raise NotYetError("the cluster takes fewer jobs at once; they are sent in smaller arrays")
        seen = self.controller.queue()
        if seen.queue_error or any(task.state.is_active for task in seen.tasks.values()):
            raise NotYetError(f"the cluster takes no more jobs until some are over ({answer.message})")
        raise JobSubmissionError(
            f"{self.directory.path}: the cluster takes no job from you, although you have none in its queue: "
            f"{answer.message}. If the limit is meant to be so, ask for less, else ask the cluster's administrators. A "
            "repeated call goes on where this one stopped"
        )

    def _take_refusal(self, answer: Answer) -> None:
        if not answer.certain and (found := self._find()) is not None:
            self.journal.note(found, found=True)
            return
        plan = self.submission.jobs[self.number]
        if "dependency" in answer.fields and plan.after and self.refused_chains < _REFUSED_CHAINS:
            # a crash has lost the job that this one is to wait for, and this one was about to get its id; each try
            # uses up an id
            self.refused_chains += 1
            self.journal.unsend()
            raise NotYetError(
                f"Slurm does not chain it behind jobs {', '.join(self._predecessors())} ({answer.message})"
            )
        options = plan.options
        self.journal.refuse(explain_refusal(answer, options, self._partitions(answer)))

    def _partitions(self, answer: Answer) -> list[str]:
        if "partition" not in answer.fields:
            return []
        try:
            return [partition.name for partition in self.controller.partitions()]
        except ClusterUnreachableError:
            return []  # they are only a help


def _is_ours(task: TaskState, job_name: str) -> bool:
    """A job that got an id and was then refused stays in the queue's memory; it never runs."""
    is_refused = task.state is JobStatus.FAILED and task.reason == "BadConstraints"
    return task.job_name == job_name and not is_refused


def job_spec(directory: SweepDirectory, submission: Submission, number: int, config: SLURMConfig) -> JobScriptSpec:
    """What the script of one of the jobs is made of."""
    job = submission.jobs[number]
    return JobScriptSpec(
        job_name=job.job_name,
        options=tuple(job.options),
        config=config,
        sweep_dir=directory.path,
        token=submission.token,
        number=number,
        tasks=job.tasks if job.is_array else None,
        throttle=job.throttle,
        is_shared=job.is_shared,
    )
