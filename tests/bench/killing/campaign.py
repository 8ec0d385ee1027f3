"""Many killed runs, in several lanes at once, until enough kills have hit."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from killing.lane import Lane, environment
from killing.runs import Run, Setup, make_run
from killing.shots import Shot, draw_shot

__all__ = ["Campaign"]

MOST_KILLS_A_RUN = 6


@dataclass
class Campaign:
    """Kills runs of every setup until so many kills have hit.

    Attributes:
        kills: how many.
        seed: of the shots.
        setups: the configurations, taken in turn.
        lanes: how many runs are under way at once.
        folder: where the runs lie.
        module: what the processes run; has what `killing.ours` has.
        runs: those that are over.
        elapsed_s: how long it took.
    """

    kills: int
    seed: int
    setups: Sequence[Setup]
    lanes: int
    folder: Path
    module: str = "killing.ours"
    runs: list[Run] = field(default_factory=list)
    elapsed_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _begun: int = 0
    _left: int = 0
    _references: dict[Setup, dict[str, str]] = field(default_factory=dict)
    _lifetimes_s: dict[Setup, float] = field(default_factory=dict)

    def execute(self) -> None:
        """Train undisturbed, then disturbed; what is found is in `runs`."""
        began, self._left = time.monotonic(), self.kills
        with ThreadPoolExecutor(self.lanes) as pool:
            for setup, digest in zip(self.setups, pool.map(self._train_undisturbed, self.setups), strict=True):
                self._references[setup] = digest
            for lane in [pool.submit(self._fill_lane, number) for number in range(self.lanes)]:
                lane.result()
        self.elapsed_s = time.monotonic() - began

    def _train_undisturbed(self, setup: Setup) -> dict[str, str]:
        """The digest of a run in one fresh, unobserved process."""
        folder = self.folder / f"undisturbed-{self.setups.index(setup)}"
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", self.module, json.dumps(setup.request(folder))]
        subprocess.run(command, check=True, env=environment())
        digest: dict[str, str] = json.loads((folder / "digest.json").read_text())
        return digest

    def _fill_lane(self, number: int) -> None:
        with Lane(self.module, number) as lane:
            while (run := self._begin()) is not None:
                index, setup = run
                finished = make_run(
                    lane,
                    setup,
                    self.folder / f"run-{index}",
                    self._shots(index),
                    self._lifetime_s(lane, setup),
                    self._references[setup],
                )
                with self._lock:
                    self.runs.append(finished)
                    self._left -= finished.kills

    def _begin(self) -> tuple[int, Setup] | None:
        with self._lock:
            if self._left <= 0:
                return None
            self._begun += 1
            return self._begun, self.setups[(self._begun - 1) % len(self.setups)]

    def _shots(self, index: int) -> Iterator[Shot]:
        draw = random.Random(f"{self.seed}/{index}")
        for _ in range(draw.randint(1, MOST_KILLS_A_RUN)):
            yield draw_shot(draw)

    def _lifetime_s(self, lane: Lane, setup: Setup) -> float:
        """How long an undisturbed process of the setup takes in a lane."""
        with self._lock:
            known = self._lifetimes_s.get(setup)
        if known is None:
            folder = self.folder / f"lifetime-{self.setups.index(setup)}-{threading.get_ident()}"
            began = time.monotonic()
            run = make_run(lane, setup, folder, iter(()), 0.0, self._references[setup])
            known = time.monotonic() - began
            with self._lock:
                self.runs.append(run)
                self._lifetimes_s[setup] = known
        return known
