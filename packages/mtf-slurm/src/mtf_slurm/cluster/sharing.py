"""Tasks that runs share: the script that does them, and what a plan says of them. Pure."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from mtf_config import ExperimentConfig, SLURMConfig
from mtf_slurm.cluster.batches import Group, Pack, Request, group_runs
from mtf_slurm.cluster.options import sbatch_options
from mtf_slurm.errors import JobSubmissionError
from mtf_slurm.render import signal_names
from mtf_slurm.submissions import JobPlan
from mtf_slurm.wording import counted

__all__ = ["Shared", "render_shared", "shared_jobs"]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Runs that share jobs.

    Attributes:
        runs: how many there are.
        jobs: how many jobs they make.
        runs_per_job: how many a job has at most.
        runs_at_once: how many of a job are at work at a time.
        time_limit: that of a job, for all its runs; None is the partition's.
    """

    runs: int
    jobs: int
    runs_per_job: int
    runs_at_once: int
    time_limit: str | None

    def __str__(self) -> str:
        turns = f"{self.runs_at_once} at a time" if self.runs_at_once > 1 else "one after the other"
        limit = f"its time_limit of {self.time_limit}" if self.time_limit else "the partition's time limit"
        return (
            f"in Slurm {counted(self.runs, 'run')} share {counted(self.jobs, 'job')}, {self.runs_per_job} in each, "
            f"{turns}; {limit} is for "
            "all runs of a job, and max_concurrent_jobs counts jobs"
        )


def shared_jobs(configs: Mapping[str, ExperimentConfig]) -> list[Shared]:
    """What becomes of those experiments that are to share jobs, in Slurm.

    Args:
        configs: experiments by name; those that ask for what cannot be asked are left out.
    """
    groups = group_runs(request for name, config in configs.items() if (request := _request(name, config)))
    return [_shared(group, configs[group.names[0]].slurm) for group in groups]


def _request(name: str, config: ExperimentConfig) -> Request | None:
    pack = Pack.of(config.slurm)
    if config.slurm is None or pack.runs == 1:
        return None
    with contextlib.suppress(JobSubmissionError):  # said when it is submitted
        return Request(name, sbatch_options(config.slurm, config.preemption), config.slurm.job_name or "", pack=pack)
    return None


def _shared(group: Group, slurm: SLURMConfig | None) -> Shared:
    return Shared(
        runs=len(group.names),
        jobs=group.tasks,
        runs_per_job=group.pack.runs,
        runs_at_once=group.pack.at_once,
        time_limit=slurm.time_limit if slurm else None,
    )


def render_shared(job: JobPlan, number: int, signals: Iterable[str]) -> str:
    """The text of the script that does the runs of a task.

    Args:
        job: whose tasks have several runs.
        number: of the job in its submission.
        signals: that announce a preemption to one of the runs, as in `SIGTERM`.
    """
    names = " ".join(signal_names(signals))
    return (
        "#!/usr/bin/env bash\n"
        "# Does the runs of one task of a job; the number of the task is its argument.\n"
        f"mtf_name={shlex.quote(job.job_name)}\n"
        f"mtf_number={number}\n"
        f"mtf_signals={shlex.quote(names)}\n"
        f"mtf_runs_per_task={job.runs_per_task}\n"
        f"mtf_runs_at_once={job.runs_at_once}\n"
        f"{_rest()}"
    )


@cache
def _rest() -> str:
    files = resources.files("mtf_slurm")
    functions = [files.joinpath(name) for name in ("job_functions.sh", "job_budgets.sh")]
    places = (*functions, files.joinpath("cluster", "shared_body.sh"))
    return "".join(place.read_text("utf-8") for place in places)
