"""The verb `mtf retry`: have runs tried again that have not finished."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from mtf_config import ExecutionMode
from mtf_slurm.errors import SLURMError, by_reason
from mtf_slurm.finding import find_sweep
from mtf_slurm.launcher import SLURMLauncher
from mtf_slurm.results import GridSearchResult
from mtf_slurm.retry_options import add_resume_across_code
from mtf_slurm.retrying import KINDS, RetryResult
from mtf_slurm.status import JobStatus
from mtf_slurm.verbs import (
    add_folder,
    add_jobs,
    add_json,
    add_runs,
    check_runs,
    explained,
    print_json,
    print_lines,
    reached,
)
from mtf_slurm.wording import counted
from mtf_utils.cli import WORK_FAILED, Command, CommandError
from mtf_utils.rundir import SweepDirectory

__all__ = ["RETRY"]


def _configure(parser: argparse.ArgumentParser) -> None:
    add_folder(parser)
    add_runs(parser, "runs", metavar="RUN", nargs="*", help="names of runs; their budgets begin anew")
    kinds = parser.add_argument_group("or all runs of a kind, whose budgets begin anew")
    for kind, statuses in KINDS.items():
        text = f"runs that are {', '.join(statuses)}"
        kinds.add_argument(f"--{kind}", action="append_const", dest="kinds", const=kind, help=text)
    parser.add_argument(
        "--same-code", action="store_true", help="run the code of their last attempts (default: as it is now)"
    )
    add_resume_across_code(parser)
    parser.add_argument(
        "-e",
        "--execution",
        choices=[ExecutionMode.LOCAL.value, ExecutionMode.SLURM.value],
        help="where they are executed (default: as at the last submission)",
    )
    add_jobs(parser, "as at the last submission")
    parser.add_argument("--dry-run", action="store_true", help="do nothing, and show what would be done")
    add_json(parser)


@explained
def _retry(arguments: argparse.Namespace) -> int:
    if arguments.same_code and arguments.resume_across_code:
        raise CommandError(
            "--same-code and --resume-across-code exclude each other: with the same code there is nothing to cross"
        )
    before = GridSearchResult(find_sweep(arguments.dir))
    check_runs(before, arguments.runs)
    done = _launcher(before).retry(
        before.output_dir,
        _chosen(before, arguments),
        same_code=arguments.same_code,
        resume_across_code=arguments.resume_across_code,
        execution_mode=ExecutionMode(arguments.execution) if arguments.execution else None,
        max_concurrent_jobs=arguments.jobs,
        dry_run=arguments.dry_run,
    )
    if arguments.json:
        print_json("retry", done.to_dict() | {"dry_run": arguments.dry_run})
    else:
        print_lines(_lines(done, dry_run=arguments.dry_run))
    tried = () if arguments.dry_run else done.retried
    if any(not run.may_change and run.status is not JobStatus.COMPLETED for run in done.result if run.name in tried):
        return WORK_FAILED  # on this machine they are over by now
    return reached(done.result)


def _chosen(result: GridSearchResult, arguments: argparse.Namespace) -> list[str] | None:
    """The names that were asked for; None if nothing was chosen."""
    if not arguments.runs and not arguments.kinds:
        return None
    statuses = {status for kind in arguments.kinds or () for status in KINDS[kind]}
    return [*arguments.runs, *(run.name for run in result if run.status in statuses and not run.may_change)]


def _launcher(result: GridSearchResult) -> SLURMLauncher:
    sweep = SweepDirectory(result.output_dir).sweep()
    root = Path(str(sweep.code.get("project_root") or "")) if sweep else Path()
    if not root.is_dir():
        raise SLURMError(f"{result.output_dir}: its project, {root}, is not there any more")
    return SLURMLauncher(None, result.output_dir.parent, project_root=root)


def _lines(done: RetryResult, *, dry_run: bool) -> Iterator[str]:
    said = "would be tried again" if dry_run else "tried again"
    for name in done.retried:
        job = f" as job {done.job_ids[name]}" if done.job_ids.get(name, "").partition("_")[0].isdecimal() else ""
        yield f"{name}: {said}{job}, code {done.code[name][:12] or 'as it is in the project'}"
    yield from (f"left out: {line}" for line in by_reason(done.left_out))
    yield f"{len(done.retried)} of {counted(len(done.result), 'run')} {said}"


RETRY = Command("have runs tried again that failed, or were left out", _configure, _retry)
