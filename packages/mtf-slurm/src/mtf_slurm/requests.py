"""What a caller asks of the launcher, checked before anything is written: types, ids, names that stand for two."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mtf_config import ExecutionMode, ExperimentConfig, ParameterGridSearch
from mtf_slurm.configurations import differences
from mtf_slurm.errors import SLURMError, SlurmNotFoundError
from mtf_slurm.wording import shown
from mtf_utils.paths import given_path
from mtf_utils.rundir import SweepDirectory

if TYPE_CHECKING:
    from mtf_slurm.git import GitManager
    from mtf_slurm.views import Display

__all__ = [
    "check_display",
    "check_experiment",
    "check_folder",
    "check_git_manager",
    "check_job_id",
    "check_names",
    "check_path",
    "check_project_root",
    "check_request",
    "check_search",
    "check_seconds",
    "check_template",
    "distinct_experiments",
]


def check_request(mode: ExecutionMode, max_concurrent_jobs: int | None) -> None:
    """Refuse what cannot be done before anything is written.

    Raises:
        SLURMError: the mode is none, or not available; the limit is not a positive number.
    """
    if not isinstance(mode, ExecutionMode):
        names = ", ".join(f"ExecutionMode.{item.name}" for item in ExecutionMode)
        raise SLURMError(f"execution_mode={shown(mode)}: expected one of {names}")
    limit: Any = max_concurrent_jobs
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise SLURMError(
            f"max_concurrent_jobs={shown(limit)}: expected a whole number from 1, or None for no bound of your own"
        )
    if mode is ExecutionMode.SLURM and shutil.which("sbatch") is None:
        raise SlurmNotFoundError(
            "Slurm's programs are not on this machine (no sbatch in the PATH); run this on a login node of the "
            "cluster, or use ExecutionMode.LOCAL, or ExecutionMode.DRY_RUN to write everything and start nothing"
        )


def check_path(name: str, value: Any, what: str) -> Path:
    """A path as an absolute one.

    Args:
        name: of the argument.
        value: as the caller gave it.
        what: what is expected.

    Raises:
        SLURMError: it is no path.
    """
    try:
        return given_path(name, value, what).absolute()
    except (TypeError, ValueError) as error:
        raise SLURMError(str(error)) from error


def check_folder(sweep_dir: Any) -> SweepDirectory:
    """The folder of a sweep, which need not be there.

    Raises:
        SLURMError: it is no path.
    """
    return SweepDirectory(check_path("sweep_dir", sweep_dir, "the folder of a sweep"))


def check_template(path: Any) -> Path | None:
    """The user's template of the submission scripts; None stays None.

    Raises:
        SLURMError: it is no path, or no file is there.
    """
    if path is None:
        return None
    file = check_path("slurm_template_path", path, "the path of a template, or None for the built-in one")
    if not file.is_file():
        raise SLURMError(f"slurm_template_path: there is no file {file}")
    return file


def check_project_root(path: Any) -> Path:
    """The folder that runs work in.

    Raises:
        SLURMError: it is no path, or no folder is there.
    """
    root = check_path("project_root", path, "the folder that runs work in, or None for the working directory")
    if not root.is_dir():
        raise SLURMError(f"project_root: there is no folder {root}")
    return root


def check_git_manager(manager: Any) -> GitManager | None:
    """The manager of the repository; None stays None.

    Raises:
        SLURMError: it is something else.
    """
    from mtf_slurm.git import GitManager  # loads GitPython, which nobody needs who only reads

    if manager is None or isinstance(manager, GitManager):
        return manager
    remedy = "GitManager(path) makes one, and None finds the repository around the project"
    raise SLURMError(f"git_manager={shown(manager)}: expected a GitManager; {remedy}")


def check_display(display: Any) -> Display | None:
    """What shows the progress; None stays None.

    Raises:
        SLURMError: it cannot show any.
    """
    missing = [name for name in ("update", "say", "close") if not callable(getattr(display, name, None))]
    if display is not None and missing:
        raise SLURMError(f"display={shown(display)}: expected an object with the methods of Display, or None")
    return cast("Display | None", display)


def check_seconds(name: str, value: Any, *, least: float = 0.0) -> float:
    """A number of seconds, as it was given.

    Raises:
        SLURMError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value < least:
        raise SLURMError(f"{name}={shown(value)}: expected a number of seconds, {least:g} or more")
    return float(value)


def check_job_id(job_id: Any) -> str:
    """A job id, as it was given.

    Raises:
        SLURMError: it is no string; whether there is such a job is not looked for.
    """
    if isinstance(job_id, str):
        return job_id
    remedy = f"write {str(job_id)!r}" if isinstance(job_id, int) and not isinstance(job_id, bool) else "give a string"
    raise SLURMError(
        f"job_id={shown(job_id)}: {remedy}, as submit_experiment returns it: '123', '123_4', 'local-...' or 'dry-...'"
    )


def check_search(search: Any) -> None:
    """Refuse what is no search.

    Raises:
        SLURMError: it is none.
    """
    if not isinstance(search, ParameterGridSearch):
        raise SLURMError(
            f"search={shown(search)}: expected a ParameterGridSearch; `load_sweep(file, manager).search` is that of a "
            "sweep file"
        )


def check_experiment(name: str, value: Any) -> None:
    """Refuse what is no experiment.

    Raises:
        SLURMError: it is none.
    """
    if not isinstance(value, ExperimentConfig):
        raise SLURMError(
            f"{name}={shown(value)}: expected an ExperimentConfig; ExperimentConfig.from_dict makes one of a mapping"
        )


def check_names(names: Any) -> list[str]:
    """The names of runs, as they were given.

    Raises:
        SLURMError: it is no list of strings.
    """
    if isinstance(names, str | bytes | Mapping) or not isinstance(names, Iterable):
        raise SLURMError(f"names={shown(names)}: expected a list of the names of runs, or None for all of them")
    listed = list(names)
    for index, name in enumerate(listed):
        if not isinstance(name, str):
            raise SLURMError(f"names[{index}]={shown(name)}: expected the name of a run")
    return listed


def distinct_experiments(experiments: Any) -> tuple[dict[str, ExperimentConfig], dict[str, str]]:
    """The experiments of a batch by their names, and why some names stand for none.

    An experiment that is there twice, equal in every key, is one. Two that differ cannot share a name, and nobody knows
    which of them was meant: the name is refused, and neither is submitted.

    Args:
        experiments: as the caller gave them.

    Raises:
        SLURMError: it is no list of experiments.
    """
    if isinstance(experiments, ExperimentConfig | str | bytes | Mapping) or not isinstance(experiments, Iterable):
        raise SLURMError(f"experiments={shown(experiments)}: expected a list of ExperimentConfig")
    chosen: dict[str, ExperimentConfig] = {}
    problems: dict[str, str] = {}
    for index, item in enumerate(experiments):
        check_experiment(f"experiments[{index}]", item)
        name = item.experiment_name
        first = chosen.setdefault(name, item)
        if first is not item and (changes := differences(first.to_dict(), item.to_dict())):
            problems.setdefault(
                name,
                f"two experiments of the batch are named {name!r}, and they differ in {changes}; neither was "
                "submitted: give each a name of its own",
            )
    return {name: item for name, item in chosen.items() if name not in problems}, problems
