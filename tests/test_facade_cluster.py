"""One sweep through the facade in its three modes, with the real trainer, on this machine and on a real Slurm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bench.sweeping.project import base, grid, make_project, outcome_of
from model_training_framework import ModelTrainingFramework
from model_training_framework.config import ConfigurationManager, ExecutionMode
from model_training_framework.slurm import GridSearchResult, JobStatus
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.rundir import RunDirectory

pytestmark = [pytest.mark.skipif(is_available() is not None, reason=is_available() or ""), pytest.mark.slow]

RUNS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(ClusterSettings(nodes=2)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def framework(tmp_path_factory: pytest.TempPathFactory) -> ModelTrainingFramework:
    root = make_project(tmp_path_factory.mktemp("facade") / "project")
    (root / "configs").mkdir()
    ConfigurationManager(root).save_config(base(), root / "configs" / "base.yaml")
    return ModelTrainingFramework(project_root=root)


@pytest.fixture(scope="module")
def local(framework: ModelTrainingFramework) -> GridSearchResult:
    """The sweep on this machine, two runs at a time, from a base given as keys."""
    return framework.run_grid_search(
        parameter_grids=[grid(RUNS)],
        base_config=base(),
        execution_mode=ExecutionMode.LOCAL,
        output_dir=framework.project_root / "local",
        max_concurrent_jobs=2,
    )


@pytest.fixture(scope="module")
def slurm(framework: ModelTrainingFramework, cluster: LocalCluster) -> Iterator[GridSearchResult]:
    """The same in Slurm, which is the default, from a base given as a file."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment().items():
            patch.setenv(name, value)
        result = framework.run_grid_search(
            [grid(RUNS)],
            base_config_path="base.yaml",
            output_dir=framework.project_root / "slurm",
            max_concurrent_jobs=2,
        )
        yield result.wait(240)


def outcomes(result: GridSearchResult) -> dict[str, Any]:
    return {run.name: outcome_of(RunDirectory(run.path)) for run in result}


def test_a_sweep_comes_to_the_same_on_this_machine_and_in_slurm(
    local: GridSearchResult, slurm: GridSearchResult
) -> None:
    assert local.counts == slurm.counts == {JobStatus.COMPLETED: RUNS}
    assert (local.mode, slurm.mode) == (ExecutionMode.LOCAL, ExecutionMode.SLURM)
    assert [(run.name, run.parameters) for run in local] == [(run.name, run.parameters) for run in slurm]
    assert [run.metrics for run in local] == [run.metrics for run in slurm]
    assert [run.name for run in local.leaderboard("val_loss")] == [run.name for run in slurm.leaderboard("val_loss")]
    found = outcomes(local)
    assert found == outcomes(slurm)  # journals and weights, bit for bit
    assert len({json.dumps(outcome["weights"]) for outcome in found.values()}) == RUNS  # and they do differ
    assert all(run.job_id.partition("_")[0].isdecimal() for run in slurm)


def test_dry_run_writes_what_slurm_would_get_and_starts_nothing(
    framework: ModelTrainingFramework, slurm: GridSearchResult
) -> None:
    dry = framework.run_grid_search(
        [grid(RUNS)], base(), execution_mode=ExecutionMode.DRY_RUN, output_dir=framework.project_root / "dry"
    )
    assert dry.counts == {JobStatus.NOT_SUBMITTED: RUNS}
    for run in dry:
        assert (run.path / "config.json").read_bytes() == (slurm[run.name].path / "config.json").read_bytes()
        assert (run.path / "job.sh").read_bytes() == (slurm[run.name].path / "job.sh").read_bytes()
        assert run.attempts == 0
    assert list((framework.project_root / "dry" / "submissions").glob("*/0.sh"))


def test_what_has_finished_in_one_mode_is_not_done_again_in_another(
    framework: ModelTrainingFramework, local: GridSearchResult, slurm: GridSearchResult
) -> None:
    again = framework.run_grid_search([grid(RUNS + 1)], base(), output_dir=local.output_dir).wait(240)
    assert sorted(run.attempts for run in again) == [1] * (RUNS + 1)
    modes = {bool((run.job_id or "").partition("_")[0].isdecimal()) for run in again}
    assert modes == {True, False}  # the new one ran in Slurm
    assert again.is_complete
    back = framework.run_grid_search([grid(RUNS + 1)], base(), None, ExecutionMode.LOCAL, slurm.output_dir)
    assert [run.attempts for run in back] == [1] * (RUNS + 1)
    assert outcomes(back) == outcomes(again)
