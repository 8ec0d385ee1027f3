"""Packages that pip has installed in editable mode, by every kind of it: jobs import them from the snapshot."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtf_slurm.code.isolation import code_file_of
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.rundir import SweepDirectory

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.slow

JOBS = 50

SETUPTOOLS = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "mine"
version = "1.0"
[tool.setuptools]
"""
HATCHLING = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "mine"
version = "1.0"
[tool.hatch.build.targets.wheel]
packages = ["python/mine"]
[tool.hatch.build]
"""

# how it is installed: pyproject.toml, where the package lies, options of pip, what then tells of it in site-packages
STYLES: dict[str, tuple[str, str, list[str], str]] = {
    "src, by a path": (SETUPTOOLS + 'package-dir = {"" = "src"}\n', "src/mine", [], "__editable__.mine-1.0.pth"),
    "lib, by a path": (SETUPTOOLS + 'package-dir = {"" = "lib"}\n', "lib/mine", [], "__editable__.mine-1.0.pth"),
    "deep, by a finder": (
        SETUPTOOLS + 'packages = ["mine"]\npackage-dir = {"mine" = "code/deep/mine"}\n',
        "code/deep/mine",
        [],
        "__editable___mine_1_0_finder.py",
    ),
    "flat, by a finder": (SETUPTOOLS + 'packages = ["mine"]\n', "mine", [], "__editable___mine_1_0_finder.py"),
    "src, strict": (
        SETUPTOOLS + 'package-dir = {"" = "src"}\n',
        "src/mine",
        ["--config-settings=editable_mode=strict"],
        "__editable__.mine-1.0.pth",
    ),
    "hatchling": (
        HATCHLING + 'dev-mode-dirs = ["python"]\n',
        "python/mine",
        [],
        "_mine.pth",
    ),
}
# those that no entry of PYTHONPATH can stand for: jobs import the checkout, and it is said
WARNED: dict[str, tuple[str, str, list[str], str]] = {
    "renamed, by a finder": (
        SETUPTOOLS + 'packages = ["mine"]\npackage-dir = {"mine" = "code/other"}\n',
        "code/other",
        [],
        "__editable___mine_1_0_finder.py",
    ),
    "lib, strict": (
        SETUPTOOLS + 'package-dir = {"" = "lib"}\n',
        "lib/mine",
        ["--config-settings=editable_mode=strict"],
        "__editable__.mine-1.0.pth",
    ),
}

TRAIN = """
import json, os, sys, time
from pathlib import Path
gate = Path(sys.argv[3])
while not gate.exists():
    time.sleep(0.05)
