"""What Slurm's programs answer, as values: parsing and classification. Pure functions.

Source: squeue(1), sacct(1), scontrol(1), sinfo(1) of Slurm 22.05 and later, and what they print in fact.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from mtf_slurm.cluster.programs import Ran
from mtf_slurm.status import JobStatus

__all__ = [
    "ACCOUNTING_FIELDS",
    "PEAK_FIELDS",
    "QUEUE_FIELDS",
    "ClusterConfig",
    "Partition",
    "TaskState",
    "base_id",
    "complaint",
    "parse_accounting",
    "parse_config",
    "parse_partitions",
    "parse_peaks",
    "parse_queue",
    "readable_memory",
]

# the name comes last: it alone may contain the separator
QUEUE_FIELDS: Final = (
    "JobArrayID:|,JobID:|,State:|,Reason:|,RestartCnt:|,exit_code:|,MinMemory:|,"
    "StartTime:|,EndTime:|,TimeLimit:|,Name:|"
)
"""What squeue is asked for with `--Format`."""

ACCOUNTING_FIELDS: Final = "JobID,JobIDRaw,State,Reason,ExitCode,ReqMem,Start,End,Timelimit,JobName"
"""What sacct is asked for with `--format`."""

PEAK_FIELDS: Final = "JobID,MaxRSS,JobName"
"""What sacct is asked for, of jobs and their steps, to learn how much memory they used."""

_JOB_ID: Final = re.compile(r"\d+(_\d+)?")
_ARRAY: Final = re.compile(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]")
_RANGE: Final = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
_MEMORY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGTP]?)")
_UNITS: Final = ("", "K", "M", "G", "T", "P")
_NO_VALUE: Final = ("N/A", "Unknown", "None", "(null)")


@dataclass(frozen=True)
class TaskState:
    """What Slurm says of one job, or of one task of a job array.

    Attributes:
        job_id: `123`, or `123_4` for a task of an array.
        job_name: tells it from an earlier job that had the same id.
        state: the state that Slurm says it is in; UNKNOWN where this version has no word for it.
        reason: why it waits or ended, in Slurm's words; empty if there is nothing to say.
        source: who said so; the daemon of a node does in the output of a job.
        number: what the daemons of the nodes call it; a task of an array has one of its own.
        restarts: how often it was queued again; None if the source does not tell.
        exit_status: of the script; None while it runs, or when a signal ended it.
        signal: what ended it, if a signal did.
        memory: what was asked for, such as `16000M`.
        peak_memory: the most that was in use when the accounting sampled it, such as `15.2G`; empty if nobody knows.
        start: when it began, as Slurm writes it; empty if it has not.
        end: when it ended, or will at the latest.
        time_limit: as Slurm writes it.
    """

    job_id: str
    job_name: str
    state: JobStatus
    reason: str
    source: Literal["squeue", "sacct", "slurmstepd"]
    number: str = ""
    restarts: int | None = None
    exit_status: int | None = None
    signal: int | None = None
    memory: str = ""
    peak_memory: str = ""
    start: str = ""
    end: str = ""
    time_limit: str = ""


@dataclass(frozen=True)
class ClusterConfig:
    """What of the controller's configuration matters here.

    Attributes:
        max_array_size: the highest index of an array task, plus one; 0 or 1: no arrays.
        max_job_count: how many jobs the controller holds, counting every task.
        min_job_age_s: how long squeue remembers a job that is over.
        message_timeout_s: how long Slurm's programs wait for an answer.
        requeue: whether jobs are queued again unless they ask not to be.
        accounting: the kind of accounting, such as `accounting_storage/slurmdbd`.
        version: such as `22.05.8`.
    """

    max_array_size: int = 1001
    max_job_count: int = 10000
    min_job_age_s: int = 300
    message_timeout_s: int = 10
    requeue: bool = True
    accounting: str = ""
    version: str = ""

    @property
    def keeps_accounts(self) -> bool:
        """Whether sacct can tell anything."""
        return self.accounting not in ("", "accounting_storage/none", "(null)")


@dataclass(frozen=True)
class Partition:
    """A partition.

    Attributes:
        name: as `partition` of an experiment names it.
        is_default: whether it is taken where none is named.
        is_up: whether it takes jobs.
        time_limit: of its jobs, as Slurm writes it.
        nodes: how many there are.
    """

    name: str
    is_default: bool
    is_up: bool
    time_limit: str
    nodes: int


def complaint(ran: Ran) -> str:
    """What a program complained of, in one line."""
    if ran.timed_out:
        return "no answer in time"
    lines = [line.strip() for line in (ran.err or ran.out).splitlines()]
    return "; ".join(line for line in lines if line) or f"exit status {ran.status}"


def base_id(job_id: str) -> str:
    """The id of the whole job: of `123_4` it is `123`."""
    return job_id.partition("_")[0]


def parse_queue(text: str) -> Iterator[TaskState]:
    """The jobs and tasks in the output of `squeue --array --Format=QUEUE_FIELDS --noheader`."""
    for columns in _columns(text, 11):
        job_id, number, state, reason, restarts, code, memory, start, end, limit, name = columns
        yield from _tasks(
            job_id,
            TaskState(
                job_id="",
                # the format ends every field, the last one too, with the separator
                job_name=name.removesuffix("|"),
                state=_state(state),
                reason=_value(reason),
                source="squeue",
                number=number,
                restarts=int(restarts) if restarts.isdecimal() else None,
            ),
            _wait_status(code),
            (memory, start, end, limit),
        )


def parse_accounting(text: str) -> Iterator[TaskState]:
    """The jobs and tasks in the output of `sacct -X --parsable2 --noheader --format=ACCOUNTING_FIELDS`."""
    for columns in _columns(text, 10):
        job_id, number, state, reason, code, memory, start, end, limit, name = columns
        yield from _tasks(
            job_id,
            TaskState(
                job_id="", job_name=name, state=_state(state), reason=_value(reason), source="sacct", number=number
            ),
            _exit_code(code),
            (memory, start, end, limit),
        )


def parse_peaks(text: str) -> Iterator[tuple[str, str, str]]:
    """Id and name of jobs in the output of `sacct --parsable2 --noheader --format=PEAK_FIELDS`, with their peak memory.

    A job has it from its steps, the greatest one. Jobs of which nothing was sampled are left out.
    """
    names: dict[str, str] = {}
    peaks: dict[str, float] = {}
    for job_id, memory, name in _columns(text, 3):
        base, dot, _ = job_id.partition(".")
        if not dot:
            names[base] = name
        elif (found := _MEMORY.fullmatch(memory)) is not None:
            peaks[base] = max(peaks.get(base, 0.0), float(found[1]) * 1024.0 ** _UNITS.index(found[2]))
    yield from ((job_id, names.get(job_id, ""), readable_memory(peak)) for job_id, peak in peaks.items() if peak)


def readable_memory(size: float) -> str:
    """Bytes as Slurm writes them: `316M`."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.3g}{unit}" if size < 1000 else f"{size:.0f}{unit}"


