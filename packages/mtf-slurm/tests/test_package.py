"""The package as a whole: what it exports, and what it loads before that is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mtf_slurm
from mtf_utils.cli import main

HEAVY = {"git", "jinja2", "plotly", "rich", "tenacity", "yaml"}


def loaded_by(code: str, folder: Path) -> set[str]:
    """The modules that a fresh process holds after running some code."""
    report = "\nimport sys\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code + report], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.split())


def test_everything_exported_is_there_once_and_documented() -> None:
    assert len(set(mtf_slurm.__all__)) == len(mtf_slurm.__all__)
    assert set(mtf_slurm.__all__) <= set(dir(mtf_slurm))
    for name in mtf_slurm.__all__:
        assert (getattr(mtf_slurm, name).__doc__ or "").strip(), name
    star: dict[str, object] = {}
    exec("from mtf_slurm import *", star)
    assert set(mtf_slurm.__all__) <= set(star)
    assert mtf_slurm.SLURMLauncher is star["SLURMLauncher"]


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mtf_slurm' has no attribute 'SlurmLauncher'"):
        _ = mtf_slurm.SlurmLauncher
    with pytest.raises(ImportError, match="cannot import name 'SlurmLauncher'"):
        exec("from mtf_slurm import SlurmLauncher")


@pytest.mark.parametrize("code", ["import mtf_slurm", "from mtf_slurm import SLURMError, JobStatus, GridSearchResult"])
def test_importing_loads_nothing_heavy(code: str, tmp_path: Path) -> None:
    loaded = loaded_by(code, tmp_path)
    assert "mtf_slurm.status" in loaded
    assert not loaded & (HEAVY | {"mtf_slurm.launcher", "mtf_slurm.git", "mtf_slurm.sweep"})


def test_looking_at_a_sweep_loads_nothing_that_starts_one(sweep: Path) -> None:
    loaded = loaded_by(f"from mtf_utils.cli import main\nassert main(['status', {str(sweep)!r}]) == 0", sweep)
    assert "mtf_slurm.status_command" in loaded
    assert not loaded & (HEAVY | {"mtf_slurm.launcher", "mtf_slurm.code.isolation", "mtf_slurm.cluster.submission"})


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of two runs that nobody has started."""
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "base: {experiment_name: a, model: {name: b}, data: {dataset_name: c}, optimizer: {name: d}}\n"
        "grids: [{name: g, parameters: {seed: [1, 2]}}]\ncommand: 'true'\noutput_dir: sweep\n"
    )
    assert main(["run", str(file), "-e", "dry_run"]) == 0
    return tmp_path / "sweep"
