"""What a run asks of Slurm, and the formats in which Slurm wants it.

Source: sbatch(1) of Slurm 22.05 and later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from mtf_config.base import Section
from mtf_utils.settings import Problem, about, describe

__all__ = ["SLURMConfig"]

MAIL_TYPES: Final = (
    "NONE", "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT", "TIME_LIMIT", "TIME_LIMIT_90",
    "TIME_LIMIT_80", "TIME_LIMIT_50", "ARRAY_TASKS",
)  # fmt: skip

_TIME = re.compile(r"\d+|\d+:[0-5]?\d|\d+:[0-5]?\d:[0-5]?\d|\d+-\d+(:[0-5]?\d(:[0-5]?\d)?)?")
_MEMORY = re.compile(r"\d+(\.\d+)?([KMGT]B?)?", re.IGNORECASE)
_GRES = re.compile(r"[A-Za-z_]\w*(:[A-Za-z_][\w.+-]*)?(:\d+[KMGT]?)?")
_SIGNAL = re.compile(r"([RB]{1,2}:)?(SIG)?[A-Z0-9]+(@\d{1,5})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _time_limit(value: str) -> str | None:
    if value.upper() in ("UNLIMITED", "INFINITE") or _TIME.fullmatch(value):
        return None
    return 'a time such as "24:00:00", "2-12" (days-hours), "90" (minutes) or "UNLIMITED"'


def _memory(value: str) -> str | None:
    return None if _MEMORY.fullmatch(value) else 'an amount of memory such as "32G" or "900M" (units K, M, G, T)'


def _gres(value: str) -> str | None:
    if value.lower() == "none" or all(_GRES.fullmatch(item) for item in value.split(",")):
        return None
    return 'generic resources such as "gpu:1" or "gpu:a100:2,shard:4"'


def _signal(value: str) -> str | None:
    return None if _SIGNAL.fullmatch(value) else 'a signal and seconds before the end, such as "USR1@300"'


def _name(value: str) -> str | None:
    if "${env:" in value:
        return "text without ${env:...}: what a job asks for is said before it starts"
    return None if value.strip() and not _CONTROL.search(value) else "a single line that is not empty"


def _link(value: str) -> str | None:
    parts = value.split("/")
    if value.startswith(("/", "~")) or ".." in parts or not value.strip("/") or _CONTROL.search(value):
        return "a path inside the project, relative to its root"
    return None


def _mail_type(value: str) -> str | None:
    return None if value in MAIL_TYPES else "one of " + ", ".join(MAIL_TYPES)


def _option(value: str) -> str | None:
    return None if value.startswith("-") and not _CONTROL.search(value) else "an option such as --nice=100"


def _shell_line(value: str) -> str | None:
    return "shell text without NUL characters" if "\0" in value else None


_ITEM_CHECKS: Final[Mapping[str, Callable[[str], str | None]]] = {
    "mail_type": _mail_type, "link": _link, "additional_args": _option, "setup": _shell_line,
}  # fmt: skip


@dataclass(kw_only=True)
class SLURMConfig(Section):
    """What the job of a run asks of the cluster; what is null is left to the cluster's defaults."""

    renamed: ClassVar[Mapping[str, str]] = {
        "time": "unknown key 'time'; write time_limit",
        "memory": "unknown key 'memory'; write mem",
        "gpus": "unknown key 'gpus'; write gres, such as gpu:1",
        "cpus": "unknown key 'cpus'; write cpus_per_task",
    }

    job_name: str | None = field(default=None, metadata=about("Name of the job; null: the experiment's.", check=_name))
    time_limit: str | None = field(
        default=None, metadata=about("Longest time a job may run: [days-]hours:minutes:seconds.", check=_time_limit)
    )
    nodes: int | None = field(default=None, metadata=about("Number of machines.", minimum=1))
    ntasks_per_node: int | None = field(default=None, metadata=about("Processes on each machine.", minimum=1))
    cpus_per_task: int | None = field(default=None, metadata=about("CPU cores of each process.", minimum=1))
    mem: str | None = field(default=None, metadata=about("Memory of each machine, such as 32G.", check=_memory))
    gres: str | None = field(default=None, metadata=about("Generic resources of each machine: gpu:1.", check=_gres))
    partition: str | None = field(default=None, metadata=about("The partition, or several by comma.", check=_name))
    account: str | None = field(default=None, metadata=about("Who pays for it.", check=_name))
    qos: str | None = field(default=None, metadata=about("Quality of service.", check=_name))
    constraint: str | None = field(default=None, metadata=about("Features that a machine must have.", check=_name))
    dependency: str | None = field(default=None, metadata=about("Jobs to wait for, such as afterok:123.", check=_name))
    exclusive: bool | None = field(default=None, metadata=about("Whether to share machines with no other job."))
    requeue: bool | None = field(
        default=None, metadata=about("Whether the job is queued again after a preemption; null: yes.")
    )
    signal: str | None = field(
        default=None,
        metadata=about(
            "Signal and seconds before the time limit, such as USR1@300; null: from `preemption`.", check=_signal
        ),
    )
    mail_user: str | None = field(default=None, metadata=about("Whom to write to.", check=_name))
    mail_type: list[str] = field(default_factory=list, metadata=about("At which events, such as END and FAIL."))
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
        """The items of the lists."""
        for key, check in _ITEM_CHECKS.items():
            items = data.get(key)
            for index, item in enumerate(items if isinstance(items, list) else ()):
                if isinstance(item, str) and (wanted := check(item)):
                    yield Problem((key, index), f"expected {wanted}, found {describe(item)}", item)
