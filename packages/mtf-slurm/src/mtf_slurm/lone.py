"""Experiments that are submitted without a sweep, one or several: runs of a folder that grows with every call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mtf_config import ExecutionMode, ExperimentConfig
from mtf_slurm.asking import BY_NAME
from mtf_slurm.batch_result import BatchSubmissionResult, batch_result
from mtf_slurm.cluster.interrupted import explaining_interrupts
from mtf_slurm.cluster.watch import Watch
from mtf_slurm.code.isolation import take_code
from mtf_slurm.code.keeping import runs_that_keep_code
from mtf_slurm.execute import active_elsewhere, explain_write_errors
from mtf_slurm.executor import Executor
from mtf_slurm.git import GitManager
from mtf_slurm.requests import check_request, distinct_experiments
from mtf_slurm.sweep import SweepRequest, lone_point, plan_sweep

__all__ = ["SINGLE", "submit_lone"]

SINGLE: Final = "single"
"""Their folder, inside the output folder of a launcher."""


def submit_lone(
    executor: Executor,
    watch: Watch,
    experiments: Sequence[ExperimentConfig],
    *,
    mode: ExecutionMode,
    limit: int | None,
    command: tuple[str, ...],
    git_manager: GitManager | None,
    resume_across_code: bool,
    single: bool,
) -> BatchSubmissionResult:
    """Submit experiments that belong to no sweep.

    Args:
        executor: for their folder.
        watch: asks Slurm.
        experiments: as the caller gave them.
        mode: how they are executed.
        limit: how many run at a time.
        command: the words of their command.
        git_manager: of the repository; None finds the one around the project.
        resume_across_code: whether to continue checkpoints of other code.
        single: whether it is one experiment, asked for by its name.

    Raises:
        SLURMError: see `SLURMLauncher.submit_experiment_batch`.
    """
    check_request(mode, limit)
    directory = executor.directory
    configs, problems = distinct_experiments(experiments)
    with explaining_interrupts(directory, executor.say) as names:
        names += configs
        kept = runs_that_keep_code(directory, watch)
        problems |= executor.problems(configs, mode, command, kept)
        points = [lone_point(config) for name, config in configs.items() if name not in problems]
        request = SweepRequest(
            name=directory.path.name,
            points=points,
            project_root=executor.project_root,
            command=command,
            code=take_code(executor.project_root, git_manager, sweeps=[directory.path]),
            keep_code=kept,
            additive=True,
        )
        with explain_write_errors(directory):
            active = active_elsewhere(directory, plan_sweep(directory, request), watch) if single else {}
        if active:
            return BatchSubmissionResult(successful=tuple(active), job_ids=active)
        if not points:
            return BatchSubmissionResult(failed=problems)
        with executor.held(mode):
            plan = plan_sweep(directory, request)
            asked = BY_NAME if single else ""
            done = executor.carry_out(
                plan, mode, limit, single=single, asked=asked, resume_across_code=resume_across_code
            )
            return batch_result(plan, done, problems)
