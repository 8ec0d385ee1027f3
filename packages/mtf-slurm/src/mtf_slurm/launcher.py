"""`SLURMLauncher`: submit experiments and sweeps, ask how they stand, cancel them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtf_config import ExecutionMode, ExperimentConfig, ParameterGridSearch
from mtf_slurm.code.isolation import Code, describe_code, take_code
from mtf_slurm.code.keeping import runs_that_keep_code
from mtf_slurm.errors import JobSubmissionError, SLURMError
from mtf_slurm.evidence import Witness
from mtf_slurm.execute import Executed, check_request, execute, explain_write_errors, held
from mtf_slurm.git import GitManager
from mtf_slurm.render import DEFAULT_COMMAND, split_command
from mtf_slurm.results import GridSearchResult, RunResult, read_run
from mtf_slurm.status import JobStatus
from mtf_slurm.submissions import Submission, Submissions, split_job_id
from mtf_slurm.sweep import SweepPlan, SweepRequest, lone_point, plan_sweep, refuse_conflicts, write_plan
from mtf_slurm.views import Display
from mtf_utils.rundir import SweepDirectory

__all__ = ["BatchSubmissionResult", "SLURMLauncher"]

SINGLE = "single"
"""The folder of experiments that are submitted by themselves, inside the output folder."""

_SLURM_JOB_ID = re.compile(r"\d+(_\d+)?")


@dataclass(frozen=True, kw_only=True)
class BatchSubmissionResult:
    """What became of a batch.

    Attributes:
        successful: the names whose experiments were all submitted, in order.
        failed: why an experiment could not be submitted, by its name; no such name is in `successful`, not even where
            another experiment of that name was submitted.
        job_ids: the job id of every submitted experiment, by its name.
    """

    successful: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    job_ids: Mapping[str, str] = field(default_factory=dict)


class SLURMLauncher:
    """Submits experiments, and tells the truth about them.

    LOCAL runs them on this machine and returns when they are over; DRY_RUN writes everything and starts nothing.

    Args:
        slurm_template_path: the user's template of the submission script; None is the built-in one.
        output_dir: experiments submitted by themselves live in its folder `single`, sweeps in folders of their own.
        git_manager: the repository whose state is recorded with what is submitted; None finds that of `project_root`.
        project_root: the folder that the runs work in; None is the working directory.
        command: what a run executes, as a line or as words; `{python}`, `{config}`, `{run_dir}` and `{name}` are
            filled in.
        display: shows the progress of local runs; None draws a table on a terminal and prints lines elsewhere.

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
        self._display = display
        self._folders = [self.output_dir / SINGLE]

    def submit_experiment(
        self, experiment_config: ExperimentConfig, execution_mode: ExecutionMode = ExecutionMode.SLURM
    ) -> str:
        """Submit one experiment.

        An experiment that is already active keeps its id; a finished one is not run again.

        Returns:
            Its job id: `local-<token>` after the run ended, or `dry-<token>`.

        Raises:
            JobSubmissionError: the name is taken by an experiment with other settings, or the run cannot be started.
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
            max_concurrent_jobs: how many run at a time; None: locally as many as there are GPUs, else one.

        Raises:
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
            max_concurrent_jobs: how many run at a time; None: locally as many as there are GPUs, else one.
            command: instead of the launcher's.

        Raises:
            JobSubmissionError: names are taken by runs with other settings; nothing was written.
            SLURMError: the mode is not available, or the folder cannot be used.
            LaunchInterrupted: the launcher was told to stop; the runs have saved and ended.
        """
        check_request(execution_mode, max_concurrent_jobs)
        directory = SweepDirectory(Path(sweep_dir).absolute())
        code = take_code(self.project_root, self.git_manager, sweeps=[directory.path])
        request = self._request(search, directory, command, code)
        with held(directory):
            plan = plan_sweep(directory, request)
            refuse_conflicts(directory, plan.conflicts)
            done = self._carry_out(directory, plan, execution_mode, max_concurrent_jobs, single=False)
        return GridSearchResult(directory.path, unnoted=done.unnoted if done else None)

    def plan_sweep(
        self,
        search: ParameterGridSearch,
        sweep_dir: str | os.PathLike[str],
        *,
        command: str | Sequence[str] | None = None,
    ) -> SweepPlan:
        """What `submit_sweep` would do; writes nothing.

        Args:
            search: the base and the grids.
            sweep_dir: the folder of the sweep.
            command: instead of the launcher's.
        """
        directory = SweepDirectory(Path(sweep_dir).absolute())
        code = Code(describe_code(self.project_root, self.git_manager))
        return plan_sweep(directory, self._request(search, directory, command, code))

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
            keep_code=runs_that_keep_code(directory),
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
            done = execute(directory, names, ExecutionMode.LOCAL, max_concurrent_jobs, display=self._display)
        return GridSearchResult(directory.path, unnoted=done.unnoted)

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
        return read_run(Witness.look(directory), entry) if entry else None

    def cancel_job(self, job_id: str) -> bool:
        """Have a job save and end, and not be started again.

        Returns:
            Whether it was active; False if it is over or unknown.

        Raises:
            SLURMError: it is not a job id.
        """
        found = self._find(job_id)
        if found is None:
            return False
        directory, submission, name = found
        witness = Witness.look(directory)
        evidence, verdict = witness.verdict(name)
        if witness.latest[name].token != submission.token or not verdict.status.is_active:
            return False
        Submissions(directory).cancel(submission, name)
        if evidence.alive and evidence.last is not None and evidence.last.started is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(evidence.last.started.pid, signal.SIGTERM)
        return True

    def _submit_lone(
        self, experiments: Sequence[ExperimentConfig], mode: ExecutionMode, limit: int | None, *, single: bool
    ) -> BatchSubmissionResult:
        check_request(mode, limit)
        directory = SweepDirectory(self.output_dir / SINGLE)
        points = {point.identity + point.name: point for point in map(lone_point, experiments)}
        request = SweepRequest(
            name=SINGLE,
            points=list(points.values()),
            project_root=self.project_root,
            command=self.command,
            code=take_code(self.project_root, self.git_manager, sweeps=[directory.path]),
            keep_code=runs_that_keep_code(directory),
            additive=True,
        )
        active = self._active(directory, request) if single else {}
        if active:
            return BatchSubmissionResult(successful=tuple(active), job_ids=active)
        with held(directory):
            plan = plan_sweep(directory, request)
            return _batch(plan, self._carry_out(directory, plan, mode, limit, single=single))

    def _active(self, directory: SweepDirectory, request: SweepRequest) -> dict[str, str]:
        """The job ids of those requested runs that another launcher has at work or in its queue."""
        plan = plan_sweep(directory, request)
        witness = Witness.look(directory)
        if not witness.launcher_at_work:
            return {}
        names = [name for name in plan.names if name in witness.latest]
        return {
            name: witness.latest[name].job_id(name)
            for name in names
            if witness.verdict(name)[1].status.is_active and name not in plan.conflicts
        }

    def _carry_out(
        self, directory: SweepDirectory, plan: SweepPlan, mode: ExecutionMode, limit: int | None, *, single: bool
    ) -> Executed | None:
        """Write the plan and execute it; the folder is held. None if there is nothing to do."""
        names = plan.names
        if not names:
            return None
        self._remember(directory)
        with explain_write_errors(directory):
            write_plan(directory, plan)
        orphaned = ", ".join(plan.orphaned)
        remark = f"no longer a part of the sweep, and left alone: {orphaned}" if orphaned else ""
        return execute(directory, names, mode, limit, single=single, display=self._display, remark=remark)

    def _remember(self, directory: SweepDirectory) -> None:
        """Look for job ids there, too."""
        if directory.path not in self._folders:
            self._folders.append(directory.path)

    def _find(self, job_id: str) -> tuple[SweepDirectory, Submission, str] | None:
        if _SLURM_JOB_ID.fullmatch(job_id):
            return None
        token, index = split_job_id(job_id)
        inside = self.output_dir.iterdir() if self.output_dir.is_dir() else iter(())
        for folder in dict.fromkeys([*self._folders, *sorted(inside)]):
            directory = SweepDirectory(folder)
            submission = Submissions(directory).find(token) if folder.is_dir() else None
            if submission is not None and index < len(submission.runs):
                return directory, submission, submission.runs[index]
        return None


def _batch(plan: SweepPlan, done: Executed | None) -> BatchSubmissionResult:
    if done is None:
        return BatchSubmissionResult(failed=plan.conflicts)
    submitted = tuple(name for name in plan.names if name not in done.refused)
    return BatchSubmissionResult(
        successful=tuple(name for name in submitted if name not in plan.conflicts),
        failed=dict(plan.conflicts) | done.refused,
        job_ids={name: done.submission.job_id(name) for name in submitted},
    )
