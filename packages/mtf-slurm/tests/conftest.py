"""A project with a tiny training script, and what the tests of the launcher share."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from mtf_config import ExperimentConfig, NamingStrategy, ParameterGridSearch
from mtf_slurm import SLURMLauncher
from mtf_slurm.views import RunView
from mtf_utils.rundir import RunDirectory, SweepDirectory

sys.path.insert(0, str(Path(__file__).parent))  # for modules that tests share

settings.register_profile("mtf", deadline=None)  # a busy machine is no failure
settings.load_profile("mtf")

DEADLINE_S = 60.0

# Counts to `steps`, one line of metrics and one checkpoint a step, and continues from the newest checkpoint. What else
# it does is told by its parameters: wait at a step until a file appears, fail, end with a status.
TRAIN = """
import json, os, signal, sys, time
from pathlib import Path
from mtf_utils.rundir import RunResultFile, current_run, now

stop = []
signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
signal.signal(signal.SIGUSR1, lambda number, frame: stop.append(number))
run, attempt = current_run()
config = json.loads(Path(sys.argv[2]).read_text())
assert Path(os.environ["MTF_CONFIG"]).read_text() == Path(sys.argv[2]).read_text()
p = config["custom_params"]
run.checkpoints_dir.mkdir(exist_ok=True)
(run.path / "pid").write_text(str(os.getpid()))
with (run.path / "starts").open("a") as file:
    file.write(f"{attempt.number}\\n")
step = max([int(c.name) for c in run.checkpoints_dir.iterdir()], default=0)
lines = run.metrics_file.read_text().splitlines(keepends=True) if run.metrics_file.exists() else []
run.metrics_file.write_text("".join(lines[:step]))
if p.get("exit"):
    print("about to end", flush=True)
    sys.exit(p["exit"])
while step < p.get("steps", 3):
    if stop:
        sys.exit(75)
    if step == p.get("fail_at"):
        raise ValueError(f"bad step {step}")
    if step == p.get("hold_at"):
        (run.path / "held").touch()
        while not stop and not Path(p["gate"]).exists():
            time.sleep(0.005)
        if stop:
            sys.exit(75)
    time.sleep(p.get("pace_s", 0))
    step += 1
    with run.metrics_file.open("a") as file:
        loss = p.get("x", 1.0) / step
        record = {"event": "train", "epoch": 0, "global_step": step, "loss": loss, "time": time.time()}
        file.write(json.dumps(record) + "\\n")
    (run.checkpoints_dir / str(step)).mkdir()
metrics = {"val_loss": p.get("x", 1.0) / step}
RunResultFile(epoch=1, global_step=step, metrics=metrics, checkpoint="checkpoints/" + str(step), seed=0,
              finished_at=now()).write(run.result_file)
