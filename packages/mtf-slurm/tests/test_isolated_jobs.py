"""Fifty jobs wait in a real Slurm while their checkout is edited, switched, deleted from and collected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtf_config import ExecutionMode
from mtf_slurm import SLURMLauncher
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.rundir import SweepDirectory

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.skipif(is_available() is not None, reason=is_available() or "")

JOBS = 50
TRAIN = """
import json, os, sys, time
from pathlib import Path
config = json.loads(Path(sys.argv[2]).read_text())["custom_params"]
while not Path(config["gate"]).exists():
    time.sleep(0.1)
import helper
seen = {"train": "TRAIN", "helper": helper.VERSION, "cwd": os.getcwd()}
Path(os.environ["MTF_RUN_DIR"], "seen.json").write_text(json.dumps(seen))
"""


def write_version(repo: Any, version: str) -> None:
    repo.write("train.py", TRAIN.replace("TRAIN", version))
    repo.write("src/helper.py", f"VERSION = {version!r}\n")


def test_fifty_waiting_jobs_run_what_was_submitted(
    slurm_cluster: Callable[..., LocalCluster],
    make_repository: Callable[[Path], Any],
    make_search: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    display: Any,
) -> None:
    with slurm_cluster(ClusterSettings(nodes=2)) as cluster:
        for name, value in cluster.environment().items():
            monkeypatch.setenv(name, value)
        repo = make_repository(tmp_path / "it's a $(touch hacked) repo")
        write_version(repo, "on main")
        repo.commit()
        repo.git("checkout", "--quiet", "-b", "exp")
        write_version(repo, "on exp")
        repo.commit()
        write_version(repo, "uncommitted")
        before = repo.state()
        folder = repo.path / "experiments" / "sweep"
        launcher = SLURMLauncher(None, folder.parent, project_root=repo.path, display=display)
        search = make_search({"custom_params.x": [float(x) for x in range(JOBS)]}, gate=str(tmp_path / "gate"))
        result = launcher.submit_sweep(search, folder, ExecutionMode.SLURM)
        assert repo.state() == before
        repo.git("checkout", "--quiet", "--force", "main")
        repo.git("branch", "--quiet", "-D", "exp")
        repo.git("reflog", "expire", "--expire=now", "--all")
        repo.git("gc", "--quiet", "--prune=now")
        write_version(repo, "edited since")
        (tmp_path / "gate").touch()
        result.wait(timeout_s=240)
        assert result.is_complete, result.counts
    runs = SweepDirectory(folder).runs()
    seen = [json.loads((run.path / "seen.json").read_text()) for run in runs]
    copy = folder / "code" / SweepDirectory(folder).sweep().code["tree"]
    assert len(seen) == JOBS
    assert all(entry == {"train": "uncommitted", "helper": "uncommitted", "cwd": str(copy)} for entry in seen)
    assert not [path for path in tmp_path.rglob("hacked*") if path.name == "hacked"]