def parse_config(text: str) -> ClusterConfig:
    """The configuration in the output of `scontrol show config`; what it does not say has Slurm's default."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            values[key.strip()] = value.strip()
    usual = ClusterConfig()
    return ClusterConfig(
        max_array_size=_number(values.get("MaxArraySize"), usual.max_array_size),
        max_job_count=_number(values.get("MaxJobCount"), usual.max_job_count),
        min_job_age_s=_number(values.get("MinJobAge"), usual.min_job_age_s),
        message_timeout_s=_number(values.get("MessageTimeout"), usual.message_timeout_s),
        requeue=values.get("JobRequeue", "1") != "0",
        accounting=values.get("AccountingStorageType", ""),
        version=values.get("SLURM_VERSION", ""),
    )


PARTITION_FORMAT: Final = "%P|%a|%l|%D"
"""What sinfo is asked for with `--summarize --format`."""


def parse_partitions(text: str) -> list[Partition]:
    """The partitions in the output of `sinfo --summarize --noheader --format=PARTITION_FORMAT`."""
    return [
        Partition(
            name=name.removesuffix("*"),
            is_default=name.endswith("*"),
            is_up=up == "up",
            time_limit=limit,
            nodes=_number(nodes, 0),
        )
        for name, up, limit, nodes in _columns(text, 4)
    ]


def _columns(text: str, count: int) -> Iterator[list[str]]:
    """The lines that have as many columns; what else a program prints (warnings, say) is not an answer."""
    for line in text.splitlines():
        columns = line.split("|", count - 1)
        if len(columns) == count:
            yield [column.strip() for column in columns]


def _expand(job_id: str) -> Sequence[str]:
    """The ids of single tasks: `4_[1-3,9%2]` stands for four of them."""
    if _JOB_ID.fullmatch(job_id):
        return (job_id,)
    array = _ARRAY.fullmatch(job_id)
    if array is None:
        return ()
    ids: list[str] = []
    for part in array[2].split(","):
        found = _RANGE.fullmatch(part)
        if found is not None:
            first, last, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
            ids += (f"{array[1]}_{index}" for index in range(first, last + 1, max(step, 1)))
    return ids


def _tasks(
    job_id: str, known: TaskState, code: tuple[int | None, int | None], rest: tuple[str, str, str, str]
) -> Iterator[TaskState]:
    """What is said of a job, for each of the tasks that its id stands for.

    Args:
        job_id: as it was written.
        known: what the two programs say differently.
        code: exit status and signal, which mean something once the job is over.
        rest: memory, start, end and time limit, as they were written.
    """
    status, signal = (None, None) if known.state.is_active else code
    memory, start, end, limit = map(_value, rest)
    for one in _expand(job_id):
        yield replace(
            known,
            job_id=one,
            exit_status=status,
            signal=signal,
            memory=memory,
            start=start,
            end=end,
            time_limit=limit,
        )


def _state(text: str) -> JobStatus:
    """`CANCELLED by 1000` is CANCELLED; a `+` stands for what did not fit."""
    word = text.split(" ", 1)[0].removesuffix("+")
    try:
        return JobStatus(word)
    except ValueError:
        return JobStatus.UNKNOWN


def _wait_status(text: str) -> tuple[int | None, int | None]:
    """Exit status and signal from the status that wait(2) gives, which is what squeue prints."""
    if not text.isdecimal():
        return None, None
    raw = int(text)
    if os.WIFSIGNALED(raw):
        return None, os.WTERMSIG(raw)
    return os.WEXITSTATUS(raw), None


def _exit_code(text: str) -> tuple[int | None, int | None]:
    """Exit status and signal from `3:0`, `0:9`."""
    status, _, signal = text.partition(":")
    if not (status.isdecimal() and signal.isdecimal()):
        return None, None
    return (None, int(signal)) if int(signal) else (int(status), None)


def _value(text: str) -> str:
    return "" if text in _NO_VALUE else text


def _number(text: str | None, otherwise: int) -> int:
    found = re.match(r"\d+", text or "")
    return int(found[0]) if found else otherwise
