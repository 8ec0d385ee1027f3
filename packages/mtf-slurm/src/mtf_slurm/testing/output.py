"""What Slurm's commands print, understood."""

from __future__ import annotations

import re
from typing import Final

from mtf_slurm.wording import counted

__all__ = ["not_ready", "parse_rpc_counts"]

# A state with anything after it (`idle*`, `unk*`) is that of a node which has not reported.
_WORKING: Final = frozenset({"idle", "mix", "alloc", "comp"})


def not_ready(sinfo: str, nodes: int) -> str | None:
    """Why not all nodes take jobs, from `sinfo --noheader --Node --format='%N %t'`; None if they do."""
    states = dict(line.split() for line in sinfo.splitlines() if line.strip())
    if len(states) != nodes:
        return f"sinfo lists {len(states)} of {counted(nodes, 'node')}"
    away = [f"{node} is {state}" for node, state in states.items() if state not in _WORKING]
    return ", ".join(away) or None


def parse_rpc_counts(sdiag: str) -> dict[str, int]:
    """How often each kind of request reached the controller, from the text of `sdiag`."""
    section = sdiag.partition("statistics by message type")[2].partition("statistics by user")[0]
    found = re.findall(r"^\s+(\w+)\s*\(\s*\d+\)\s+count:(\d+)", section, re.MULTILINE)
    return {kind: int(count) for kind, count in found}
