"""What a run asks of Slurm, and the formats in which Slurm wants it.

Source: sbatch(1) of Slurm 22.05 and later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from mtf_config.base import Section
from mtf_config.formats import (
    GRES,
    MAIL_TYPE,
    MEMORY,
    NOT_EMPTY,
    ONE_LINE,
    OPTION,
    PROJECT_PATH,
    SHELL,
    SIGNAL,
    TIME_LIMIT,
    Format,
)
from mtf_utils.settings import Problem, about, describe

__all__ = ["ITEM_FORMATS", "RetryConfig", "SLURMConfig"]

ITEM_FORMATS: Final[Mapping[str, Format]] = {
    "mail_type": MAIL_TYPE, "link": PROJECT_PATH, "additional_args": OPTION, "setup": SHELL,
}  # fmt: skip
"""The format of the items of lists."""


@dataclass(kw_only=True)
class RetryConfig(Section):
    """How often a run is tried again, by what ended its attempts; `preemption.max_preemptions` goes with these."""

    renamed: ClassVar[Mapping[str, str]] = {
        "preemption": "unknown key 'preemption'; write preemption.max_preemptions of the experiment",
        "oom": "unknown key 'oom'; write out_of_memory",
    }

    node_failure: int | None = field(
        default=None,
        metadata=about("Tries more after nodes failed, or attempts were killed; null is no limit.", minimum=0),
    )
    timeout: int | None = field(
        default=None, metadata=about("Tries more after the time limit was reached; null is no limit.", minimum=0)
    )
    out_of_memory: int | None = field(
        default=0, metadata=about("Tries more after the memory did not suffice; null is no limit.", minimum=0)
    )
    failure: int | None = field(
        default=0, metadata=about("Tries more after the command failed; null is no limit.", minimum=0)
    )
    without_progress: int = field(
        default=3, metadata=about("Attempts in a row without progress after which no other is made.", minimum=1)
    )
    memory_growth: float = field(
        default=1.5,
        metadata=about("What `mem` is multiplied by each time it did not suffice; 1 asks for the same.", minimum=1),
    )
    max_memory: str | None = field(
        default=None,
        metadata=about("The most that `mem` may grow to, such as 128G; null: what the cluster allows.", check=MEMORY),
    )


@dataclass(kw_only=True)
class SLURMConfig(Section):
    """What the job of a run asks of the cluster; what is null is left to the cluster's defaults."""

    renamed: ClassVar[Mapping[str, str]] = {
        "time": "unknown key 'time'; write time_limit",
        "memory": "unknown key 'memory'; write mem",
        "gpus": "unknown key 'gpus'; write gres, such as gpu:1",
        "cpus": "unknown key 'cpus'; write cpus_per_task",
        "template": "unknown key 'template'; write template_path",
    }

    job_name: str | None = field(
        default=None, metadata=about("Name of the job; null: the experiment's.", check=ONE_LINE)
    )
    time_limit: str | None = field(
        default=None, metadata=about("Longest time a job may run: [days-]hours:minutes:seconds.", check=TIME_LIMIT)
    )
    nodes: int | None = field(default=None, metadata=about("Number of machines.", minimum=1))
    ntasks_per_node: int | None = field(default=None, metadata=about("Processes on each machine.", minimum=1))
    cpus_per_task: int | None = field(default=None, metadata=about("CPU cores of each process.", minimum=1))
    mem: str | None = field(default=None, metadata=about("Memory of each machine, such as 32G.", check=MEMORY))
    gres: str | None = field(default=None, metadata=about("Generic resources of each machine: gpu:1.", check=GRES))
    partition: str | None = field(default=None, metadata=about("The partition, or several by comma.", check=ONE_LINE))
    account: str | None = field(default=None, metadata=about("Who pays for it.", check=ONE_LINE))
    qos: str | None = field(default=None, metadata=about("Quality of service.", check=ONE_LINE))
    constraint: str | None = field(default=None, metadata=about("Features that a machine must have.", check=ONE_LINE))
    dependency: str | None = field(
        default=None, metadata=about("Jobs to wait for, such as afterok:123.", check=ONE_LINE)
    )
    exclusive: bool | None = field(default=None, metadata=about("Whether to share machines with no other job."))
    requeue: bool | None = field(
        default=None, metadata=about("Whether the job is queued again after a preemption; null: yes.")
    )
    signal: str | None = field(
        default=None,
        metadata=about(
            "Signal and seconds before the time limit, such as USR1@300; null: from `preemption`.", check=SIGNAL
        ),
    )
    runs_per_job: int | None = field(
        default=None, metadata=about("How many short runs share a job, one after the other; null: none do.", minimum=1)
    )
    runs_at_once: int | None = field(
        default=None, metadata=about("How many runs of a job are at work at a time; null: one.", minimum=1)
    )
    mail_user: str | None = field(default=None, metadata=about("Whom to write to.", check=ONE_LINE))
    mail_type: list[str] = field(default_factory=list, metadata=about("At which events, such as END and FAIL."))
    retries: RetryConfig | None = field(
        default=None,
        metadata=about("How often a run is tried again, in every mode of execution; null: the defaults of each key."),
    )
    template_path: str | None = field(
        default=None,
        metadata=about(
            "The user's own template of the submission script, relative to the file that names it; null: the built-in.",
            check=NOT_EMPTY,
        ),
    )
    setup: list[str] = field(
        default_factory=list,
        metadata=about("Shell lines to run before the command, such as `module load cuda`; run as they are."),
    )
    link: list[str] = field(
        default_factory=list,
        metadata=about("Paths inside the project, ignored by git, that the isolated code needs (data, for example)."),
    )
    additional_args: list[str] = field(
        default_factory=list, metadata=about("Further options of sbatch, such as --nice=100.")
    )

    @classmethod
    def data_problems(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """The items of the lists, and how runs share a job."""
        for key, check in ITEM_FORMATS.items():
            items = data.get(key)
            for index, item in enumerate(items if isinstance(items, list) else ()):
                if isinstance(item, str) and (wanted := check(item)):
                    yield Problem((key, index), f"expected {wanted}, found {describe(item)}", item)
        yield from _pack_problems(data)


def _pack_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Runs that are at work at a time in a job."""
    keys = ("runs_at_once", "runs_per_job", "nodes", "ntasks_per_node")
    numbers = [1 if data.get(key) is None else data[key] for key in keys]
    if not all(isinstance(number, int) for number in numbers):
        return
    at_once, per_job, tasks = numbers[0], numbers[1], numbers[2] * numbers[3]
    if at_once > per_job:
        yield Problem((keys[0],), f"expected at most runs_per_job ({per_job}), found {at_once}", at_once)
    elif at_once > 1 and tasks > 1:
        what = f"expected 1, for each run of {tasks} processes takes the whole job, found {at_once}"
        yield Problem((keys[0],), what, at_once)
