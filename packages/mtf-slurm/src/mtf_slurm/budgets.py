"""The budgets of a run, from its configuration, and whether its last attempts brought anything, from its folder."""

from __future__ import annotations

import contextlib
import getpass
import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtf_config import RetryConfig
from mtf_slurm.policy import Budgets, Cause, Hold, held_back
from mtf_slurm.status import AttemptEvidence, Evidence
from mtf_utils.envref import EnvReferenceError, resolve_env
from mtf_utils.rundir import Ask, RunDirectory, SweepDirectory, now

__all__ = ["Limits", "ask_for", "has_checkpoints", "hold_of", "retry_words"]


@dataclass(frozen=True)
class Limits:
    """What of a run's configuration decides whether it is tried again.

    Attributes:
        checkpoints: the folder of its checkpoints; None where only the environment of its job tells which that is.
        budgets: its budgets.
    """

    checkpoints: Path | None
    budgets: Budgets = field(default_factory=lambda: _budgets({}))

    @classmethod
    def of(cls, run: RunDirectory) -> Limits:
        """Read them from the run's `config.json`; the usual ones if it cannot be read, which keeps it from starting."""
        try:
            config = json.loads(run.config_json.read_text("utf-8"))
            folder = config.get("checkpoint", {}).get("checkpoint_dir", run.checkpoints_dir.name)
            return cls(_place(run, folder), _budgets(config))
        except (OSError, ValueError, AttributeError, TypeError):
            return cls(run.checkpoints_dir)

    def is_stalled(self, run: RunDirectory, evidence: Evidence) -> bool:
        """Whether as many attempts in a row as may ended without anything having come of them.

        Each attempt notes what there is when it starts; attempts that count no more are not looked at.
        """
        counted = [attempt for attempt in evidence.attempts if attempt.number >= evidence.counts_from]
        if self.checkpoints is None or len(counted) < self.budgets.without_progress:
            return False
        return not self._has_grown(run, counted[-self.budgets.without_progress])

    def _has_grown(self, run: RunDirectory, since: AttemptEvidence) -> bool:
        """Whether there is more of the metrics, or another checkpoint, than when that attempt started."""
        size_before, names = 0, set[str]()
        with contextlib.suppress(FileNotFoundError):  # without a note there was nothing
            first, *lines = run.attempt(since.number).before_file.read_text("utf-8").splitlines()
            size_before, names = int(first.split()[1]), set(lines)
        size = 0
        with contextlib.suppress(FileNotFoundError):
            size = run.metrics_file.stat().st_size
        return size > size_before or not self.saved() <= names

    def saved(self) -> set[str]:
        """The names of the checkpoints that there are."""
        if self.checkpoints is None:
            return set()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return {entry.name for entry in self.checkpoints.iterdir() if not entry.name.startswith(".")}
        return set()


def _place(run: RunDirectory, written: str) -> Path | None:
    try:
        return run.path / str(resolve_env([written])[0])
    except EnvReferenceError:
        return None


def _budgets(config: Mapping[str, Any]) -> Budgets:
    retries = RetryConfig.from_dict((config.get("slurm") or {}).get("retries") or {})
    return Budgets(
        limits={
            Cause.PREEMPTION: config.get("preemption", {}).get("max_preemptions"),
            Cause.TIMEOUT: retries.timeout,
            Cause.NODE_FAILURE: retries.node_failure,
            Cause.OUT_OF_MEMORY: retries.out_of_memory,
            Cause.FAILURE: retries.failure,
        },
        without_progress=retries.without_progress,
        memory_growth=retries.memory_growth,
        max_memory=retries.max_memory,
    )


def hold_of(run: RunDirectory, evidence: Evidence) -> Hold | None:
    """Why a run that is over, and has not finished, is not tried again; None if it may be."""
    if not evidence.attempts or evidence.is_finished:
        return None
    limits = Limits.of(run)
    return held_back(evidence, limits.budgets, stalled=limits.is_stalled(run, evidence))


def retry_words(directory: SweepDirectory) -> str:
    """The command that asks for runs of a folder again, up to their names."""
    return f"mtf retry {shlex.quote(str(directory.path))}"


def has_checkpoints(run: RunDirectory) -> bool:
    """Whether there is anything that the run would continue from; where that cannot be seen, attempts have left it."""
    limits = Limits.of(run)
    return bool(run.attempts()) if limits.checkpoints is None else bool(limits.saved())


def _whoami() -> str:
    """The user and the host, for the record."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return f"{user}@{platform.node()}"


def ask_for(run: RunDirectory, how: str, *, code_before: str | None = None, code_after: str | None = None) -> None:
    """Note that somebody asks for a run that has been tried before: its next attempt begins new budgets."""
    attempt = 1 + max((attempt.number for attempt in run.attempts()), default=0)
    ask = Ask(attempt=attempt, by=_whoami(), how=how, asked_at=now(), code_before=code_before, code_after=code_after)
    run.asked_dir.mkdir(parents=True, exist_ok=True)
    ask.write(run.ask_file(attempt))
