"""The sweep of a search: planned, or planned and carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mtf_config import ExecutionMode, ParameterGridSearch, SweepPoint
from mtf_slurm.cluster.interrupted import explaining_interrupts
from mtf_slurm.cluster.watch import Watch
from mtf_slurm.code.isolation import Code, describe_code, take_code
from mtf_slurm.code.keeping import runs_that_keep_code
from mtf_slurm.execute import refuse_problems, tell_left
from mtf_slurm.executor import Executor
from mtf_slurm.git import GitManager
from mtf_slurm.results import GridSearchResult
from mtf_slurm.room import estimate_room
from mtf_slurm.sweep import SweepPlan, SweepRequest, plan_sweep, refuse_conflicts

__all__ = ["plan_search", "submit_search"]


def submit_search(
    executor: Executor,
    watch: Watch,
    search: ParameterGridSearch,
    *,
    mode: ExecutionMode,
    limit: int | None,
    command: tuple[str, ...],
    git_manager: GitManager | None,
    resume_across_code: bool,
) -> GridSearchResult:
    """Submit every experiment of a search; in a folder that has a sweep already, what is missing of it.

    Args:
        executor: for the folder of the sweep.
        watch: asks Slurm.
        search: the base and the grids.
        mode: how the runs are executed.
        limit: how many run at a time.
        command: the words of their command.
        git_manager: of the repository; None finds the one around the project.
        resume_across_code: whether to continue checkpoints of other code.

    Raises:
        SLURMError: see `SLURMLauncher.submit_sweep`.
    """
    directory = executor.directory
    with explaining_interrupts(directory, executor.say) as names:
        points = list(search.points())
        names += [point.name for point in points]
        kept = runs_that_keep_code(directory, watch)
        configs = {point.name: point.config for point in points}
        refuse_problems(directory, executor.problems(configs, mode, command, kept))
        code = take_code(executor.project_root, git_manager, sweeps=[directory.path])
        request = _request(executor, search, points, command, code, kept)
        with executor.held(mode):
            plan = plan_sweep(directory, request)
            refuse_conflicts(directory, plan.conflicts)
            done = executor.carry_out(plan, mode, limit, resume_across_code=resume_across_code)
        if done is not None and mode is ExecutionMode.SLURM:
            tell_left(directory, done, executor.say)
        return GridSearchResult(directory.path, unnoted=done.unnoted if done else None, watch=watch)


def plan_search(
    executor: Executor,
    watch: Watch,
    search: ParameterGridSearch,
    *,
    command: tuple[str, ...],
    git_manager: GitManager | None,
) -> SweepPlan:
    """What `submit_search` would do, and how much room that takes; writes nothing.

    Args:
        executor: for the folder of the sweep.
        watch: asks Slurm.
        search: the base and the grids.
        command: the words of the command.
        git_manager: of the repository; None finds the one around the project.
    """
    directory = executor.directory
    code = Code(describe_code(executor.project_root, git_manager, sweeps=[directory.path]))
    kept = runs_that_keep_code(directory, watch)
    plan = plan_sweep(directory, _request(executor, search, list(search.points()), command, code, kept))
    return replace(plan, estimate=estimate_room(directory, plan))


def _request(
    executor: Executor,
    search: ParameterGridSearch,
    points: Sequence[SweepPoint],
    command: tuple[str, ...],
    code: Code,
    kept: Sequence[str],
) -> SweepRequest:
    return SweepRequest(
        name=executor.directory.path.name,
        points=points,
        project_root=executor.project_root,
        command=command,
        base=search.base_config,
        grids=[grid.to_dict() for grid in search.grids],
        naming=search.naming_strategy.value,
        code=code,
        keep_code=kept,
    )
