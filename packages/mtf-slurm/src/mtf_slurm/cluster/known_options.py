"""The options of sbatch: which a user may add, which a field of the configuration stands for, which are the launcher's.

Source: sbatch(1) of Slurm 22.05, and what later releases added up to 25.05.
"""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["ADDABLE", "FIELD_OF", "LONG_FORMS", "OWNED", "Takes"]

Takes = Literal["nothing", "a value", "perhaps a value"]

_WITH_VALUE: Final = (
    "acctg-freq", "batch", "bb", "bbf", "begin", "cluster-constraint", "comment", "container", "container-id",
    "core-spec", "cores-per-socket", "cpu-freq", "cpus-per-gpu", "deadline", "delay-boot", "distribution", "exclude",
    "export", "export-file", "extra", "extra-node-info", "gpu-bind", "gpu-freq", "gpus", "gpus-per-node",
    "gpus-per-socket", "gpus-per-task", "gres-flags", "hint", "kill-on-invalid-dep", "licenses", "mcs-label",
    "mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nodefile", "nodelist", "ntasks-per-core",
    "ntasks-per-socket", "oom-kill-step", "power", "prefer", "priority", "profile", "reservation", "segment",
    "sockets-per-node", "switches", "thread-spec", "threads-per-core", "time-min", "tmp", "tree-width", "tres-bind",
    "tres-per-task", "wait-all-nodes", "wckey",
)  # fmt: skip
_ALONE: Final = (
    "contiguous", "overcommit", "oversubscribe", "reboot", "resv-ports", "spread-job", "stepmgr", "use-min-nodes",
)  # fmt: skip
_EITHER: Final = ("get-user-env", "nice", "no-kill", "propagate")

ADDABLE: Final[dict[str, Takes]] = {
    **dict.fromkeys(_WITH_VALUE, "a value"),
    **dict.fromkeys(_ALONE, "nothing"),
    **dict.fromkeys(_EITHER, "perhaps a value"),
}
"""What may stand in `additional_args`, without the dashes, and whether a value follows."""

FIELD_OF: Final = {
    "account": "account", "constraint": "constraint", "cpus-per-task": "cpus_per_task", "dependency": "dependency",
    "exclusive": "exclusive", "gres": "gres", "job-name": "job_name", "mail-type": "mail_type",
    "mail-user": "mail_user", "mem": "mem", "no-requeue": "requeue", "nodes": "nodes",
    "ntasks-per-node": "ntasks_per_node", "partition": "partition", "qos": "qos", "requeue": "requeue",
    "signal": "signal", "time": "time_limit",
}  # fmt: skip
"""The options that a field of `SLURMConfig` stands for."""

_COUNTED: Final = "write slurm.nodes and slurm.ntasks_per_node, from which the launcher knows how many processes run"
_ONE_LOG: Final = "the output of a run goes to its folder, runs/<name>/logs"
_NEVER_RUN: Final = "it makes sbatch do something else than submit the script"

OWNED: Final = {
    "array": "the launcher makes the arrays, of runs with equal resources; limit them with max_concurrent_jobs",
    "chdir": "a run works in the project's root",
    "clusters": "job ids of another cluster cannot be followed from here; submit on a host of that cluster",
    "error": _ONE_LOG,
    "gid": "a job belongs to whoever submits it",
    "help": _NEVER_RUN,
    "hold": "a held job keeps its lane; to submit without starting, use ExecutionMode.DRY_RUN or --begin=<time>",
    "ignore-pbs": "the script has no #PBS lines",
    "input": "a run reads nothing from its standard input",
    "ntasks": _COUNTED,
    "ntasks-per-gpu": _COUNTED,
    "open-mode": "the log of a requeued job must go on, not begin anew",
    "output": _ONE_LOG,
    "parsable": "the launcher reads what sbatch says",
    "quiet": "the launcher reads what sbatch says",
    "test-only": f"{_NEVER_RUN}; use ExecutionMode.DRY_RUN",
    "uid": "a job belongs to whoever submits it",
    "usage": _NEVER_RUN,
    "verbose": "the launcher reads what sbatch says",
    "version": _NEVER_RUN,
    "wait": "sbatch would wait for the job; use result.wait()",
    "wrap": "what a run executes is its `command`",
}
"""The options that are the launcher's, and what to do instead."""

LONG_FORMS: Final = {
    "A": "account", "a": "array", "B": "extra-node-info", "b": "begin", "C": "constraint", "c": "cpus-per-task",
    "D": "chdir", "d": "dependency", "e": "error", "F": "nodefile", "G": "gpus", "H": "hold", "h": "help",
    "i": "input", "J": "job-name", "k": "no-kill", "L": "licenses", "M": "clusters", "m": "distribution",
    "N": "nodes", "n": "ntasks", "O": "overcommit", "o": "output", "p": "partition", "Q": "quiet", "q": "qos",
    "S": "core-spec", "s": "oversubscribe", "t": "time", "V": "version", "v": "verbose", "W": "wait",
    "w": "nodelist", "x": "exclude",
}  # fmt: skip
"""The long form of each short option."""
