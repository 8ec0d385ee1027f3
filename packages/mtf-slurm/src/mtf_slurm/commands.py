"""The verbs of `mtf` that work on whole sweeps: `plan`, `run`, `submit`, `results`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from mtf_config import ExecutionMode
from mtf_config.setting_words import add_settings
from mtf_slurm.cluster.sharing import shared_jobs
from mtf_slurm.errors import SLURMError, by_reason
from mtf_slurm.finding import find_sweep
from mtf_slurm.launcher import SLURMLauncher
from mtf_slurm.monitored import monitored
from mtf_slurm.opening import OpenedSweep, open_sweep
from mtf_slurm.plan_lines import plan_lines, script_lines
from mtf_slurm.reports import ranking_lines
from mtf_slurm.results import GridSearchResult
from mtf_slurm.retry_options import add_resume_across_code, add_retries
from mtf_slurm.status import JobStatus
from mtf_slurm.verbs import (
    add_folder,
    add_jobs,
    add_json,
    explained,
    print_json,
    print_lines,
    print_status,
    reached,
    reading,
    say,
)
from mtf_utils.cli import DONE, USER_MISTAKE, WORK_FAILED, Command, CommandError

__all__ = ["PLAN", "RESULTS", "RUN", "SUBMIT"]


def _configure_sweep(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("sweep", metavar="SWEEP", help=what)
    add_settings(parser)
    parser.add_argument("-o", "--output-dir", metavar="DIR", help="where the runs are kept (default: as the file says)")
    parser.add_argument(
        "--project-root", metavar="DIR", help="the folder that runs work in (default: the project of the sweep file)"
    )
    add_retries(parser)
    parser.add_argument(
        "--template",
        metavar="FILE",
        help="your template of the scripts that Slurm gets (default: slurm.template_path of the runs, else built in)",
    )
    add_json(parser)


def _configure_submission(parser: argparse.ArgumentParser, what: str, jobs: str) -> None:
    _configure_sweep(parser, what)
    add_jobs(parser, jobs)
    add_resume_across_code(parser)


def _configure_plan(parser: argparse.ArgumentParser) -> None:
    _configure_sweep(parser, "a sweep file")
    parser.add_argument("--scripts", action="store_true", help="also show the scripts that Slurm would get")


@reading
def _plan(arguments: argparse.Namespace) -> int:
    opened = open_sweep(arguments)
    plan = opened.launcher.plan_sweep(opened.search, opened.folder)
    # who names a template has Slurm in mind, whatever the file says
    mode = ExecutionMode.SLURM if arguments.template or arguments.scripts else opened.spec.execution
    problems = opened.launcher.sweep_problems(opened.folder, plan, mode or ExecutionMode.SLURM)
    shown = arguments.scripts or any(config.slurm and config.slurm.template_path for config in plan.configs.values())
    drafts = opened.launcher.draft_scripts(opened.folder, plan.configs) if shown or arguments.template else []
    if arguments.json:
        data = plan.sweep.to_dict() | {"new": list(plan.new), "conflicts": dict(plan.conflicts)}
        data |= {"estimate": plan.estimate.to_dict() if plan.estimate else None}
        data |= {"shared_jobs": [dataclasses.asdict(shared) for shared in shared_jobs(plan.configs)]}
        data |= {"problems": problems, "scripts": [draft.to_dict() for draft in drafts]}
        print_json("plan", data | {"output_dir": str(opened.folder)})
    else:
        print_lines([*plan_lines(plan, problems), f"in {opened.folder}", *script_lines(drafts)])
    return USER_MISTAKE if plan.conflicts or problems else DONE


def _configure_run(parser: argparse.ArgumentParser) -> None:
    what = "a sweep file, or the folder of a sweep that is to be continued"
    _configure_submission(parser, what, "one per GPU, else one")
    parser.add_argument(
        "-e",
        "--execution",
        choices=[mode.value for mode in ExecutionMode],
        help="where the runs of a file are executed (default: as it says, else local)",
    )


@explained
def _run(arguments: argparse.Namespace) -> int:
    mode = ExecutionMode(arguments.execution) if arguments.execution else None
    if Path(arguments.sweep).is_dir():
        if mode not in (None, ExecutionMode.LOCAL):
            raise CommandError(f"--execution {mode}: a folder is continued on this machine; name the sweep file")
        if arguments.retries:
            raise CommandError(f"--retries {arguments.retries}: a folder is continued as planned; name the sweep file")
        if arguments.settings:
            raise CommandError(f"{arguments.settings[0]}: a folder is continued as planned; name the sweep file")
        if arguments.resume_across_code:
            raise CommandError("--resume-across-code: a folder is continued with the code it has; name the sweep file")
        _refuse_template(arguments)
        folder = Path(arguments.sweep)
        result = SLURMLauncher(None, folder.parent).continue_sweep(folder, arguments.jobs)
    else:
        opened = open_sweep(arguments)
        jobs = opened.spec.limits.max_concurrent_jobs if arguments.jobs is None else arguments.jobs
        mode = mode or opened.spec.execution or ExecutionMode.LOCAL
        if mode is ExecutionMode.LOCAL:
            _refuse_template(arguments)
        result = _submit_opened(opened, mode, jobs, arguments)
    print_status("run", result, as_json=arguments.json)
    if mode is ExecutionMode.SLURM:
        return _submitted(result)
    return DONE if result.is_complete or mode is ExecutionMode.DRY_RUN else WORK_FAILED


def _refuse_template(arguments: argparse.Namespace) -> None:
    if arguments.template:
        raise CommandError(
            f"--template {arguments.template}: runs on this machine get no script of Slurm; leave it out"
        )


def _configure_submit(parser: argparse.ArgumentParser) -> None:
    _configure_submission(parser, "a sweep file", "as the file says")


@explained
def _submit(arguments: argparse.Namespace) -> int:
    opened = open_sweep(arguments)
    jobs = opened.spec.limits.max_concurrent_jobs if arguments.jobs is None else arguments.jobs
    result = _submit_opened(opened, ExecutionMode.SLURM, jobs, arguments)
    print_status("submit", result, as_json=arguments.json)
    return _submitted(result)


def _submit_opened(
    opened: OpenedSweep, mode: ExecutionMode, jobs: int | None, arguments: argparse.Namespace
) -> GridSearchResult:
    across = arguments.resume_across_code
    return opened.launcher.submit_sweep(opened.search, opened.folder, mode, jobs, resume_across_code=across)


def _submitted(result: GridSearchResult) -> int:
    """Whether everything that was asked for has reached Slurm; how it goes on is told by `mtf status`."""
    if any(run.status in (JobStatus.NOT_SUBMITTED, JobStatus.LOST) for run in result):
        return WORK_FAILED
    return reached(result)


def _configure_results(parser: argparse.ArgumentParser) -> None:
    add_folder(parser, optional=True)
    parser.add_argument("-m", "--metric", help="rank by this metric (default: checkpoint.monitor of the sweep)")
    parser.add_argument("--mode", choices=("min", "max"), help="what is best (default: checkpoint.mode of the sweep)")
    parser.add_argument("-n", "--top", type=int, metavar="N", help="show the best N only")
    parser.add_argument("--all", action="store_true", help="rank unfinished runs, too, by their last value")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a table of all runs")
    add_json(parser)


@reading
def _results(arguments: argparse.Namespace) -> int:
    result = GridSearchResult.load(folder := find_sweep(arguments.dir))
    monitor, its_mode = monitored(result)
    metric = arguments.metric or monitor
    if arguments.top is not None and arguments.top < 1:
        raise CommandError(f"--top {arguments.top}: expected a number from 1")
    if metric is None:
        raise SLURMError(
            f"{result.output_dir}: neither its runs' config.json nor its base can be read; name the --metric to rank by"
        )
    # a mode that was chosen for another metric says nothing about this one
    mode: Any = arguments.mode or (its_mode if metric == monitor else "min")
    if arguments.csv:
        say(f"written to {result.to_csv(arguments.csv)}")
    ranked = result.leaderboard(metric, mode, top=arguments.top, unfinished=arguments.all)
    if arguments.json:
        ranking = {"metric": metric, "mode": mode, "runs": [run.name for run in ranked]}
        print_json("results", result.to_dict() | {"ranking": ranking})
        return DONE
    print_lines(ranking_lines(ranked, metric))
    if arguments.dir is None:
        print_lines([f"in {folder}"])  # nobody has named it
    for line in by_reason(result.failures()):
        say(line)
    return DONE


PLAN = Command("show what a sweep would run, and write nothing", _configure_plan, _plan)
RUN = Command("run a sweep, or what is missing of it", _configure_run, _run)
SUBMIT = Command("submit a sweep to the cluster, or what is missing of it", _configure_submit, _submit)
RESULTS = Command("rank the runs of a sweep by a metric", _configure_results, _results)
