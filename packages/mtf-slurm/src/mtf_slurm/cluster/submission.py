"""Submit runs of a folder to Slurm: finish what an earlier call left open, plan, note the intent, send, make sure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mtf_config import ExecutionMode
from mtf_slurm.asking import ends_of, last_cause, reconsider
from mtf_slurm.budgets import Limits, hold_of
from mtf_slurm.cluster.answers import ClusterConfig
from mtf_slurm.cluster.controller import Controller
from mtf_slurm.cluster.holders import outstanding
from mtf_slurm.cluster.journal import JobJournal
from mtf_slurm.cluster.lanes import Holder
from mtf_slurm.cluster.memory import grown, megabytes, with_memory
from mtf_slurm.cluster.patience import NotYetError, Patience
from mtf_slurm.cluster.planning import SubmissionPlanner, most_tasks
from mtf_slurm.cluster.reasons import is_held_after_launch
from mtf_slurm.cluster.submitter import Submitter
from mtf_slurm.cluster.watch import Watch
from mtf_slurm.decisions import Decision, Step, due
from mtf_slurm.errors import ClusterUnreachableError, JobSubmissionError, SLURMError, SlurmNotFoundError
from mtf_slurm.evidence import Witness
from mtf_slurm.policy import Cause
from mtf_slurm.status import Evidence, JobStatus
from mtf_slurm.submissions import Submission, Submissions
from mtf_slurm.wording import listed
from mtf_utils.rundir import RunDirectoryError

__all__ = ["Launch", "Submitted"]


@dataclass(frozen=True)
class Submitted:
    """What a submission came to.

    Attributes:
        submission: as it is on disk; None if no run was due.
        job_ids: by the name of the run: its job now, whether it was submitted this time or before.
        refused: why a run was not submitted, by its name.
        left: why a run was not submitted although nothing keeps it from that, by its name: it is over, or in Slurm.
        held: why runs were left out that are not tried again until somebody asks for them, by name.
    """

    submission: Submission | None = None
    job_ids: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)


@dataclass
class _Chosen:
    """What is to become of the runs of a submission: those that are due with what is known of them, and the others.

    `stuck` are the ids of jobs in the queue that Slurm holds because a node could not start them.
    """

    due: dict[str, Evidence] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    stuck: list[str] = field(default_factory=list)


@dataclass
class Launch:
    """Submissions to Slurm in one folder, which the caller holds.

    Attributes:
        planner: plans them.
        controller: the cluster.
        say: tells the user what takes long.
        patience: how long to wait for what.
    """

    planner: SubmissionPlanner
    controller: Controller
    say: Callable[[str], None]
    patience: Patience = field(default_factory=Patience)

    def reach(self) -> None:
        """Wait until the cluster answers.

        Raises:
            JobSubmissionError: it does not, for too long.
            SlurmNotFoundError: there is none.
        """
        self._settings()

    def submit(self, names: Sequence[str], limit: int | None, *, single: bool = False, asked: str = "") -> Submitted:
        """Submit those of some runs that are due, and return when Slurm has all of them.

        Args:
            names: of the runs, which have folders.
            limit: how many runs of the folder may be at work at a time; None is no bound.
            single: whether it is one experiment, submitted by itself.
            asked: how the runs were asked for explicitly, so that their budgets begin anew; empty if they were not.

        Raises:
            JobSubmissionError: the cluster did not take a job in time; a repeated call goes on.
            SlurmNotFoundError: there is no cluster.
            OSError: something cannot be written.
        """
        self.complete()
        witness = self._look(names)
        chosen = self._select(witness, names, asked)
        refused, left = chosen.refused, chosen.left
        if chosen.stuck:
            self._release(chosen.stuck)
        submission = self._send(chosen.due, limit, single=single) if chosen.due else None
        job_ids: dict[str, str] = {}
        for name in names:
            if name not in refused and (job_id := witness.job_id(name)):
                job_ids[name] = job_id
            elif name in left:
                refused[name] = "it is over already, and no job did it; its folder tells how it ended"
        if submission is not None:
            sent, not_taken = self._outcome(submission)
            job_ids |= sent
            refused |= not_taken
            job_ids = {name: job_id for name, job_id in job_ids.items() if name not in not_taken}
        return Submitted(submission, job_ids, refused, left, chosen.held)

    def complete(self) -> None:
        """Send what earlier calls were stopped from sending, and what the controller has lost since.

        Raises:
            JobSubmissionError: the cluster did not take a job in time; a repeated call goes on.
        """
        submissions = Submissions(self.planner.directory).all()
        later: set[str] = set()
        pending: list[Submission] = []
        for submission in reversed(submissions):
            if submission.mode is ExecutionMode.SLURM and not later.issuperset(submission.runs):
                pending.append(submission)
            if submission.mode is not ExecutionMode.DRY_RUN:
                later |= set(submission.runs)
        for submission in reversed(pending):
            self._complete(submission)

    def _complete(self, submission: Submission) -> None:
        journals = [self._journal(submission, number) for number in range(len(submission.jobs))]
        submitter = self._submitter()
        is_open = not all(journal.is_settled for journal in journals)
        if is_open:
            self.say(f"completing the submission {submission.token}, which was interrupted")
            submission = submitter.send(submission)
        if is_open or min(journal.age_s() for journal in journals) < self._settings().min_job_age_s:
            submitter.confirm(submission)

    def _select(self, witness: Witness, names: Sequence[str], asked: str) -> _Chosen:
        chosen = _Chosen()
        for name in names:
            run = self.planner.directory.run(name)
            try:
                evidence = witness.evidence(name)
                decision = reconsider(run, evidence, due(evidence, hold_of(run, evidence)), asked)
            except RunDirectoryError as error:
                chosen.refused[name] = str(error)
                continue
            if decision.step is Step.START:
                chosen.due[name] = evidence
            elif decision.step in (Step.DONE, Step.ADOPT):
                chosen.left[name] = _why_left(witness, name, decision)
                job = evidence.job
                if job and job.task and is_held_after_launch(job.task.reason) and job.job_id not in chosen.stuck:
                    chosen.stuck.append(job.job_id)
            elif decision.step is Step.HOLD:
                chosen.held[name] = decision.reason
            else:
                chosen.refused[name] = decision.reason
        return chosen

    def _send(self, due: Mapping[str, Evidence], limit: int | None, *, single: bool) -> Submission:
        directory = self.planner.directory
        settings = self._settings()
        memory = self._memory(due)
        configs = {name: with_memory(self.planner.config(name), amount) for name, amount in memory.items()}
        self.planner = replace(self.planner, configs={**self.planner.configs, **configs})
        submission, files = self.planner.plan(
            list(due),
            mode=ExecutionMode.SLURM,
            max_tasks=most_tasks(settings.max_array_size, settings.max_job_count),
            limit=limit,
            holders=self._holders() if limit is not None else (),
            single=single,
            ended=ends_of(due.items()),
            memory=memory,
        )
        Submissions(directory).publish(submission, files)
        submitter = self._submitter()
        return submitter.confirm(submitter.send(submission))

    def _release(self, job_ids: Sequence[str]) -> None:
        """Let jobs start that Slurm holds; a node that could not start them may be sound by now, or another is free."""

        def step() -> None:
            try:
                self.controller.release(job_ids)
            except ClusterUnreachableError as error:
                raise NotYetError(f"held jobs cannot be released ({error})") from error

        which = f"because a node could not start it: {listed(job_ids)}"
        try:
            self._submitter().wait_for(step)
        except JobSubmissionError:
            raise  # it did not answer for too long
        except SLURMError as error:  # no reason not to submit the others
            self.say(f"Slurm does not release what it holds {which} ({error}); ask the site")
        else:
            self.say(f"released what Slurm held {which}")

    def _memory(self, due: Mapping[str, Evidence]) -> dict[str, str]:
        """What runs ask for instead of the memory of their configuration, because that did not suffice."""
        before: dict[str, str] = {}
        for submission in Submissions(self.planner.directory).all():
            before |= submission.memory
        found: dict[str, str] = {}
        for name, evidence in due.items():
            config = self.planner.config(name)
            own = config.slurm.mem if config.slurm else None
            if own is None:
                continue  # nothing was asked for, so there is nothing to multiply
            asked = max(own, before.get(name, own), key=megabytes)
            if last_cause(evidence) is Cause.OUT_OF_MEMORY:
                more = grown(asked, Limits.of(self.planner.directory.run(name)).budgets)
                self.say(f"{name}: {asked} of memory did not suffice; it asks for {more}")
                asked = more
            if asked != own:
                found[name] = asked
        return found

    def _outcome(self, submission: Submission) -> tuple[dict[str, str], dict[str, str]]:
        """The ids of the runs that Slurm took, and why it did not take others."""
        job_ids: dict[str, str] = {}
        refused: dict[str, str] = {}
        store = Submissions(self.planner.directory)
        for number in range(len(submission.jobs)):
            names = submission.runs_of(number)
            if reason := store.refused(submission, number):
                refused |= dict.fromkeys(names, reason)
            elif job := store.job(submission, number):
                job_ids |= {name: submission.run_id(number, name, job.job_id) for name in names}
        return job_ids, refused

    def _look(self, names: Sequence[str]) -> Witness:
        """What is known of some runs; waits until Slurm answers, if that matters."""
        found: list[Witness] = []

        def step() -> None:
            witness = Witness.look(self.planner.directory, Watch(self.controller), names=names)
            if witness.observation is not None and witness.observation.queue_error:
                raise NotYetError(
                    f"whether the runs are in the queue cannot be told ({witness.observation.queue_error})"
                )
            found.append(witness)

        self._submitter().wait_for(step)
        return found[-1]

    def _settings(self) -> ClusterConfig:
        found: list[ClusterConfig] = []

        def step() -> None:
            try:
                found.append(self.controller.settings())
            except SlurmNotFoundError:
                raise
            except ClusterUnreachableError as error:
                raise NotYetError(f"the cluster cannot be asked ({error})") from error

        self._submitter().wait_for(step)
        return found[-1]

    def _holders(self) -> list[Holder]:
        found: list[list[Holder]] = []

        def step() -> None:
            seen = self.controller.queue()
            if seen.queue_error:
                raise NotYetError(f"the cluster cannot be asked ({seen.queue_error})")
            found.append(outstanding(self.planner.directory, seen))

        self._submitter().wait_for(step)
        return found[-1]

    def _submitter(self) -> Submitter:
        return Submitter(self.planner.directory, self.controller, self.say, self.planner.split, self.patience)

    def _journal(self, submission: Submission, number: int) -> JobJournal:
        return JobJournal(self.planner.directory, submission, number, self.patience.wall_clock)


def _why_left(witness: Witness, name: str, decision: Decision) -> str:
    """In few words, so that many runs have the same: what keeps a run from being submitted again."""
    status = witness.verdict(name)[1].status
    if decision.step is Step.ADOPT:
        return f"in Slurm already ({status.value})"
    return "complete" if status is JobStatus.COMPLETED else f"{status.value}: {decision.reason}"
