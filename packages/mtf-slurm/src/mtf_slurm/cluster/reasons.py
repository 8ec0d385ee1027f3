"""What squeue's reason for a job that waits means to its owner: what it waits for, or why it waits in vain. Pure.

Source: squeue(1) of Slurm 22.05 and later, and what its controller says in fact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["is_held_after_launch", "waiting_words", "waits_in_vain", "what_to_do"]

_LAUNCH_FAILED: Final = "launch failed requeued held"

_WAITS_FOR: Final[Mapping[str, str]] = {
    "BeginTime": "its earliest start: a job that is queued again is held back for a while",
    "Cleaning": "its node to be rid of the attempt before",
    "Dependency": "other jobs to end first, those that keep to max_concurrent_jobs included",
    "JobArrayTaskLimit": "its turn: max_concurrent_jobs of its array run already",
    "JobHeldAdmin": "an administrator, who has to release it",
    "JobHeldUser": "scontrol release",
    "Licenses": "licenses that others use",
    "NodeDown": "a node that is down",
    "PartitionDown": "its partition, which takes no jobs for now",
    "PartitionInactive": "its partition, which starts no jobs for now",
    "Priority": "jobs of higher priority",
    "ReqNodeNotAvail": "nodes that are down, drained or reserved",
    "Reservation": "its reservation to begin",
    "Resources": "free resources",
}

_IN_VAIN: Final[Mapping[str, tuple[str, str]]] = {
    "AccountNotAllowed": ("its partition does not take its account", "slurm.account or slurm.partition"),
    "BadConstraints": ("no node is as it asks", "slurm.constraint or slurm.gres"),
    "DependencyNeverSatisfied": ("what it waits for will not happen any more", "slurm.dependency"),
    "InvalidAccount": ("there is no such account", "slurm.account"),
    "InvalidQOS": ("there is no such quality of service", "slurm.qos"),
    "PartitionConfig": ("its partition gives no job what it asks for", "slurm.nodes, slurm.gres or slurm.partition"),
    "PartitionNodeLimit": ("its partition gives no job as many nodes", "slurm.nodes or slurm.partition"),
    "PartitionTimeLimit": ("its partition gives no job as much time", "slurm.time_limit or slurm.partition"),
    "QOSNotAllowed": ("its partition does not take its quality of service", "slurm.qos or slurm.partition"),
}
"""Why a job is never going to start as it is, and what of an experiment may be changed."""

_OF_ONE_JOB: Final = re.compile(r"(Assoc|QOS)(Max|Min)\w*(PerJob|PerNode)(Limit)?|(Assoc|QOS)MaxWall\w*|QOSMin\w*")
_OF_ALL_JOBS: Final = re.compile(r"(Assoc|QOS)\w+")


def is_held_after_launch(reason: str) -> bool:
    """Whether Slurm holds a job because a node could not start it; its owner may release it."""
    return _bare(reason) == _LAUNCH_FAILED


def waits_in_vain(reason: str) -> bool:
    """Whether a job is not going to start unless somebody does something about it."""
    return bool(_why_in_vain(_bare(reason)))


def waiting_words(reason: str) -> str:
    """Why a job waits: Slurm's word, with an explanation if it waits in vain; empty if Slurm says nothing."""
    bare = _bare(reason)
    if bare in ("", "None"):
        return ""
    return f"{reason}: {why}" if (why := _why_in_vain(bare)) else reason


def what_to_do(reason: str) -> str:
    """What to do about a job that waits; empty if that is not known."""
    bare = _bare(reason)
    if bare == _LAUNCH_FAILED:
        return "submit the sweep again, which releases it; if that is of no use, tell the site that a node is broken"
    if _why_in_vain(bare):
        what = _IN_VAIN[bare][1] if bare in _IN_VAIN else "what it asks for (section slurm)"
        return f"cancel it, change {what}, and submit the sweep again"
    if bare in _WAITS_FOR:
        return f"wait for {_WAITS_FOR[bare]}"
    return "wait for other jobs of yours or of your account to end" if _OF_ALL_JOBS.fullmatch(bare) else ""


def _why_in_vain(bare: str) -> str:
    if bare == _LAUNCH_FAILED:
        return "a node could not start it"
    if bare in _IN_VAIN:
        return _IN_VAIN[bare][0]
    return "it asks for more or less than a limit allows a job" if _OF_ONE_JOB.fullmatch(bare) else ""


def _bare(reason: str) -> str:
    """The reason without parentheses and further details, as in `(ReqNodeNotAvail, UnavailableNodes:n1)`."""
    return reason.strip("()").partition(",")[0].strip()
