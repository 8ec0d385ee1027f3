"""Nothing escapes the keeper: tried with processes that do their best; needs no Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtf_slurm.testing import ClusterError
from mtf_slurm.testing.connection import KeeperConnection
from mtf_slurm.testing.layout import Layout

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the keeper needs Linux")

# A process in a session and an environment of its own, whose parent is gone.
ESCAPED = 'setsid env -i sh -c "(sleep 1000 & echo \\$! > {pids}/escaped)"; echo $$ > {pids}/daemon; exec sleep 1000'

OWNER = """
import sys, time
from pathlib import Path
from mtf_slurm.testing.connection import KeeperConnection
from mtf_slurm.testing.layout import Layout
keeper = KeeperConnection(Layout(Path(sys.argv[1])))
keeper.start(owned=sys.argv[3] == "owned", remove=True)
keeper.ask("start", name="d", argv=["sh", "-c", sys.argv[2]], environ={"PATH": "/usr/bin:/bin"}, output="/dev/null")
print(keeper._process.pid, flush=True)
time.sleep(1000 if sys.argv[3] == "owned" else 0)
"""


@pytest.fixture
def layout() -> Iterator[Layout]:
    with tempfile.TemporaryDirectory(prefix="mtf-", dir="/tmp") as folder:  # a path that is short enough for sockets
        root = Path(folder, "c")
        (root / "logs").mkdir(parents=True)
        yield Layout(root)


@pytest.fixture
def keeper(layout: Layout) -> Iterator[KeeperConnection]:
    keeper = KeeperConnection(layout)
    keeper.start(owned=True, remove=False)
    yield keeper
    keeper.stop()


def start(keeper: KeeperConnection, name: str, script: str) -> int:
    environ = {"PATH": os.environ["PATH"]}
    answer = keeper.ask("start", name=name, argv=["sh", "-c", script], environ=environ, output="/dev/null")
    return int(answer["pid"])


def is_running(pid: int) -> bool:
    """A zombie, which only waits for its new parent, does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def read_pid(path: Path) -> int | None:
    text = path.read_text() if path.exists() else ""
    return int(text) if text.endswith("\n") else None


def test_a_daemons_end_is_noted(keeper: KeeperConnection, wait_until: Callable[..., Any]) -> None:
    start(keeper, "short", "exit 3")
    long = start(keeper, "long", "exec sleep 1000")
    wait_until(lambda: "short" in keeper.ask("state")["ended"])
    assert keeper.ask("state") == {"running": {"long": long}, "ended": {"short": 3}}
    assert keeper.ask("kill", name="long") == {}
    assert not is_running(long)
    assert keeper.ask("state")["ended"] == {"short": 3, "long": -signal.SIGKILL}


def test_signals_reach_the_daemon(keeper: KeeperConnection, wait_until: Callable[..., Any]) -> None:
    pid = start(keeper, "d", "exec sleep 1000")
    state = Path(f"/proc/{pid}/stat")
    keeper.ask("signal", name="d", signal=int(signal.SIGSTOP))
    wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
    keeper.ask("signal", name="d", signal=int(signal.SIGCONT))
    wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "S")


def test_wrong_requests_are_answered_and_harm_nothing(keeper: KeeperConnection) -> None:
    start(keeper, "d", "exec sleep 1000")
    for words, details, reason in [
        ("dance", {}, "unknown request 'dance'"),
        ("kill", {"name": "x"}, "x is not running"),
        ("kill", {}, "name"),
        ("start", {"name": "d", "argv": ["true"], "environ": {}, "output": "/dev/null"}, "running already"),
        ("start", {"name": "e", "argv": ["/no/such"], "environ": {}, "output": "/dev/null"}, "No such file"),
    ]:
        with pytest.raises(ClusterError, match=reason):
            keeper.ask(words, **details)
    assert list(keeper.ask("state")["running"]) == ["d"]


def test_stop_ends_what_has_escaped(layout: Layout, tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    keeper = KeeperConnection(layout)
    keeper.start(owned=True, remove=True)
    daemon = start(keeper, "d", ESCAPED.format(pids=tmp_path))
    frozen = start(keeper, "frozen", "kill -STOP $$")
    escaped = wait_until(lambda: read_pid(tmp_path / "escaped"))
    keeper.stop()
    assert not any(is_running(pid) for pid in (daemon, frozen, escaped))
    assert not layout.root.exists()
    assert not keeper.is_up()
    keeper.stop()  # once more does no harm


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_owners_end_is_the_end(number: int, layout: Layout, tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    words = [sys.executable, "-c", OWNER, str(layout.root), ESCAPED.format(pids=tmp_path), "owned"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        assert owner.stdout is not None
        pids = [int(owner.stdout.readline())]
        pids += [wait_until(lambda n=name: read_pid(tmp_path / n)) for name in ("daemon", "escaped")]
        assert all(is_running(pid) for pid in pids)
        owner.send_signal(number)
    wait_until(lambda: not any(is_running(pid) for pid in pids))
    assert not layout.root.exists()


def test_without_an_owner_it_goes_on(layout: Layout, tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    words = [sys.executable, "-c", OWNER, str(layout.root), ESCAPED.format(pids=tmp_path), "detached"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    pids = [wait_until(lambda n=name: read_pid(tmp_path / n)) for name in ("daemon", "escaped")]
    keeper = KeeperConnection(layout)
    assert keeper.ask("state")["running"] == {"d": pids[0]}
    keeper.stop()
    assert not any(is_running(pid) for pid in pids)
    assert not layout.root.exists()


def test_daemons_do_not_outlive_a_killed_keeper(layout: Layout, tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    words = [sys.executable, "-c", OWNER, str(layout.root), "exec sleep 1000", "detached"]
    keeper_pid = int(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
    keeper = KeeperConnection(layout)
    daemon = keeper.ask("state")["running"]["d"]
    # what a daemon started, as slurmd starts a job
    environ = {"SLURM_CONF": str(layout.slurm_conf), "SLURM_JOB_ID": "1", "PATH": os.environ["PATH"]}
    with subprocess.Popen(["sleep", "1000"], env=environ) as job:
        os.kill(keeper_pid, signal.SIGKILL)
        wait_until(lambda: not is_running(daemon))
        keeper.stop()
        assert job.wait(timeout=60) == -signal.SIGKILL


def test_a_keeper_that_cannot_start_says_why(layout: Layout) -> None:
    layout.keeper_socket.mkdir()
    with pytest.raises(ClusterError, match=r"the keeper did not start: .*Address already in use"):
        KeeperConnection(layout).start(owned=True, remove=False)