"""

BASE: dict[str, Any] = {
    "experiment_name": "tiny",
    "model": {"name": "counter"},
    "data": {"dataset_name": "none"},
    "optimizer": {"name": "none"},
}


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """Waits for a condition to hold, and returns its value."""
    from cluster_runs import wait_for

    return wait_for


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MTF_", "SLURM_", "GIT_")) or name in ("PYTHONHASHSEED", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.delenv(name)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "train.py").write_text(TRAIN)
    return root


@pytest.fixture
def make_config() -> Callable[..., ExperimentConfig]:
    def make(name: str = "tiny", **params: Any) -> ExperimentConfig:
        sections = {
            key: params.pop(key) for key in ("preemption", "slurm", "checkpoint", "deterministic") if key in params
        }
        return ExperimentConfig.from_dict(BASE | {"experiment_name": name, "custom_params": params} | sections)

    return make


@pytest.fixture
def make_search() -> Callable[..., ParameterGridSearch]:
    def make(values: dict[str, Sequence[Any]], *, naming: str = "descriptive", **params: Any) -> ParameterGridSearch:
        sections = {key: params.pop(key) for key in ("preemption",) if key in params}
        search = ParameterGridSearch(BASE | {"custom_params": {"x": 1.0} | params} | sections)
        grid = search.create_grid("grid")
        for key, listed in values.items():
            grid.add_parameter(key, listed)
        search.set_naming_strategy(NamingStrategy(naming))
        return search

    return make


class Recorder:
    """A display that remembers."""

    def __init__(self) -> None:
        self.frames: list[list[RunView]] = []
        self.said: list[str] = []
        self.closed = False

    def update(self, runs: Sequence[RunView]) -> None:
        self.frames.append(list(runs))

    def say(self, text: str) -> None:
        self.said.append(text)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def display() -> Recorder:
    return Recorder()


@pytest.fixture
def launcher(project: Path, display: Recorder) -> SLURMLauncher:
    return SLURMLauncher(None, project / "experiments", project_root=project, display=display)


@pytest.fixture
def runs_of() -> Callable[[Path], dict[str, RunDirectory]]:
    return lambda folder: {run.name: run for run in SweepDirectory(folder).runs()}


class SmallDisk:
    """A file system of 256 kB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.filler = path / "filler"

    def fill(self) -> None:
        with contextlib.suppress(OSError), self.filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Callable[[], contextlib.AbstractContextManager[SmallDisk]]:
    @contextlib.contextmanager
    def mounted() -> Iterator[SmallDisk]:
        path = tmp_path / "disk"
        path.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path]
        if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a file system")
        try:
            yield SmallDisk(path)
        finally:
            subprocess.run(["umount", "--lazy", path], check=True)

    return mounted


class Background:
    """A call in a thread, whose result or exception is asked for later."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self._error = error

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the call has not ended"
        if self._error is not None:
            raise self._error
        return self._value


@pytest.fixture
def in_background(tmp_path: Path) -> Iterator[Callable[[Callable[[], Any]], Background]]:
    calls: list[Background] = []

    def start(call: Callable[[], Any]) -> Background:
        calls.append(Background(call))
        return calls[-1]

    yield start
    # a launcher starts again what is killed, until it sees no progress: end its runs as long as it goes on
    end = time.monotonic() + DEADLINE_S
    while any(call.is_alive() for call in calls) and time.monotonic() < end:
        _kill_all_in(tmp_path)
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_leftovers(tmp_path: Path) -> Iterator[None]:
    """End whatever a failing test leaves running in its folder."""
    yield
    _kill_all_in(tmp_path)


def _kill_all_in(folder: Path) -> None:
    for pid in _processes_in(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _processes_in(folder: Path) -> list[int]:
    mark = f"MTF_RUN_DIR={folder}/".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environ, words = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if mark in environ or f"{folder}/".encode() in words:
            found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


class GitRepository:
    """A repository, handled as its user would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "A")
        self.git("config", "user.email", "a@example.org")
        self.git("config", "commit.gpgsign", "false")

    def git(self, *words: str | Path) -> str:
        done = subprocess.run(["git", "-C", self.path, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def commit(self, message: str = "all") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", message)
        return self.git("rev-parse", "HEAD")

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    @property
    def here(self) -> str:
        return self.git("rev-parse", "--abbrev-ref", "HEAD")

    def state(self) -> dict[str, Any]:
        """Everything of it that is the user's: HEAD, index, branches, stash, and the files with their times."""
        inside = self.path / ".git"
        files = [inside / name for name in ("HEAD", "index", "packed-refs", "logs/HEAD", "logs/refs/stash")]
        files += [file for place in ("refs/heads", "refs/tags", "refs/stash") for file in inside.glob(f"{place}/**/*")]
        files += [inside / "refs" / "stash", inside / "config"]
        kept: dict[str, Any] = {str(file): file.read_bytes() for file in files if file.is_file()}
        for folder, names, leaves in os.walk(self.path):
            names[:] = [name for name in names if name not in (".git", "experiments")]
            for path in (Path(folder, leaf) for leaf in leaves):
                about = path.lstat()
                content = path.readlink() if path.is_symlink() else path.read_bytes()
                kept[str(path)] = (content, about.st_mode, about.st_mtime_ns)
        return kept


@pytest.fixture
def make_repository() -> Callable[[Path], GitRepository]:
    return GitRepository
