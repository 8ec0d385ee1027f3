"""What tests of the launcher on a real Slurm share: an environment that points there, experiments, waiting."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from mtf_config import ExecutionMode, ExperimentConfig
from mtf_slurm import BatchSubmissionResult, GridSearchResult, JobStatus, SLURMLauncher
from mtf_slurm.testing import LocalCluster
from mtf_utils.rundir import RunDirectory, SweepDirectory

__all__ = ["ClusterBench", "experiments", "wait_until"]

_FOREIGN = ("SLURM_", "SBATCH_", "MTF_", "GIT_")


def wait_until(condition: Callable[[], Any], what: str | Callable[[], str], timeout_s: float = 90) -> Any:
    """Poll until the condition holds and return its value; else the test fails, and says what was waited for."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, f"waited in vain for: {what if isinstance(what, str) else what()}"
        time.sleep(0.1)
    return value


def experiments(names: Iterable[str], **sections: Any) -> list[ExperimentConfig]:
    """Experiments of these names, and of nothing that matters but the sections."""
    keys = {"model": {"name": "m"}, "data": {"dataset_name": "d"}, "optimizer": {"name": "o"}} | sections
    return [ExperimentConfig.from_dict(keys | {"experiment_name": name}) for name in names]


class ClusterBench:
    """A project, and a cluster that this process, and what it starts, takes for the only one."""

    def __init__(
        self, cluster: LocalCluster, root: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], **launcher: Any
    ) -> None:
        for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
            monkeypatch.delenv(name)
        for name, value in cluster.environment().items():
            monkeypatch.setenv(name, value)
        for name, text in files.items():
            (root / name).write_text(text)
        self.cluster, self.root, self._monkeypatch = cluster, root, monkeypatch
        self.launcher = SLURMLauncher(None, root / "experiments", project_root=root, **launcher)
        self.folder = root / "experiments" / "single"

    def submit_batch(self, configs: list[ExperimentConfig]) -> BatchSubmissionResult:
        """Submit experiments to the cluster, together."""
        return self.launcher.submit_experiment_batch(configs, ExecutionMode.SLURM)

    def results(self) -> GridSearchResult:
        """How everything that was submitted stands."""
        return GridSearchResult.load(self.folder)

    def wait_over(self, *names: str, timeout_s: float = 90) -> GridSearchResult:
        """Wait until nothing may become of these runs any more, of all without names; how everything stands then."""

        def over() -> GridSearchResult | None:
            results = self.results()
            return None if any(run.may_change for run in results if not names or run.name in names) else results

        found: GridSearchResult = wait_until(over, f"the end of {names or 'all runs'}", timeout_s)
        return found

    def statuses(self) -> dict[str, JobStatus]:
        """The state of each run."""
        return {run.name: run.status for run in self.results()}

    def run(self, name: str) -> RunDirectory:
        """The folder of a run."""
        return SweepDirectory(self.folder).run(name)

    def replace_program(self, name: str, script: str) -> None:
        """Let a shell script stand for a program of Slurm."""
        folder = self.root / "bin"
        folder.mkdir(exist_ok=True)
        folder.joinpath(name).write_text(f"#!/bin/bash\n{script}\n")
        folder.joinpath(name).chmod(0o755)
        if str(folder) not in os.environ["PATH"]:
            self._monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
