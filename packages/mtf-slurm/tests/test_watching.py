"""`mtf status --watch`: on a real terminal, in a pipe, and what a look reads."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mtf_config import ExecutionMode
from mtf_slurm import SLURMLauncher
from mtf_slurm.board import Board
from mtf_slurm.selection import Selection
from mtf_slurm.status import JobStatus
from mtf_slurm.watching import Screen

DEADLINE_S = 60.0


@pytest.fixture
def folder(launcher: SLURMLauncher, make_search: Callable[..., Any], project: Path) -> Path:
    """A finished sweep of three runs, one of which failed."""
    search = make_search({"custom_params.fail_at": [None, 1], "custom_params.x": [1.0, 2.0]})
    launcher.submit_sweep(search, project / "out", ExecutionMode.LOCAL, 4)
    return project / "out"


class Terminal:
    """A terminal of 100 x 30 with `mtf status --watch` in it."""

    def __init__(self, *words: str) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (30, 100))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        command = [sys.executable, "-m", "mtf_utils", "status", "--watch", "--interval", "0.2", *words]
        environ = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environ)
        self.text = ""

    def wait_for(self, *wanted: str) -> None:
        """Read until all of it was on the screen since the last call."""
        seen, end = "", time.monotonic() + DEADLINE_S
        while not all(text in seen for text in wanted):
            assert time.monotonic() < end, f"waited in vain for {wanted}: {seen[-2000:]}"
            seen += self.read()
        self.text += seen

    def read(self) -> str:
        ready, _, _ = select.select([self.master], [], [], 0.1)
        return os.read(self.master, 65536).decode("utf-8", "replace") if ready else ""

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def ended(self) -> int:
        end = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:  # read on, or it could not write its last picture
            assert time.monotonic() < end
            self.text += self.read()
        while rest := self.read():
            self.text += rest
        return self.process.returncode

    @property
    def is_in_order(self) -> bool:
        """Whether the terminal is as it was, and shows its cursor."""
        shown, hidden = self.text.rfind("\x1b[?25h"), self.text.rfind("\x1b[?25l")
        return termios.tcgetattr(self.slave) == self.before and shown > hidden

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(folder: Path) -> Iterator[Terminal]:
    opened = Terminal(str(folder))
    yield opened
    opened.close()


def test_keys(terminal: Terminal) -> None:
    terminal.wait_for("4 runs, 2 completed, 2 failed", "tiny-fa=null-x=1.0", "keys: ")
    terminal.press("f")
    terminal.wait_for("only COMPLETED")
    terminal.press("f")
    terminal.wait_for("only FAILED")
    terminal.press("fg")
    terminal.wait_for("states", "2 completed")
    terminal.press("ggggsr")
    terminal.wait_for("sorted by name; reversed")
    terminal.press("\x1b[B\x1b[6~\x1b[99~q")
    assert terminal.ended() == 0
    assert terminal.is_in_order


def test_keys_that_are_pressed_before_the_first_picture_count(terminal: Terminal) -> None:
    terminal.press("q")
    assert terminal.ended() == 0
    assert terminal.is_in_order


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_leave_the_terminal_in_order(terminal: Terminal, number: signal.Signals, status: int) -> None:
    terminal.wait_for("keys: ")
    terminal.process.send_signal(number)
    assert terminal.ended() == status
    assert terminal.is_in_order
    assert "Traceback" not in terminal.text


def test_without_a_terminal_it_ends_with_the_sweep(folder: Path) -> None:
    command = [sys.executable, "-m", "mtf_utils", "status", "--watch", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=60)
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[-1] == "2 completed, 2 failed"
    assert len(done.stdout.splitlines()) == 5
    assert done.stderr == ""


def test_ctrl_c_without_a_terminal(project: Path) -> None:
    base = "{experiment_name: a, model: {name: m}, data: {dataset_name: d}, optimizer: {name: o}, custom_params: "
    params = f"{{hold_at: 1, gate: {project / 'gate'}}}}}"
    (project / "sweep.yaml").write_text(f"base: {base}{params}\ngrids: [{{name: g, parameters: {{seed: [1]}}}}]\n")
    mtf = [sys.executable, "-m", "mtf_utils"]
    pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen([*mtf, "run", "sweep.yaml", "-o", "held"], cwd=project, stdout=quiet, stderr=pipe) as run:
        assert run.stderr is not None
        assert b"RUNNING" in run.stderr.readline()
        with subprocess.Popen([*mtf, "status", "held", "--watch"], cwd=project, stdout=pipe, stderr=pipe) as process:
            assert process.stdout is not None
            assert b"RUNNING" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        (project / "gate").touch()
        run.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    assert run.returncode == 0


def test_the_picture(folder: Path) -> None:
    board = Board(folder)
    board.look()
    screen = Screen(Selection(), keys=False)
    assert [row.name for row in screen.shown(board.rows(), 2)] == ["tiny-fa=null-x=1.0", "tiny-fa=null-x=2.0"]
    screen.press("end", board.rows(), 2)
    assert [row.name for row in screen.shown(board.rows(), 2)] == ["tiny-fa=1-x=1.0", "tiny-fa=1-x=2.0"]
    screen.press("up", board.rows(), 2)
    assert [row.name for row in screen.shown(board.rows(), 2)] == ["tiny-fa=null-x=2.0", "tiny-fa=1-x=1.0"]


@pytest.mark.parametrize("width", [20, 60, 100, 300])
def test_the_picture_fits_the_screen(folder: Path, width: int) -> None:
    board = Board(folder)
    board.look(whole=True)
    out = io.StringIO()
    console = Console(file=out, width=width, height=30)
    for group in ("", "state"):
        console.print(Screen(Selection(), group, keys=False).render(board, board.rows(), 20, width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    if width >= 100:
        assert any("tiny-fa=1-x=2.0" in line and "ValueError: bad step 1" in line for line in lines)
    if width >= 60:
        assert sum("fa=null" in line and "COMPLETED" in line for line in lines) == 2


class CountingBoard(Board):
    """Remembers what was read, with its metrics or without."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.reads: list[tuple[str, bool]] = []

    def _read(self, witness: Any, name: str, *, whole: bool) -> None:
        before = self._known.get(name)
        super()._read(witness, name, whole=whole)
        if self._known[name] is not before:
            self.reads.append((name, whole))


