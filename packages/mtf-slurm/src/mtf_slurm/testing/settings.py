"""What a throw-away cluster pretends to be, and how hasty it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mtf_utils.settings import Problem, Settings, about

__all__ = ["ClusterSettings"]


@dataclass(kw_only=True)
class ClusterSettings(Settings):
    """A cluster on one host; each node is one slurmd, and its hardware is only pretended.

    There are three partitions over all nodes: `low`, the default, and `gpu`, whose jobs are requeued when a job of
    `high` needs their place, and `high`, whose jobs are never preempted.
    """

    nodes: int = field(default=2, metadata=about("Number of nodes, named node1, node2, …", minimum=1, maximum=64))
    cpus: int = field(default=16, metadata=about("CPUs of a node.", minimum=1, maximum=1024))
    gpus: int = field(
        default=4, metadata=about("GPUs of a node; none of them computes anything.", minimum=0, maximum=64)
    )
    memory_mb: int = field(
        default=256_000, metadata=about("Memory of a node; none of it needs to be there.", minimum=1, unit="MB")
    )
    max_array_size: int = field(
        default=1001,
        metadata=about("MaxArraySize: the highest index of an array task, plus one.", minimum=2, maximum=4_000_001),
    )
    min_job_age_s: int = field(
        default=300,
        metadata=about(
            "MinJobAge: how long squeue remembers a finished job.", minimum=2, maximum=65533, unit="seconds"
        ),
    )
    grace_s: int = field(
        default=0,
        metadata=about(
            "GraceTime of `low` and `gpu`: from the first signal of a preemption to the end; Slurm looks every 30 s.",
            minimum=0,
            unit="seconds",
        ),
    )
    send_user_signal: bool = field(
        default=False,
        metadata=about("Whether a preemption sends a job the signal of its own --signal (preempt_send_user_signal)."),
    )
    kill_wait_s: int = field(
        default=2, metadata=about("KillWait: from SIGTERM to SIGKILL.", minimum=1, maximum=65533, unit="seconds")
    )
    requeue_wait_s: int = field(
        default=5,
        metadata=about(
            "How long a requeued job is held back, and also how old a job's credential may be when it starts.",
            minimum=5,
            unit="seconds",
        ),
    )
    message_timeout_s: int = field(
        default=10,
        metadata=about(
            "MessageTimeout: how long a command waits for an answer.", minimum=1, maximum=65533, unit="seconds"
        ),
    )
    accounting: bool = field(default=False, metadata=about("Whether slurmdbd and a database run, so that sacct works."))
    options: dict[str, str] = field(
        default_factory=dict,
        metadata=about("Further options of slurm.conf; they take the place of the ones that are written otherwise."),
    )

    def cross_checks(self) -> Iterable[Problem]:
        """An option is one word, and its value one line."""
        for name, value in self.options.items():
            if not name.isalnum() or "\n" in value:
                yield Problem(("options", name), "expected one line `Name=value` of slurm.conf", value)
