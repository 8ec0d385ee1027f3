"""From `SLURMConfig` to the words that sbatch is called with. Pure functions."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Iterator, Sequence
from typing import Final

from mtf_config import SLURMConfig
from mtf_slurm.cluster.known_options import ADDABLE, FIELD_OF, LONG_FORMS, OWNED
from mtf_slurm.errors import JobSubmissionError
from mtf_slurm.render import ENDS_SRUN
from mtf_utils.sections import PreemptionConfig
from mtf_utils.settings import nearest

__all__ = [
    "node_count",
    "preemption_signal",
    "sbatch_options",
    "task_count",
    "warning_s",
    "with_dependency",
]

# What slurmctld knows by name; the others go by number. Source: sig_name2num in Slurm's sources.
_SLURM_SIGNALS: Final = (
    "HUP", "INT", "QUIT", "ABRT", "ALRM", "TERM", "USR1", "USR2", "URG", "CONT", "TSTP", "TTIN", "TTOU", "XCPU",
)  # fmt: skip
_ALWAYS_FORWARDED: Final = ("TERM", "USR1", "INT", "HUP")
_LONGEST_LEAD_S: Final = 65535
_LEAST_LEAD_S: Final = 1
_LEAD_SHARE: Final = 4
_USUAL_LEAD_S: Final = 60
"""Without one, sbatch takes this. Source: sbatch(1), --signal."""
_OPTION: Final = re.compile(r"--([a-z][a-z0-9-]*)(?:=(.*))?", re.DOTALL)
_SHORT_OPTION: Final = re.compile(r"-([A-Za-z])(?!-)=?(.*)", re.DOTALL)
_SIGNAL: Final = re.compile(r"(?:([RB]{1,2}):)?(?:SIG)?([A-Z0-9]+)(?:@(\d+))?")


def sbatch_options(slurm: SLURMConfig | None, preemption: PreemptionConfig) -> tuple[str, ...]:
    """What a run asks of the cluster as options of sbatch, each one word, in one order.

    Runs with equal options can be tasks of one array. What differs from job to job (name, array, output) is not here.

    Args:
        slurm: the section of the experiment; None asks for nothing.
        preemption: tells which signal to send before the time limit, and how long before.

    Raises:
        JobSubmissionError: something cannot be asked for; every problem is named.
    """
    config = slurm or SLURMConfig()
    problems = [*_dependency_problems(config), *_signal_problems(config, preemption), *_added_problems(config)]
    if problems:
        raise JobSubmissionError("\n".join(problems))
    return (*_field_options(config), *_steady_options(config, preemption), *sorted(config.additional_args))


def _field_options(config: SLURMConfig) -> Iterator[str]:
    values = {
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "time": config.time_limit,
        "nodes": config.nodes,
        "ntasks-per-node": config.ntasks_per_node,
        "cpus-per-task": config.cpus_per_task,
        "mem": None if config.mem is None else config.mem.upper().removesuffix("B"),
        "gres": config.gres,
        "constraint": config.constraint,
        "dependency": config.dependency,
        "mail-user": config.mail_user,
        "mail-type": ",".join(sorted(set(config.mail_type))) or None,
    }
    yield from (f"--{name}={value}" for name, value in values.items() if value is not None)
    if config.exclusive:
        yield "--exclusive"


def _steady_options(config: SLURMConfig, preemption: PreemptionConfig) -> Iterator[str]:
    """What every job needs to survive a preemption; said even where it is the default, for sites differ."""
    yield "--no-requeue" if config.requeue is False else "--requeue"
    yield "--open-mode=append"
    yield f"--signal={preemption_signal(config, preemption)}"


def preemption_signal(config: SLURMConfig, preemption: PreemptionConfig) -> str:
    """The value of `--signal`: it goes to the job script, which passes it on, and not to the steps.

    Without one of the user's own it is the first of `preemption.signals` but SIGTERM, `timeout_minutes` before the time
    limit, and at most a quarter of the time limit before it: a job that is shorter than its warning would be stopped
    as soon as it starts.
    """
    if config.signal is not None:
        match = _SIGNAL.fullmatch(config.signal)
        flags, name, lead = match.groups() if match else (None, config.signal, None)
        return f"{'R' if 'R' in (flags or '') else ''}B:{name}" + (f"@{lead}" if lead else "")
    names = [name.removeprefix("SIG") for name in preemption.signals]
    chosen = next((name for name in names if name in _SLURM_SIGNALS and name != "TERM"), "TERM")
    lead_s = min(math.ceil(60 * preemption.timeout_minutes), _LONGEST_LEAD_S)
    limit_s = _seconds(config.time_limit)
    if limit_s is not None:
        lead_s = min(lead_s, max(_LEAST_LEAD_S, limit_s // _LEAD_SHARE))
    return f"B:{chosen}@{lead_s}"


def warning_s(slurm: SLURMConfig | None, preemption: PreemptionConfig) -> int:
    """How many seconds before the time limit the job is told of it."""
    lead = preemption_signal(slurm or SLURMConfig(), preemption).partition("@")[2]
    return int(lead) if lead else _USUAL_LEAD_S


def _seconds(time_limit: str | None) -> int | None:
    """A time limit in seconds; None if there is none. Source: sbatch(1), --time."""
    if time_limit is None or not time_limit[0].isdigit():
        return None
    days, dash, rest = time_limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    else:
        hours, minutes, seconds = {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _signal_problems(config: SLURMConfig, preemption: PreemptionConfig) -> Iterator[str]:
    if task_count(config) > 1 and set(preemption.signals) <= set(ENDS_SRUN):
        yield (
            f"preemption.signals={preemption.signals}: srun passes none of these on to the {task_count(config)} tasks "
            "of a run; add 'SIGUSR1'"
        )
    match = _SIGNAL.fullmatch(config.signal or "")
    if match is None:
        return
    name = match[2]
    if name.isdecimal():
        numbers = {int(member): member.name for member in signal.Signals}
        name = numbers.get(int(name), name)
    name = name.removeprefix("SIG")
    if name not in _SLURM_SIGNALS and not match[2].isdecimal():
        yield f"slurm.signal={config.signal!r}: Slurm knows no signal {name!r} by name ({', '.join(_SLURM_SIGNALS)})"
    elif name not in _ALWAYS_FORWARDED and f"SIG{name}" not in preemption.signals:
        yield (
            f"slurm.signal={config.signal!r}: this signal would end the run unsaved; add 'SIG{name}' to "
            f"preemption.signals, or use one of them ({', '.join(preemption.signals)})"
        )


def _dependency_problems(config: SLURMConfig) -> Iterator[str]:
    wanted = config.dependency or ""
    if "?" in wanted:
        yield (
            f"slurm.dependency={wanted!r}: alternatives ('?') cannot be joined with the order in which the launcher "
            "starts its jobs; write conditions that must all hold, separated by commas"
        )
    if "singleton" in wanted:
        yield (
            f"slurm.dependency={wanted!r}: every job has a name of its own, so 'singleton' would wait for nothing; use "
            "max_concurrent_jobs=1"
        )


def _added_problems(config: SLURMConfig) -> Iterator[str]:
    seen: set[str] = set()
    for index, word in enumerate(config.additional_args):
        place = f"slurm.additional_args[{index}]={word!r}"
        match = _OPTION.fullmatch(word)
        if match is None:
            yield f"{place}: {_about_form(word)}"
            continue
        name, value = match.groups()
        if trouble := _about_option(name, value):
            yield f"{place}: {trouble}"
        elif name in seen:
            yield f"{place}: --{name} is there twice"
        seen.add(name)
    units = [name for name in ("mem-per-cpu", "mem-per-gpu") if name in seen]
    if len(units) + (config.mem is not None) > 1:
        both = " and ".join((["slurm.mem"] if config.mem is not None else []) + [f"--{name}" for name in units])
        yield f"slurm.additional_args: {both} exclude each other; keep one"


def _about_form(word: str) -> str:
    short = _SHORT_OPTION.fullmatch(word)
    if short is not None and short[1] in LONG_FORMS:
        name, value = LONG_FORMS[short[1]], short[2].strip()
        long = f"--{name}={value}" if value else f"--{name}"
        return _about_option(name, value or None) or f"write the long form, {long}"
    return "expected an option of sbatch in its long form, such as --nice=100"


def _about_option(name: str, value: str | None) -> str:
    """What is wrong with an added option; empty if nothing is."""
    if name in FIELD_OF:
        return f"write slurm.{FIELD_OF[name]} instead of --{name}"
    if name in OWNED:
        return f"--{name} is the launcher's: {OWNED[name]}"
    takes = ADDABLE.get(name)
    if takes is None:
        guess = nearest(name, [*ADDABLE, *FIELD_OF])
        if guess is None:
            return f"sbatch has no option --{name}"
        return f"sbatch has no option --{name}; did you mean " + (
            f"slurm.{FIELD_OF[guess]}?" if guess in FIELD_OF else f"--{guess}?"
        )
    if takes == "a value" and not value:
        return f"--{name} needs a value: --{name}=..."
    if takes == "nothing" and value is not None:
        return f"--{name} takes no value"
    return ""


def with_dependency(options: Sequence[str], after: str | None) -> tuple[str, ...]:
    """The options with a further condition for the start, joined with the user's own.

    Args:
        options: as `sbatch_options` gives them.
        after: such as `afterany:12:13`; None changes nothing.
    """
    if after is None:
        return tuple(options)
    own = [word.partition("=")[2] for word in options if word.startswith("--dependency=")]
    rest = [word for word in options if not word.startswith("--dependency=")]
    return (*rest, f"--dependency={','.join([after, *own])}")


def task_count(slurm: SLURMConfig | None) -> int:
    """How many processes of a run work side by side: more than one are started by srun."""
    return node_count(slurm) * ((slurm.ntasks_per_node if slurm else None) or 1)


def node_count(slurm: SLURMConfig | None) -> int:
    """On how many machines a run works."""
    return (slurm.nodes if slurm else None) or 1
