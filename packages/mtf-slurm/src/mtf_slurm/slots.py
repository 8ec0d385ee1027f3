"""Room for N runs side by side: who has which place, and with it which GPU and how many CPU threads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["THREAD_VARIABLES", "Slots"]

THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Slots:
    """The places of a launcher.

    Args:
        count: how many there are.
        gpus: dealt out one per place, in turn when there are more places than GPUs; empty when there are none.
        cores: CPU cores to share; None: those that this process may use.
        environ: the environment of the launcher.
    """

    def __init__(
        self,
        count: int,
        gpus: Sequence[str] = (),
        *,
        cores: int | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.count = count
        self.gpus = list(gpus)
        self._cores = cores or _usable_cores()
        self._environ = os.environ if environ is None else environ
        self._taken: dict[str, int] = {}

    @property
    def free(self) -> bool:
        """Whether a run may start."""
        return len(self._taken) < self.count

    def take(self, name: str, *, gpu: str | None = None) -> int:
        """Give the run a place.

        Args:
            name: the run.
            gpu: the GPU that it already uses, when it was started by another launcher.
        """
        used = set(self._taken.values())
        candidates = [slot for slot in range(len(used) + self.count + 1) if slot not in used]
        matching = [slot for slot in candidates if self.gpus and self._gpu(slot) == gpu]
        self._taken[name] = slot = (matching or candidates)[0]
        return slot

    def give_back(self, name: str) -> None:
        """The run has ended."""
        del self._taken[name]

    def environment(self, slot: int) -> dict[str, str]:
        """The variables that keep the run to its place; thread counts that the user has set stand."""
        threads = str(max(1, self._cores // self.count))
        variables = {name: threads for name in THREAD_VARIABLES if not self._environ.get(name)}
        if self.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = self._gpu(slot)
        return variables

    def _gpu(self, slot: int) -> str:
        return self.gpus[slot % len(self.gpus)]


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
