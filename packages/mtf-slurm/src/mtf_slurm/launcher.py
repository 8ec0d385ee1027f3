"""`SLURMLauncher`: submit experiments and sweeps, ask how they stand, cancel them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtf_config import ExecutionMode, ExperimentConfig, ParameterGridSearch
from mtf_slurm.batch_result import BatchSubmissionResult
from mtf_slurm.cancelling import cancel_submitted
from mtf_slurm.cluster.controller import Controller
from mtf_slurm.cluster.interrupted import explaining_interrupts
from mtf_slurm.cluster.watch import Watch
from mtf_slurm.code.isolation import take_code
from mtf_slurm.code.keeping import runs_that_keep_code
from mtf_slurm.errors import JobSubmissionError
from mtf_slurm.evidence import Witness
from mtf_slurm.execute import execute_locally, held, teller
from mtf_slurm.executor import Executor
from mtf_slurm.git import GitManager
from mtf_slurm.lone import SINGLE, submit_lone
from mtf_slurm.render import DEFAULT_COMMAND, split_command
from mtf_slurm.requests import (
    check_display,
    check_experiment,
    check_folder,
    check_git_manager,
    check_job_id,
    check_path,
    check_project_root,
    check_request,
    check_search,
    check_seconds,
    check_template,
)
from mtf_slurm.results import GridSearchResult, RunResult, read_run
from mtf_slurm.retrying import RetryResult, prepare_retry
from mtf_slurm.searches import plan_search, submit_search
from mtf_slurm.status import JobStatus
from mtf_slurm.submissions import find_job
from mtf_slurm.sweep import SweepPlan
from mtf_slurm.views import Display
from mtf_utils.rundir import SweepDirectory

if TYPE_CHECKING:
    from mtf_slurm.cluster.choosing import Draft

__all__ = ["BatchSubmissionResult", "SLURMLauncher"]


class SLURMLauncher:
    """Submits experiments, and tells the truth about them.

    SLURM submits what is due, each run exactly once, and returns when the cluster has it; what an earlier call was kept
    from submitting is submitted first. LOCAL runs experiments on this machine and returns when they are over. DRY_RUN
    writes everything that SLURM would, and starts nothing.

    Args:
        slurm_template_path: the user's template of the submission scripts, whatever experiments name; None is the one
            that an experiment names in `slurm.template_path`, else the built-in one.
        output_dir: experiments submitted by themselves live in its folder `single`, sweeps in folders of their own.
        git_manager: the repository whose state is recorded with what is submitted; None finds that of `project_root`.
        project_root: the folder that the runs work in; None is the working directory.
        command: what a run executes, as a line or as words; `{python}`, `{config}`, `{run_dir}` and `{name}` are
            filled in.
        display: shows the progress of local runs; None draws a table on a terminal and prints lines elsewhere.
        submit_timeout_s: how long to wait for a cluster that does not answer, or takes no more jobs.

    Raises:
        SLURMError: an argument is of no use, or the template or the project root does not exist.
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
        self.slurm_template_path = check_template(slurm_template_path)
        self.project_root = check_project_root(Path.cwd() if project_root is None else project_root)
        self.output_dir = check_path("output_dir", output_dir, "the folder that is to hold the runs")
        self.git_manager = check_git_manager(git_manager)
        self.command = split_command(command)
        self.submit_timeout_s = check_seconds("submit_timeout_s", submit_timeout_s)
        self._display = check_display(display)
        self._say = teller(display)
        self._watch = Watch(Controller(say=self._say))
        self._folders = [self.output_dir / SINGLE]

    def submit_experiment(
        self,
        experiment_config: ExperimentConfig,
        execution_mode: ExecutionMode = ExecutionMode.SLURM,
        *,
        resume_across_code: bool = False,
    ) -> str:
        """Submit one experiment.

        An experiment that is already active keeps its id; a finished one is not run again.

        Args:
            experiment_config: the experiment.
            execution_mode: how it is executed.
            resume_across_code: whether to continue checkpoints of other code, which is recorded.

        Returns:
            Its job id: `123` as Slurm numbers it, `local-<token>` after the run ended, or `dry-<token>`.

        Raises:
            JobSubmissionError: the name is taken by an experiment with other settings, or the run cannot be started:
                the cluster refuses it, or takes no jobs for too long.
            SLURMError: the mode is not available, or the folder cannot be used.
            LaunchInterrupted: the launcher was told to stop; the run has saved and ended.
        """
        check_experiment("experiment_config", experiment_config)
        batch = self._submit_lone([experiment_config], execution_mode, None, resume_across_code, single=True)
        name = experiment_config.experiment_name
        if name in batch.failed:
            raise JobSubmissionError(f"{name}: {batch.failed[name]}", reasons=batch.failed)
        return batch.job_ids[name]

    def submit_experiment_batch(
        self,
        experiments: Sequence[ExperimentConfig],
        execution_mode: ExecutionMode = ExecutionMode.SLURM,
        max_concurrent_jobs: int | None = None,
        *,
        resume_across_code: bool = False,
    ) -> BatchSubmissionResult:
        """Submit experiments together.

        Args:
            experiments: with names of their own.
            execution_mode: how they are executed.
            max_concurrent_jobs: how many run at a time; None: locally as many as there are GPUs, else one; in Slurm as
                many as the cluster likes.
            resume_across_code: whether to continue checkpoints of other code, which is recorded.

        Raises:
            JobSubmissionError: the cluster takes no jobs for too long; a repeated call goes on.
            SLURMError: the mode is not available, or the folder cannot be used.
            LaunchInterrupted: the launcher was told to stop; the runs have saved and ended.
        """
        return self._submit_lone(experiments, execution_mode, max_concurrent_jobs, resume_across_code, single=False)

    def submit_sweep(
        self,
        search: ParameterGridSearch,
        sweep_dir: str | os.PathLike[str],
        execution_mode: ExecutionMode = ExecutionMode.SLURM,
        max_concurrent_jobs: int | None = None,
        *,
        command: str | Sequence[str] | None = None,
        resume_across_code: bool = False,
    ) -> GridSearchResult:
        """Submit every experiment of a search; in a folder that has a sweep already, what is missing of it.

        Args:
            search: the base and the grids.
            sweep_dir: the folder of the sweep; its name is the sweep's.
            execution_mode: how the runs are executed.
            max_concurrent_jobs: how many run at a time; None: locally as many as there are GPUs, else one; in Slurm as
                many as the cluster likes.
            command: instead of the launcher's.
            resume_across_code: whether to continue checkpoints of other code, which is recorded.

        Raises:
            JobSubmissionError: names are taken by runs with other settings, or what runs ask for cannot be had, and
                nothing was written; or the cluster took no run at all, or not all of them in time.
            SLURMError: the mode is not available, or the folder cannot be used.
            LaunchInterrupted: the launcher was told to stop; the runs have saved and ended.
        """
        check_request(execution_mode, max_concurrent_jobs)
        check_search(search)
        directory = check_folder(sweep_dir)
        self._remember(directory)
        return submit_search(
            self._executor(directory),
            self._watch,
            search,
            mode=execution_mode,
            limit=max_concurrent_jobs,
            command=self.command if command is None else split_command(command),
            git_manager=self.git_manager,
            resume_across_code=resume_across_code,
        )

    def sweep_problems(
        self,
        sweep_dir: str | os.PathLike[str],
        plan: SweepPlan,
        execution_mode: ExecutionMode = ExecutionMode.SLURM,
    ) -> dict[str, str]:
        """Why runs of a plan cannot be executed, by their names, as `submit_sweep` would say it; writes nothing.

        Args:
            sweep_dir: the folder of the sweep.
            plan: of that folder.
            execution_mode: how the runs would be executed.
        """
        executor = self._executor(check_folder(sweep_dir))
        return executor.problems(plan.configs, execution_mode, plan.sweep.command, plan.kept_code)

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
        check_search(search)
        return plan_search(
            self._executor(check_folder(sweep_dir)),
            self._watch,
            search,
            command=self.command if command is None else split_command(command),
            git_manager=self.git_manager,
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
            sweep_dir: its folder.
            names: the runs, whose budgets begin anew; None: those that `submit_sweep` would submit again.
            same_code: whether they run the code of their last attempts; else that of now.
            resume_across_code: whether to continue checkpoints of other code, which is recorded.
            execution_mode: how they are executed; None, here and for the next: as at the last submission.
            max_concurrent_jobs: how many run at a time.
            dry_run: whether to do nothing, and only say what would be done.

        Raises:
            KeyError: there is no run of a name; beside that, what `submit_sweep` raises.
        """
        result = GridSearchResult(sweep_dir, watch=self._watch)
        directory = SweepDirectory(result.output_dir)
        with explaining_interrupts(directory, self._say) as asked_for:
            retry = prepare_retry(result, names, execution_mode=execution_mode, max_concurrent_jobs=max_concurrent_jobs)
            check_request(retry.mode, retry.limit)
            code = None if same_code else take_code(self.project_root, self.git_manager, sweeps=[directory.path])
            keep = runs_that_keep_code(directory, self._watch) if names is None else []
            retry = retry.with_code(code, keep=keep, resume_across_code=resume_across_code)
            if dry_run or not retry.names:
                return retry.outcome(None)
            asked_for += retry.names
            self._remember(directory)
            executor = self._executor(directory)
            with executor.held(retry.mode):
                done = retry.carry_out(executor)
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
        found = find_job(self._look_in(), check_job_id(job_id))
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
        found = find_job(self._look_in(), check_job_id(job_id))
        return found is not None and cancel_submitted(*found, self._watch)

    def draft_scripts(self, sweep_dir: str | os.PathLike[str], configs: Mapping[str, ExperimentConfig]) -> list[Draft]:
        """What sbatch would get for some runs, by kinds of jobs, and what is wrong with it; writes nothing.

        Args:
            sweep_dir: the folder of their sweep.
            configs: the experiments by the names of the runs.
        """
        return self._executor(check_folder(sweep_dir)).drafts(configs)

    def _submit_lone(
        self,
        experiments: Sequence[ExperimentConfig],
        mode: ExecutionMode,
        limit: int | None,
        resume_across_code: bool,
        *,
        single: bool,
    ) -> BatchSubmissionResult:
        return submit_lone(
            self._executor(SweepDirectory(self.output_dir / SINGLE)),
            self._watch,
            experiments,
            mode=mode,
            limit=limit,
            command=self.command,
            git_manager=self.git_manager,
            resume_across_code=resume_across_code,
            single=single,
        )

    def _executor(self, directory: SweepDirectory) -> Executor:
        return Executor(
            directory,
            self.project_root,
            self.slurm_template_path,
            self._watch.controller,
            self._say,
            self.submit_timeout_s,
            self._display,
        )

    def _look_in(self) -> list[Path]:  # the folders that job ids may belong to
        inside = sorted(self.output_dir.iterdir()) if self.output_dir.is_dir() else []
        return list(dict.fromkeys([*self._folders, *inside]))

    def _remember(self, directory: SweepDirectory) -> None:
        """Look for job ids there, too."""
        if directory.path not in self._folders:
            self._folders.append(directory.path)
