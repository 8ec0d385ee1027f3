"""Distributed runs, undisturbed and killed, and what is wrong with them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ranking.launches import Kill, Launch, Outcome, Place, Starter
from ranking.task import TASK

__all__ = ["RankRun", "Setup", "disturbed", "undisturbed"]

PACE_S: Final = 0.02
MOST_STARTS: Final = 4

Digests = list[dict[str, str]]


@dataclass(frozen=True)
class Setup:
    """How a run trains.

    Attributes:
        ranks: how many processes.
        strategy: `ddp` or `fsdp`.
        workers: loader workers of each.
    """

    ranks: int
    strategy: str
    workers: int

    def launch(self, start: Starter, folder: Path) -> Launch:
        """Start the training, or go on with it."""
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--workers", str(self.workers), "--pace", str(PACE_S), "--strategy", self.strategy]
        return Launch(start, [str(TASK), str(folder), *options], folder, self.ranks, folder / "log")

    def digests(self, folder: Path) -> Digests:
        """What came of a complete run, on every rank."""
        return [json.loads((folder / f"digest-{rank}.json").read_text()) for rank in range(self.ranks)]

    def is_complete(self, folder: Path) -> bool:
        """Whether every rank has finished."""
        return all((folder / f"digest-{rank}.json").exists() for rank in range(self.ranks))


@dataclass(frozen=True)
class RankRun:
    """A run that was killed once and continued.

    Attributes:
        kill: who was killed when.
        hit: whether it met the training.
        killed: how the killed launch ended.
        faults: what is wrong.
    """

    kill: Kill
    hit: bool
    killed: Outcome
    faults: tuple[str, ...]

    def line(self, index: int) -> str:
        """The run in a line."""
        kill, said = self.kill, "; ".join(self.faults) or "identical"
        epoch, batch = kill.place
        place = f"{kill.victim} (rank {kill.rank}) {kill.after_s:.2f} s after batch {batch} of epoch {epoch}"
        return f"{index}: {place}, {'hit' if self.hit else 'missed'}, over after {self.killed.took_s:.1f} s: {said}"


def undisturbed(setup: Setup, start: Starter, folder: Path) -> tuple[Digests, Place, float]:
    """What a run comes to, its last batch, and how many seconds pass from one batch to the next."""
    launch, began = setup.launch(start, folder), time.monotonic()
    while not launch.pids():
        began = time.monotonic()
        time.sleep(0.01)
    outcome = launch.execute(None)
    if outcome.status != 0:
        raise RuntimeError(f"the undisturbed run ended with status {outcome.status}: {(folder / 'log').read_text()}")
    epoch, batch = launch.place()
    return setup.digests(folder), (epoch, batch), (time.monotonic() - began) / ((epoch + 1) * (batch + 1))


def disturbed(setup: Setup, start: Starter, folder: Path, kill: Kill, reference: Digests) -> RankRun:
    """A run that is killed once and started again until it is complete."""
    killed = setup.launch(start, folder).execute(kill)
    faults = list(_faults_of_end(killed))
    if killed.hit and not kill.victim.startswith("kill") and not setup.is_complete(folder) and not _is_saved(folder):
        faults.append("work was lost")
    starts = 1
    while not setup.is_complete(folder) and starts < MOST_STARTS and not faults:
        faults += _faults_of_end(setup.launch(start, folder).execute(None))
        starts += 1
    if not setup.is_complete(folder):
        faults.append(f"not complete after {starts} starts")
    else:
        for rank, (found, wanted) in enumerate(zip(setup.digests(folder), reference, strict=True)):
            different = [name for name in wanted if found[name] != wanted[name]]
            faults += [f"rank {rank} differs in {', '.join(different)}"] if different else []
    return RankRun(kill, killed.hit, killed, tuple(faults))


def _faults_of_end(outcome: Outcome) -> list[str]:
    faults = ["the launcher hangs"] if outcome.status is None else []
    return faults + [f"process {pid} stayed behind" for pid in outcome.stayed]


def _is_saved(folder: Path) -> bool:
    """Whether the newest checkpoint is the one of a preemption, or that of the end: a signal may come after `fit`."""
    newest = folder / "checkpoints" / (folder / "checkpoints" / "latest").read_text().strip()
    return bool(json.loads((newest / "manifest.json").read_text())["kind"] in ("emergency", "final"))
