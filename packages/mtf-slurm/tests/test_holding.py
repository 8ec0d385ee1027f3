"""A folder that another launcher holds: who it is, and what Ctrl-C means to whoever waits for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtf_config import ExecutionMode
from mtf_slurm import LaunchInterrupted, SLURMLauncher
from mtf_slurm.errors import SweepLockedError
from mtf_slurm.execute import TOLD_AFTER_S, held
from mtf_slurm.lock import hold
from mtf_utils.rundir import SweepDirectory


def clock(*times: float) -> Callable[[], float]:
    left = iter(times)
    return lambda: next(left)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[SweepDirectory]:
    directory = SweepDirectory(tmp_path)
    with hold(directory):
        yield directory


def test_who_waits_is_told_once_for_whom(folder: SweepDirectory) -> None:
    said: list[str] = []
    times = clock(0.0, TOLD_AFTER_S - 1, TOLD_AFTER_S, TOLD_AFTER_S + 1, 30.0)
    with pytest.raises(SweepLockedError) as caught, held(folder, wait_s=30.0, say=said.append, clock=times):
        pytest.fail("two hold the folder")
    (line,) = said
    assert line.startswith(f"{folder.path}: another launcher is at work here (process {os.getpid()} on ")
    assert line.endswith("); waiting for it, for 30 s at most")
    assert caught.value.holder in line


def test_who_does_not_wait_is_told_by_the_error_alone(folder: SweepDirectory) -> None:
    said: list[str] = []
    with pytest.raises(SweepLockedError, match="wait until it is done"), held(folder, say=said.append):
        pytest.fail("two hold the folder")
    assert said == []


def test_ctrl_c_before_anything_is_submitted_says_so(
    launcher: SLURMLauncher,
    make_search: Callable[..., Any],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    display: Any,
) -> None:
    directory = SweepDirectory(project / "experiments" / "sweep")
    submit = lambda: launcher.submit_sweep(make_search({}, exit=3), directory.path, ExecutionMode.LOCAL)  # noqa: E731
    submit()

    @contextlib.contextmanager
    def interrupted(*_: Any, **__: Any) -> Iterator[None]:
        signal.raise_signal(signal.SIGINT)
        yield

    monkeypatch.setattr("mtf_slurm.executor.held", interrupted)
    (name,) = (run.name for run in directory.runs())
    for call in (submit, lambda: launcher.retry(directory.path, [name])):
        display.said.clear()
        with pytest.raises(LaunchInterrupted) as caught:
            call()
        assert display.said == [str(caught.value)]
        assert str(caught.value).startswith("interrupted; nothing new was submitted. Nothing is lost")
        assert f"`mtf status {directory.path}` tells how the runs stand" in str(caught.value)
        assert caught.value.unfinished == (name,)


READ = """
import os, signal, sys
from mtf_slurm.evidence import Witness
from mtf_utils.cli import main
def look(*args, **kwargs):
    signal.raise_signal(signal.SIGINT)
Witness.look = look
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("verb", ["status", "results", "explain"])
def test_ctrl_c_while_reading_says_that_nothing_was_changed(
    launcher: SLURMLauncher, make_search: Callable[..., Any], project: Path, verb: str
) -> None:
    directory = SweepDirectory(project / "experiments" / "sweep")
    launcher.submit_sweep(make_search({}), directory.path, ExecutionMode.LOCAL)
    words = [verb, str(directory.path), *([directory.runs()[0].name] if verb == "explain" else [])]
    done = subprocess.run([sys.executable, "-c", READ, *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "mtf: interrupted; nothing was changed"