import mine.part
seen = {"version": mine.VERSION, "part": mine.part.VERSION, "file": mine.__file__}
Path(os.environ["MTF_RUN_DIR"], "seen.json").write_text(json.dumps(seen))
"""
SUBMIT = """
import json, sys
from pathlib import Path
from mtf_config import ExecutionMode, ExperimentConfig
from mtf_slurm import SLURMLauncher
root, gate, mode, *names = sys.argv[1:]
keys = {"model": {"name": "m"}, "data": {"dataset_name": "d"}, "optimizer": {"name": "o"}}
configs = [ExperimentConfig.from_dict(keys | {"experiment_name": name}) for name in names]
command = ["{python}", "train.py", "--config", "{config}", gate]
launcher = SLURMLauncher(None, Path(root, "experiments"), project_root=root, command=command)
assert not launcher.submit_experiment_batch(configs, ExecutionMode(mode)).failed
"""


class Installed:
    """A repository whose package is installed in editable mode in an environment of its own."""

    def __init__(self, repo: Any, top: Path, style: tuple[str, str, list[str], str]) -> None:
        self.repo, self.gate = repo, top / "gate"
        pyproject, self.place, options, mark = style
        needs = "hatchling" if "hatchling" in pyproject else "setuptools"
        for module in ("pip", needs):
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{module} is not installed")
        repo.write("pyproject.toml", pyproject)
        repo.write(".gitignore", "build/\n*.egg-info/\nexperiments/\n")
        repo.write("train.py", TRAIN)
        self.write("on main")
        repo.commit()
        repo.git("checkout", "--quiet", "-b", "exp")
        self.write("on exp")
        repo.commit()
        venv.create(top / "venv", with_pip=False, symlinks=True)
        self.python = top / "venv" / "bin" / "python"
        # what is installed here is there as well: pip, what builds, and what submits
        self.environ = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        words = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", *options]
        self.run(*words, "--editable", str(repo.path))
        assert list(top.glob(f"venv/lib/python*/site-packages/{mark}")), "it is installed in another way by now"
        assert self.imported() == "on exp"
        self.write("uncommitted")

    def write(self, version: str) -> None:
        for name in ("__init__", "part"):
            self.repo.write(f"{self.place}/{name}.py", f"VERSION = {version!r}\n")

    def run(self, *words: str) -> str:
        words = (str(self.python), *words)
        done = subprocess.run(
            words, env=self.environ, capture_output=True, text=True, timeout=200, cwd="/", check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def imported(self) -> str:
        """What the environment by itself takes for the package."""
        code = "import sys; sys.path.remove(''); import mine.part; print(mine.part.VERSION)"
        return self.run("-c", code).strip()

    def submit(self, mode: str, *names: str) -> str:
        return self.run("-c", SUBMIT, str(self.repo.path), str(self.gate), mode, *names)

    def wreck(self, *, release: bool = True) -> None:
        """Switch, delete the branch, let git collect, and edit; then let jobs go on."""
        git = self.repo.git
        git("checkout", "--quiet", "--force", "main")
        git("branch", "--quiet", "-D", "exp")
        git("reflog", "expire", "--expire=now", "--all")
        git("gc", "--quiet", "--prune=now")
        self.write("edited since")
        assert self.imported() == "edited since"
        if release:
            self.gate.touch()

    @property
    def sweep(self) -> SweepDirectory:
        return SweepDirectory(self.repo.path / "experiments" / "single")

    def seen(self, name: str) -> dict[str, str]:
        seen: dict[str, str] = json.loads((self.sweep.run(name).path / "seen.json").read_text())
        return seen

    def check(self, name: str) -> None:
        seen = self.seen(name)
        assert (seen["version"], seen["part"]) == ("uncommitted", "uncommitted")
        assert Path(seen["file"]).is_relative_to(self.sweep.path / "code")


@pytest.fixture
def install(tmp_path: Path, make_repository: Callable[[Path], Any]) -> Callable[..., Installed]:
    def make(style: tuple[str, str, list[str], str], name: str = "one") -> Installed:
        (tmp_path / name).mkdir()
        return Installed(make_repository(tmp_path / name / "repo"), tmp_path / name, style)

    return make


@pytest.mark.parametrize("style", STYLES)
def test_a_job_imports_the_snapshot(install: Callable[..., Installed], style: str) -> None:
    installed = install(STYLES[style])
    before = installed.repo.state()
    said = installed.submit("dry_run", "a")
    assert installed.repo.state() == before
    assert "editable" not in said
    installed.wreck()
    subprocess.run(["bash", installed.sweep.run("a").job_script], check=True, timeout=60, env=installed.environ)
    installed.check("a")


@pytest.mark.parametrize("style", WARNED)
def test_what_no_snapshot_can_stand_for_is_said(install: Callable[..., Installed], style: str) -> None:
    installed = install(WARNED[style])
    said = installed.submit("dry_run", "a")
    code = code_file_of(installed.sweep.run("a"))
    assert code is not None
    (warning,) = code.warnings
    assert warning in said
    assert "mine" in warning
    assert "import it from the checkout" in warning
    installed.wreck()
    subprocess.run(["bash", installed.sweep.run("a").job_script], check=True, timeout=60, env=installed.environ)
    assert installed.seen("a")["version"] == "edited since"


@pytest.mark.skipif(is_available() is not None, reason=is_available() or "")
def test_fifty_jobs_that_wait_in_slurm_import_the_snapshot(
    install: Callable[..., Installed],
    slurm_cluster: Callable[..., LocalCluster],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., Any],
) -> None:
    styles = ("lib, by a path", "deep, by a finder")
    with slurm_cluster(ClusterSettings(nodes=1, cpus=32)) as cluster:
        for name, value in cluster.environment().items():
            monkeypatch.setenv(name, value)
        every = [install(STYLES[style], str(number)) for number, style in enumerate(styles)]
        names = [f"run-{number}" for number in range(JOBS)]
        for installed in every:
            before = installed.repo.state()
            installed.submit("slurm", *names)
            assert installed.repo.state() == before
            installed.wreck(release=False)
        for installed in every:
            assert not any(installed.sweep.run(name).path.joinpath("seen.json").exists() for name in names)
            installed.gate.touch()
            for name in names:
                wait_until((installed.sweep.run(name).attempt(1).finished_file).exists, "the job")
                installed.check(name)
