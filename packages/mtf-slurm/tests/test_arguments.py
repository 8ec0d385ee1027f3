"""Arguments of no use are refused where they are given, with their value, their place and what to give instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtf_config import ExecutionMode
from mtf_slurm import GitManager, GitOperationError, GridSearchResult, SLURMError, SLURMLauncher


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"output_dir": None}, "output_dir=None: expected the folder that is to hold the runs, as a string or a Path"),
        ({"output_dir": ""}, "output_dir='': expected the folder that is to hold the runs"),
        ({"output_dir": b"x"}, "output_dir=b'x': expected the folder that is to hold the runs"),
        ({"slurm_template_path": 3}, "slurm_template_path=3: expected the path of a template, or None"),
        ({"slurm_template_path": "x.j2"}, "slurm_template_path: there is no file"),
        ({"git_manager": "git"}, "git_manager='git': expected a GitManager; GitManager(path) makes one, and None"),
        ({"project_root": 3}, "project_root=3: expected the folder that runs work in, or None"),
        ({"project_root": "nowhere"}, "project_root: there is no folder"),
        ({"display": "x"}, "display='x': expected an object with the methods of Display, or None"),
        ({"command": 3}, "command=3: expected a line such as"),
        ({"submit_timeout_s": "x"}, "submit_timeout_s='x': expected a number of seconds"),
    ],
)
def test_a_launcher(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SLURMError) as caught:
        SLURMLauncher(**({"slurm_template_path": None, "output_dir": "runs"} | arguments))
    assert said in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, ""])
def test_other_paths(launcher: SLURMLauncher, make_search: Callable[..., Any], value: Any) -> None:
    with pytest.raises(GitOperationError, match=f"^repo_path={value!r}: expected the path of a repository"):
        GitManager(value)
    for call in (GridSearchResult, launcher.retry, launcher.continue_sweep):
        with pytest.raises(SLURMError, match=f"^output_dir={value!r}: expected the folder of a sweep"):
            call(value)
    for call in (launcher.submit_sweep, launcher.plan_sweep):
        with pytest.raises(SLURMError, match=f"^sweep_dir={value!r}: expected the folder of a sweep"):
            call(make_search({}), value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"names": "tiny"}, "names='tiny': expected a list of the names of runs, or None"),
        ({"names": 3}, "names=3: expected a list of the names of runs, or None"),
        ({"names": ["tiny", 3]}, r"names\[1\]=3: expected the name of a run"),
        ({"execution_mode": ExecutionMode.DRY_RUN}, "what would be tried again is told with dry_run=True"),
        ({"execution_mode": "slurm"}, "execution_mode='slurm': expected one of ExecutionMode.SLURM"),
        ({"max_concurrent_jobs": 0}, "max_concurrent_jobs=0: expected a whole number from 1"),
        ({"max_concurrent_jobs": "2"}, "max_concurrent_jobs='2': expected a whole number from 1"),
    ],
)
def test_a_retry(
    launcher: SLURMLauncher, make_search: Callable[..., Any], project: Path, arguments: dict[str, Any], said: str
) -> None:
    folder = project / "experiments" / "sweep"
    launcher.submit_sweep(make_search({}, exit=3), folder, ExecutionMode.LOCAL)
    before = sorted(folder.rglob("*"))
    with pytest.raises(SLURMError, match=said):
        launcher.retry(folder, **arguments)
    assert sorted(folder.rglob("*")) == before
