"""`ModelTrainingFramework`: from grids over a configuration to the results of their runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtf_config import (
    ConfigurationError,
    ConfigurationManager,
    ExecutionMode,
    ExperimentConfig,
    NamingStrategy,
    ParameterGrid,
    ParameterGridSearch,
)
from mtf_config.compose import Composition
from mtf_slurm import GridSearchResult, SLURMLauncher, sweep_name
from mtf_utils import ProjectRootError
from mtf_utils.paths import given_path

__all__ = ["ModelTrainingFramework"]

PathLike = str | os.PathLike[str]


class ModelTrainingFramework:
    """One project: its configurations, its sweeps, its launcher.

    Args:
        project_root: the folder that runs work in.
        config_dir: where configurations lie; None is `configs` in the project.
        slurm_template_path: the user's template of the submission script; None is the built-in one.

    Raises:
        ProjectRootError: the project root is no folder.
        TypeError: an argument is no path.
        SLURMError: there is no such template.
    """

    def __init__(
        self,
        project_root: PathLike,
        config_dir: PathLike | None = None,
        slurm_template_path: PathLike | None = None,
    ) -> None:
        self.project_root = given_path("project_root", project_root, "the root folder of your project")
        self.project_root = self.project_root.expanduser().absolute()
        if not self.project_root.is_dir():
            what = "is not a folder" if self.project_root.exists() else "does not exist"
            raise ProjectRootError(f"project_root: {self.project_root} {what}; name the root folder of your project")
        self._config_manager = ConfigurationManager(self.project_root, config_dir)
        self._launcher = SLURMLauncher(
            slurm_template_path, self.project_root / "experiments", project_root=self.project_root
        )

    def run_grid_search(
        self,
        parameter_grids: Sequence[ParameterGrid],
        base_config: Mapping[str, Any] | ExperimentConfig | PathLike | None = None,
        base_config_path: PathLike | None = None,
        execution_mode: ExecutionMode = ExecutionMode.SLURM,
        output_dir: PathLike | None = None,
        max_concurrent_jobs: int | None = None,
        *,
        command: str | Sequence[str] | None = None,
        naming_strategy: NamingStrategy = NamingStrategy.HASH_BASED,
        resume_across_code: bool = False,
    ) -> GridSearchResult:
        """Run every experiment of the grids; in a folder that has some of them already, what is missing.

        Called again, it does what is new, has failed or was cut off, and nothing that has finished. Runs of an earlier
        call that the grids no longer ask for are left alone, and named: see `GridSearchResult.orphans`.

        Args:
            parameter_grids: the grids; runs are the union of their points.
            base_config: what every experiment starts from: keys, a file, or a whole experiment.
            base_config_path: the same as a file; give one of the two.
            execution_mode: SLURM submits and returns, and the result's `wait()` or `refresh()` tells how it goes on;
                LOCAL runs to the end; DRY_RUN writes everything and starts nothing.
            output_dir: the folder of the sweep; None is `experiments/<names of the grids>-<hash>` in the project.
            max_concurrent_jobs: how many run at a time; None: locally as many as there are GPUs, else one; in Slurm as
                many as the cluster likes.
            command: what a run executes; None is `{python} train.py --config {config}`.
            naming_strategy: how runs are named.
            resume_across_code: whether to continue checkpoints that other code has made, which is recorded; else such
                runs are left out.

        Raises:
            ConfigurationError: the base or a grid is not acceptable, or there is no base, or two.
            ClusterUnreachableError: there is no Slurm on this machine.
            SLURMError: the runs cannot be submitted as asked, or the cluster does not take them.
            LaunchInterrupted: Ctrl-C; every run has saved and ended, and the same call continues.
        """
        search = ParameterGridSearch(self._base(base_config, base_config_path))
        search.set_naming_strategy(naming_strategy)
        if isinstance(parameter_grids, ParameterGrid) or not parameter_grids:
            raise ConfigurationError.because("parameter_grids: expected a list with at least one ParameterGrid")
        for grid in parameter_grids:
            search.add_grid(grid)
        folder = output_dir if output_dir is not None else self._launcher.output_dir / sweep_name(search)
        return self._launcher.submit_sweep(
            search,
            folder,
            execution_mode,
            max_concurrent_jobs,
            command=command,
            resume_across_code=resume_across_code,
        )

    def load_results(self, output_dir: PathLike) -> GridSearchResult:
        """The results in the folder of a sweep, in whatever process it was started, and while it goes on.

        Args:
            output_dir: the folder, such as the `output_dir` of an earlier result.

        Raises:
            SLURMError: there is no sweep in that folder.
        """
        return GridSearchResult.load(output_dir)

    def get_config_manager(self) -> ConfigurationManager:
        """The manager of the project's configurations."""
        return self._config_manager

    def get_slurm_launcher(self) -> SLURMLauncher:
        """The launcher of the project's runs."""
        return self._launcher

    def _base(
        self, base: Mapping[str, Any] | ExperimentConfig | PathLike | None, path: PathLike | None
    ) -> Mapping[str, Any] | ExperimentConfig | Composition:
        if (base is None) == (path is None):
            found = "neither" if base is None else "both"
            raise ConfigurationError.because(f"give base_config or base_config_path, one of the two; found {found}")
        if isinstance(base, Mapping | ExperimentConfig):
            return base
        chosen = path if path is not None else base
        assert chosen is not None
        return self._config_manager.composition(Path(chosen))  # it knows where the file says what
