"""A controller that is frozen and thawed, killed and restarted at random while something else goes on."""

from __future__ import annotations

import random
import threading
import time
from types import TracebackType
from typing import Self

from mtf_slurm.testing import ClusterError, LocalCluster


class Trouble:
    """Disturbs a cluster's controller while the `with` block runs, for a while at most; afterwards it is well.

    A launcher that waits for quiet answers would wait for ever if there never were any.

    Args:
        cluster: whose controller.
        seed: of what happens when.
        longest_s: how long at most.

    Attributes:
        freezes: how often it was frozen.
        kills: how often it was killed.
        drained: how often a node was out of service afterwards: a start of a job that fails in a crash drains it.
    """

    def __init__(self, cluster: LocalCluster, seed: int, *, longest_s: float) -> None:
        self._cluster = cluster
        self._longest_s = longest_s
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on)
        self._error: BaseException | None = None
        self.freezes = self.kills = self.drained = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _go_on(self) -> None:
        try:
            began = time.monotonic()
            while not (self._has_ended(began) and self.freezes and self.kills):  # one of each at least
                if not self.freezes or (self.kills and self._random.random() < 0.75):
                    self._freeze()
                else:
                    self._kill()
                self._over.wait(self._random.uniform(0.0, 0.8))
        except Exception as error:  # noqa: BLE001 - handed to who waits for the end
            self._error = error

    def _has_ended(self, began: float) -> bool:
        return self._over.is_set() or time.monotonic() - began > self._longest_s

    def _freeze(self) -> None:
        self._cluster.freeze_controller()
        self.freezes += 1
        # around the time that Slurm's programs wait for an answer, so that some of them give up and some do not
        self._over.wait(self._random.uniform(0.05, 1.8 * self._cluster.settings.message_timeout_s))
        self._cluster.thaw_controller()

    def _kill(self) -> None:
        self._cluster.kill_controller()
        self.kills += 1
        self._over.wait(self._random.uniform(0.0, 1.0))
        try:
            self._cluster.start_controller()
        except ClusterError:
            self.drained += 1
            self._cluster.run(["scontrol", "update", "NodeName=ALL", "State=RESUME"])
            self._cluster.wait_ready()
