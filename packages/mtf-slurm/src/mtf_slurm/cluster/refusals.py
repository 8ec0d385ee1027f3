"""What sbatch answered: queued, certainly not queued, refused and why, or not to be told. Pure functions.

Source: slurm_errno.c of Slurm 22.05 to 25.05 for the words, and what a frozen, a dead and a full controller gave.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mtf_slurm.cluster.answers import complaint
from mtf_slurm.cluster.programs import Ran

__all__ = ["Answer", "Outcome", "explain_refusal", "is_silence", "read_answer"]


class Outcome(enum.Enum):
    """What came of one call of sbatch."""

    QUEUED = "queued"
    UNCLEAR = "unclear"
    """It may have been queued."""
    AWAY = "away"
    """Nobody was there to queue it."""
    FULL = "full"
    """Refused for a limit that may have room later."""
    REFUSED = "refused"
    """Refused for what was asked; nothing was queued."""


@dataclass(frozen=True)
class Answer:
    """What sbatch said.

    Attributes:
        outcome: what came of it.
        job_id: of the job, if it was queued.
        message: what was complained of.
        fields: what of an experiment's `slurm` section a refusal is about, if that can be told.
        certain: whether a refusal is one that leaves nothing in the queue; else the queue is to be looked at first.
    """

    outcome: Outcome
    job_id: str = ""
    message: str = ""
    fields: tuple[str, ...] = ()
    certain: bool = True


# --parsable prints `<id>` or `<id>;<cluster>`; a site's plugin may print lines before it
_QUEUED: Final = re.compile(r"^(\d+)(;[^\s;]+)?$", re.MULTILINE)

_AWAY: Final = re.compile(
    r"\(connect failure\)|Connection refused|standby mode|Unable to contact munge|MUNGE|"
    r"Invalid authentication credential|Protocol authentication error|Unable to establish controller machine|"
    r"Name or service not known|No route to host",
    re.IGNORECASE,
)
_UNCLEAR: Final = re.compile(
    r"timed out|Zero Bytes|\((send|receive|shutdown) failure\)|Unexpected message|Connection reset|"
    r"Transport endpoint|Broken pipe|Unspecified error|Message receive failure|Insane message",
    re.IGNORECASE,
)
_FULL: Final = re.compile(
    r"MaxSubmitJob|MaxJobsPer|temporarily unable to accept|Resource temporarily unavailable|"
    r"MaxJobCount|Rate limit|submit limit exceeded|"
    r"Invalid job array specification",  # SchedulerParameters=max_array_tasks may allow less than MaxArraySize
    re.IGNORECASE,
)

_FIELDS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (r"partition", ("partition",)),
    (r"\baccount\b(?!ing)", ("account",)),
    (r"\bqos\b|QOSMax|QOSMin", ("qos",)),
    (r"gres|generic resource", ("gres",)),
    (r"feature", ("constraint",)),
    (r"--time\b|time limit|Wall", ("time_limit",)),
    (r"--mem\b|memory", ("mem",)),
    (r"node count|--nodes\b", ("nodes",)),
    (r"ntasks|task count", ("ntasks_per_node",)),
    (r"cpu count|cpus-per-task|more processors", ("cpus_per_task",)),
    (r"node configuration is not available", ("nodes", "ntasks_per_node", "cpus_per_task", "mem", "gres")),
    (r"dependency", ("dependency",)),
    (r"--signal\b", ("signal",)),
    (r"mail", ("mail_type", "mail_user")),
    (r"reservation|unrecognized option|invalid option|license", ("additional_args",)),
)
_CERTAIN: Final = re.compile(
    r"invalid|unrecognized|not available|can ?not be satisfied|specification|does not look like a batch script|denied|"
    r"policy|dependency problem|more processors|ambiguous option|requires an argument",
    re.IGNORECASE,
)


def read_answer(ran: Ran) -> Answer:
    """What a call of `sbatch --parsable` came to."""
    found = _QUEUED.search(ran.out)
    if ran.status == 0 and found:
        return Answer(Outcome.QUEUED, job_id=found[1])
    message = complaint(ran)
    if ran.timed_out or ran.status <= 0 or _UNCLEAR.search(ran.err):
        return Answer(Outcome.UNCLEAR, message=message)
    if _AWAY.search(ran.err):
        return Answer(Outcome.AWAY, message=message)
    if _FULL.search(ran.err):
        return Answer(Outcome.FULL, message=message)
    return Answer(
        Outcome.REFUSED, message=message, fields=_fields(ran.err), certain=_CERTAIN.search(ran.err) is not None
    )


def is_silence(text: str) -> bool:
    """Whether a program of Slurm complains that nobody answers."""
    return bool(_AWAY.search(text) or _UNCLEAR.search(text))


def explain_refusal(answer: Answer, options: Sequence[str], partitions: Sequence[str] = ()) -> str:
    """Slurm's words, what of the experiment they are about, and what would be valid.

    Args:
        answer: the refusal.
        options: that sbatch was called with.
        partitions: the names of those that there are.
    """
    text = f"Slurm refuses it: {answer.message.replace('sbatch: error: ', '').replace('sbatch: ', '')}"
    asked = {name: word for word in options if (name := _field_of(word)) in answer.fields}
    if answer.fields:
        # what was asked for is what may be wrong; the cluster's defaults hardly are
        text += f"; see {' or '.join(f'slurm.{name}' for name in asked or answer.fields)}"
    if asked:
        text += f" ({', '.join(asked.values())})"
    if "partition" in answer.fields and partitions:
        text += f"; the partitions are {', '.join(partitions)}"
    return text


def _field_of(option: str) -> str:
    name = option.partition("=")[0].removeprefix("--").replace("-", "_")
    return "time_limit" if name == "time" else name


def _fields(text: str) -> tuple[str, ...]:
    found = (field for pattern, fields in _FIELDS if re.search(pattern, text, re.IGNORECASE) for field in fields)
    return tuple(dict.fromkeys(found))