@pytest.fixture
def large(launcher: SLURMLauncher, make_search: Callable[..., Any], project: Path) -> Path:
    """A planned sweep of 200 runs."""
    search = make_search({"seed": list(range(200))})
    launcher.submit_sweep(search, project / "large", ExecutionMode.DRY_RUN)
    return project / "large"


def test_a_look_reads_what_is_seen_and_of_the_others_in_turn(large: Path) -> None:
    ticks = iter(range(10_000))
    board = CountingBoard(large, budget_s=10, clock=lambda: float(next(ticks)))
    board.look()
    assert {name for name, _ in board.reads} == {row.name for row in board.rows()}
    assert len(board.rows()) == 200
    seen = [row.name for row in board.rows()[:5]]
    board.reads.clear()
    board.look(seen)
    assert [name for name, whole in board.reads[:5] if whole] == seen
    assert len(board.reads) < 30
    others = set()
    for _ in range(50):
        board.reads.clear()
        board.look(seen)
        others |= {name for name, _ in board.reads}
    assert len(others) == 200  # everybody's turn comes


def test_what_has_finished_is_read_once(folder: Path) -> None:
    board = CountingBoard(folder)
    board.look(whole=True)
    finished = {row.name for row in board.rows() if row.status is JobStatus.COMPLETED}
    assert len(finished) == 2
    board.reads.clear()
    board.look(list(finished), whole=True)
    assert not finished & {name for name, _ in board.reads}


def test_runs_that_are_added_appear(large: Path, launcher: SLURMLauncher, make_search: Callable[..., Any]) -> None:
    board = Board(large)
    board.look()
    launcher.submit_sweep(make_search({"seed": list(range(100, 210))}), large, ExecutionMode.DRY_RUN)
    board.look()
    assert len(board.rows()) == 110
