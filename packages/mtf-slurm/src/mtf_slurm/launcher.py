"""`SLURMLauncher`: submit experiments and sweeps, ask how they stand, cancel them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtf_config import ExecutionMode, ExperimentConfig, ParameterGridSearch
from mtf_slurm.asking import BY_NAME
from mtf_slurm.batch_result import BatchSubmissionResult, batch_result
from mtf_slurm.budgets import retry_words
from mtf_slurm.cancelling import cancel_runs
from mtf_slurm.cluster.answers import ClusterConfig
from mtf_slurm.cluster.controller import Controller
from mtf_slurm.cluster.watch import Watch
from mtf_slurm.code.isolation import Code, describe_code, take_code
from mtf_slurm.code.keeping import runs_that_keep_code
from mtf_slurm.errors import ClusterUnreachableError, JobSubmissionError, SLURMError, by_reason
from mtf_slurm.evidence import Witness
from mtf_slurm.execute import (
    LOCK_WAIT_S,
    Executed,
    check_request,
    default_display,
    execute_locally,
    explain_write_errors,
    held,
    option_problems,
    plan_only,
    refuse_options,
    submit,
)
from mtf_slurm.git import GitManager
from mtf_slurm.lock import is_locked
from mtf_slurm.render import DEFAULT_COMMAND, split_command
from mtf_slurm.results import GridSearchResult, RunResult, read_run
from mtf_slurm.retrying import RetryResult, prepare_retry
from mtf_slurm.room import estimate_room
from mtf_slurm.status import JobStatus
from mtf_slurm.submissions import Submission, Submissions, split_job_id
from mtf_slurm.sweep import SweepPlan, SweepRequest, lone_point, plan_sweep, refuse_conflicts, write_plan
from mtf_slurm.views import Display
from mtf_utils.rundir import SweepDirectory

if TYPE_CHECKING:
    from mtf_slurm.cluster.planning import SubmissionPlanner
    from mtf_slurm.cluster.submission import Launch

__all__ = ["BatchSubmissionResult", "SLURMLauncher"]

SINGLE = "single"
"""The folder of experiments that are submitted by themselves, inside the output folder."""

_SLURM_JOB_ID = re.compile(r"\d+(_\d+)?(/\d+)?")


class SLURMLauncher:
    """Submits experiments, and tells the truth about them.

    SLURM submits what is due, each run exactly once, and returns when the cluster has it; what an earlier call was kept
    from submitting is submitted first. LOCAL runs experiments on this machine and returns when they are over. DRY_RUN
    writes everything that SLURM would, and starts nothing.

    Args:
        slurm_template_path: the user's template of the submission script; None is the built-in one.
        output_dir: experiments submitted by themselves live in its folder `single`, sweeps in folders of their own.
        git_manager: the repository whose state is recorded with what is submitted; None finds that of `project_root`.
        project_root: the folder that the runs work in; None is the working directory.
        command: what a run executes, as a line or as words; `{python}`, `{config}`, `{run_dir}` and `{name}` are
            filled in.
        display: shows the progress of local runs; None draws a table on a terminal and prints lines elsewhere.
        submit_timeout_s: how long to wait for a cluster that does not answer, or takes no more jobs.

    Raises:
        SLURMError: the template or the project root does not exist.
        JobSubmissionError: the command cannot be read.
    """

    def __init__(
        self,
        slurm_template_path: str | os.PathLike[str] | None,
        output_dir: str | os.PathLike[str],
        git_manager: GitManager | None = None,
        *,
        project_root: str | os.PathLike[str] | None = None,
        command: str | Sequence[str] = DEFAULT_COMMAND,
        display: Display | None = None,
        submit_timeout_s: float = 600.0,
    ) -> None:
        self.slurm_template_path = None if slurm_template_path is None else Path(slurm_template_path)
        if self.slurm_template_path is not None and not self.slurm_template_path.is_file():
            raise SLURMError(f"slurm_template_path: there is no file {self.slurm_template_path}")
        self.project_root = Path(project_root or Path.cwd()).absolute()
        if not self.project_root.is_dir():
            raise SLURMError(f"project_root: there is no folder {self.project_root}")
        self.output_dir = Path(output_dir).absolute()
        self.git_manager = git_manager
        self.command = split_command(command)
        self.submit_timeout_s = submit_timeout_s
        self._display = display
        self._watch = Watch(Controller())
        self._folders = [self.output_dir / SINGLE]

    def submit_experiment(
        self, experiment_config: ExperimentConfig, execution_mode: ExecutionMode = ExecutionMode.SLURM
    ) -> str:
        """Submit one experiment.

        An experiment that is already active keeps its id; a finished one is not run again.

        Returns:
            Its job id: `123` as Slurm numbers it, `local-<token>` after the run ended, or `dry-<token>`.

        Raises:
            JobSubmissionError: the name is taken by an experiment with other settings, or the run cannot be started:
                the cluster refuses it, or takes no jobs for too long.
            SLURMError: the mode is not available, or the folder cannot be used.
            LaunchInterrupted: the launcher was told to stop; the run has saved and ended.
        """
        batch = self._submit_lone([experiment_config], execution_mode, None, single=True)
        name = experiment_config.experiment_name
        if name in batch.failed:
            raise JobSubmissionError(f"{name}: {batch.failed[name]}", reasons=batch.failed)
        return batch.job_ids[name]

    def submit_experiment_batch(
        self,
        experiments: Sequence[ExperimentConfig],
        execution_mode: ExecutionMode = ExecutionMode.SLURM,
        max_concurrent_jobs: int | None = None,
    ) -> BatchSubmissionResult:
        """Submit experiments together.

        Args:
            experiments: with names of their own.
            execution_mode: how they are executed.
            max_concurrent_jobs: how many run at a time; None: locally as many as there are GPUs, else one; in Slurm as
                many as the cluster likes.

        Raises:
            JobSubmissionError: the cluster takes no jobs for too long; a repeated call goes on.
            SLURMError: the mode is not available, or the folder cannot be used.
            LaunchInterrupted: the launcher was told to stop; the runs have saved and ended.
        """
        return self._submit_lone(experiments, execution_mode, max_concurrent_jobs, single=False)

    def submit_sweep(
        self,
        search: ParameterGridSearch,
        sweep_dir: str | os.PathLike[str],
        execution_mode: ExecutionMode = ExecutionMode.SLURM,
        max_concurrent_jobs: int | None = None,
        *,
        command: str | Sequence[str] | None = None,
    ) -> GridSearchResult:
        """Submit every experiment of a search; in a folder that has a sweep already, what is missing of it.

        Args:
            search: the base and the grids.
            sweep_dir: the folder of the sweep; its name is the sweep's.
            execution_mode: how the runs are executed.
            max_concurrent_jobs: how many run at a time; None: locally as many as there are GPUs, else one; in Slurm as
                many as the cluster likes.
            command: instead of the launcher's.

        Raises:
            JobSubmissionError: names are taken by runs with other settings, or what runs ask for cannot be had, and
                nothing was written; or the cluster took no run at all, or not all of them in time.
            SLURMError: the mode is not available, or the folder cannot be used.
            LaunchInterrupted: the launcher was told to stop; the runs have saved and ended.
        """
        check_request(execution_mode, max_concurrent_jobs)
        directory = SweepDirectory(Path(sweep_dir).absolute())
        code = take_code(self.project_root, self.git_manager, sweeps=[directory.path])
        request = self._request(search, directory, command, code)
        with self._held(directory, execution_mode):
            plan = plan_sweep(directory, request)
            refuse_conflicts(directory, plan.conflicts)
            refuse_options(directory, option_problems(plan.configs, execution_mode))
            done = self._carry_out(directory, plan, execution_mode, max_concurrent_jobs)
        if done is not None and execution_mode is ExecutionMode.SLURM:
            self._tell_left_out(directory, done)
        return GridSearchResult(directory.path, unnoted=done.unnoted if done else None, watch=self._watch)

    def plan_sweep(
        self,
        search: ParameterGridSearch,
        sweep_dir: str | os.PathLike[str],
        *,
        command: str | Sequence[str] | None = None,
    ) -> SweepPlan:
        """What `submit_sweep` would do, and how much room that takes; writes nothing.

        Args:
            search: the base and the grids.
            sweep_dir: the folder of the sweep.
            command: instead of the launcher's.
        """
        directory = SweepDirectory(Path(sweep_dir).absolute())
        code = Code(describe_code(self.project_root, self.git_manager, sweeps=[directory.path]))
        plan = plan_sweep(directory, self._request(search, directory, command, code))
        return replace(plan, estimate=estimate_room(directory, plan))

    def _request(
        self,
        search: ParameterGridSearch,
        directory: SweepDirectory,
        command: str | Sequence[str] | None,
        code: Code,
    ) -> SweepRequest:
        return SweepRequest.of(
            search,
            name=directory.path.name,
            project_root=self.project_root,
            command=self.command if command is None else split_command(command),
            code=code,
            keep_code=runs_that_keep_code(directory, self._watch),
        )

    def continue_sweep(
        self, sweep_dir: str | os.PathLike[str], max_concurrent_jobs: int | None = None
    ) -> GridSearchResult:
        """Run on this machine what is missing of a sweep that was planned before, as it was planned.

        Args:
            sweep_dir: the folder of the sweep.
            max_concurrent_jobs: how many run at a time; None: as many as there are GPUs, else one.

        Raises:
            SLURMError: there is no sweep in that folder, or it cannot be used.
            LaunchInterrupted: the launcher was told to stop; the runs have saved and ended.
        """
        check_request(ExecutionMode.LOCAL, max_concurrent_jobs)
        result = GridSearchResult(sweep_dir)
        directory = SweepDirectory(result.output_dir)
        with held(directory):
            names = [run.name for run in result.refresh()]
            self._remember(directory)
            done = execute_locally(directory, names, max_concurrent_jobs, display=self._display)
        return GridSearchResult(directory.path, unnoted=done.unnoted, watch=self._watch)

    def retry(
        self,
        sweep_dir: str | os.PathLike[str],
        names: Iterable[str] | None = None,
        *,
        same_code: bool = False,
        resume_across_code: bool = False,
        execution_mode: ExecutionMode | None = None,
        max_concurrent_jobs: int | None = None,
        dry_run: bool = False,
    ) -> RetryResult:
        """Have runs of a sweep tried again that have not finished and are not at work, as they were planned.

        Args:
            sweep_dir: the folder of the sweep.
            names: the runs, whose budgets begin anew; None: those that their budgets allow.
            same_code: whether they run the code of their last attempts; else that of now.
            resume_across_code: whether checkpoints that other code has made are continued, which is recorded; else runs
                that have such checkpoints are left out.
            execution_mode: how they are executed; None: as at the last submission.
            max_concurrent_jobs: how many run at a time; None: as at the last submission.
            dry_run: whether to do nothing, and only say what would be done.

        Raises:
            KeyError: there is no run of a name.
            JobSubmissionError: the cluster took no run, or not all of them in time; a repeated call goes on.
            SLURMError: there is no sweep in that folder, or it cannot be used.
            LaunchInterrupted: the launcher was told to stop; the runs have saved and ended.
        """
        result = GridSearchResult(sweep_dir, watch=self._watch)
        directory = SweepDirectory(result.output_dir)
        retry = prepare_retry(result, names, execution_mode=execution_mode, max_concurrent_jobs=max_concurrent_jobs)
        check_request(retry.mode, retry.limit)
        code = None if same_code else take_code(self.project_root, self.git_manager, sweeps=[directory.path])
        keep = runs_that_keep_code(directory, self._watch) if names is None else []
        retry = retry.with_code(code, keep=keep, resume_across_code=resume_across_code)
        done = None
        if retry.names and not dry_run:
            with self._held(directory, retry.mode):
                retry.note_code()
                plan = retry.plan(self.project_root)
                done = self._carry_out(directory, plan, retry.mode, retry.limit, asked=retry.how)
        return retry.outcome(done)

    def get_job_status(self, job_id: str) -> JobStatus:
        """The status of a job; UNKNOWN if nothing is known of it."""
        job = self.get_job(job_id)
        return job.status if job else JobStatus.UNKNOWN

    def get_job(self, job_id: str) -> RunResult | None:
        """Everything about the run that a job id stands for; None if nothing is known of it.

        Raises:
            SLURMError: it is not a job id.
        """
        found = self._find(job_id)
        if found is None:
            return None
        directory, _, name = found
        sweep = directory.sweep()
        entry = next((run for run in sweep.runs if run["name"] == name), None) if sweep else None
        return read_run(Witness.look(directory, self._watch, patient=True, names=[name]), entry) if entry else None

    def cancel_job(self, job_id: str) -> bool:
        """Have a job save and end, and not be started again.

        Returns:
            Whether it was active; False if it is over or unknown.

        Raises:
            ClusterUnreachableError: Slurm cannot be asked, or told.
            SLURMError: it is not a job id.
        """
        found = self._find(job_id)
        if found is None:
            return False
        directory, submission, name = found
        witness = Witness.look(directory, self._watch, names=[name])
        job = witness.verdict(name)[0].job
        counts = job.token if job is not None and job.may_be_active else witness.latest[name].token
        if counts != submission.token:
            return False
        return cancel_runs(directory, [name], self._watch)[name]

    def _submit_lone(
        self, experiments: Sequence[ExperimentConfig], mode: ExecutionMode, limit: int | None, *, single: bool
    ) -> BatchSubmissionResult:
        check_request(mode, limit)
        directory = SweepDirectory(self.output_dir / SINGLE)
        problems = option_problems({item.experiment_name: item for item in experiments}, mode)
        fine = [item for item in experiments if item.experiment_name not in problems]
        points = {point.identity + point.name: point for point in map(lone_point, fine)}
        request = SweepRequest(
            name=SINGLE,
            points=list(points.values()),
            project_root=self.project_root,
            command=self.command,
            code=take_code(self.project_root, self.git_manager, sweeps=[directory.path]),
            keep_code=runs_that_keep_code(directory, self._watch),
            additive=True,
        )
        active = self._active(directory, request) if single else {}
        if active:
            return BatchSubmissionResult(successful=tuple(active), job_ids=active)
        if not points:
            return BatchSubmissionResult(failed=problems)
        with self._held(directory, mode):
            plan = plan_sweep(directory, request)
            asked = BY_NAME if single else ""
            done = self._carry_out(directory, plan, mode, limit, single=single, asked=asked)
            return batch_result(plan, done, problems)

    def _active(self, directory: SweepDirectory, request: SweepRequest) -> dict[str, str]:
        """The job ids of those requested runs that another launcher has at work or in its queue."""
        plan = plan_sweep(directory, request)
        if not is_locked(directory):
            return {}
        witness = Witness.look(directory, self._watch, names=plan.names)
        return {
            name: job_id
            for name in plan.names
            if name not in plan.conflicts
            and (job_id := witness.job_id(name))
            and witness.verdict(name)[1].status.is_active
        }

    def _carry_out(
        self,
        directory: SweepDirectory,
        plan: SweepPlan,
        mode: ExecutionMode,
        limit: int | None,
        *,
        single: bool = False,
        asked: str = "",
    ) -> Executed | None:
        """Write the plan and execute it; the folder is held. None if there is nothing to do."""
        names = plan.names
        if not names:
            return None
        planner = None if mode is ExecutionMode.LOCAL else self._planner(directory, plan)
        launch = self._launch(planner) if planner is not None and mode is ExecutionMode.SLURM else None
        if launch is not None:
            launch.reach()
        self._remember(directory)
        for problem in estimate_room(directory, plan).problems:
            self._say(f"warning: {directory.path}: {problem}")
        with explain_write_errors(directory):
            write_plan(directory, plan)
        if planner is None:
            orphaned = ", ".join(plan.orphaned)
            remark = f"no longer a part of the sweep, and left alone: {orphaned}" if orphaned else ""
            return execute_locally(
                directory, names, limit, single=single, display=self._display, remark=remark, asked=asked
            )
        if launch is None:
            return plan_only(planner, names, self._most_tasks(), limit, single=single)
        return submit(launch, names, limit, single=single, asked=asked)

    def _planner(self, directory: SweepDirectory, plan: SweepPlan) -> SubmissionPlanner:
        from mtf_slurm.cluster.planning import SubmissionPlanner, read_template  # loads Jinja2

        return SubmissionPlanner(directory, read_template(self.slurm_template_path), plan.configs)

    def _most_tasks(self) -> int:
        """How many tasks an array may have; where no cluster tells, what is usual."""
        from mtf_slurm.cluster.planning import most_tasks

        try:
            settings = self._watch.controller.settings()
        except ClusterUnreachableError:
            settings = ClusterConfig()
        return most_tasks(settings.max_array_size, settings.max_job_count)

    def _launch(self, planner: SubmissionPlanner) -> Launch:
        from mtf_slurm.cluster.patience import Patience
        from mtf_slurm.cluster.submission import Launch  # loads tenacity

        return Launch(planner, self._watch.controller, self._say, Patience(timeout_s=self.submit_timeout_s))

    def _say(self, text: str) -> None:
        self._display = self._display or default_display()
        self._display.say(text)

    def _tell_left_out(self, directory: SweepDirectory, done: Executed) -> None:
        """Runs that were not submitted stop no other; where there is no other, it is an error."""
        for line in by_reason(done.held):
            self._say(f"left out: {line}")
        if done.held:
            self._say(f"to have one tried again, change its code or settings, or: {retry_words(directory)} RUN")
        reasons = "; ".join(by_reason(done.refused))
        if done.refused and not done.job_ids:
            raise JobSubmissionError(f"{directory.path}: no run was submitted: {reasons}", reasons=done.refused)
        if reasons:
            self._say(f"not submitted: {reasons}")

    def _held(self, directory: SweepDirectory, mode: ExecutionMode) -> contextlib.AbstractContextManager[None]:
        return held(directory, wait_s=LOCK_WAIT_S if mode is ExecutionMode.SLURM else 0.0)

    def _remember(self, directory: SweepDirectory) -> None:
        """Look for job ids there, too."""
        if directory.path not in self._folders:
            self._folders.append(directory.path)

    def _find(self, job_id: str) -> tuple[SweepDirectory, Submission, str] | None:
        """The run that a job id stands for; Slurm gives an id again after a crash, and then the newest has it."""
        is_slurm = _SLURM_JOB_ID.fullmatch(job_id) is not None
        token, index = ("", 0) if is_slurm else split_job_id(job_id)
        found: list[tuple[SweepDirectory, Submission, str]] = []
        inside = self.output_dir.iterdir() if self.output_dir.is_dir() else iter(())
        for folder in dict.fromkeys([*self._folders, *sorted(inside)]):
            directory = SweepDirectory(folder)
            if is_slurm:
                found += ((directory, *owner) for owner in Submissions(directory).owners(job_id))
            elif (submission := Submissions(directory).find(token)) is not None and index < len(submission.runs):
                found.append((directory, submission, submission.runs[index]))
        return max(found, key=lambda item: item[1].token, default=None)
