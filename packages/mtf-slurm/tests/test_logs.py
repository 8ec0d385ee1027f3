"""Logs: their ends, and following them from attempt to attempt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_slurm import SLURMError, logs
from mtf_slurm.logs import LogReader, choose_attempt, follow, tail_start
from mtf_slurm.telemetry import last_error_lines
from mtf_utils.rundir import FinishReceipt, Outcome, RunDirectory, now


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "tiny")
    run.logs_dir.mkdir(parents=True)
    return run


def write(run: RunDirectory, attempt: int, text: str) -> None:
    run.attempt(attempt).path.mkdir(parents=True, exist_ok=True)
    with run.log_file(attempt).open("a") as file:
        file.write(text)


@given(
    st.lists(st.text("ab\u00e9\u20ac", max_size=9), max_size=30), st.integers(0, 12), st.booleans(), st.integers(1, 9)
)
def test_the_end_of_a_log_is_its_last_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], count: int, ended: bool, block: int
) -> None:
    path = tmp_path_factory.mktemp("logs") / "log"
    text = "\n".join(lines) + ("\n" if ended and lines else "")
    path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "BLOCK_BYTES", block)
        shown = "".join(LogReader(path, tail_start(path, count)).read())
    expected = text.splitlines(keepends=True)
    assert shown == "".join(expected[len(expected) - count :] if count < len(expected) else expected)


def test_no_log_is_empty(tmp_path: Path) -> None:
    assert tail_start(tmp_path / "none", 5) == 0
    assert list(LogReader(tmp_path / "none").read()) == []


def test_a_log_that_begins_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("long before\n")
    reader = LogReader(path)
    assert "".join(reader.read()) == "long before\n"
    path.write_text("new\n")
    assert "".join(reader.read()) == "new\n"


def test_following_goes_from_attempt_to_attempt(run: RunDirectory) -> None:
    script = [
        lambda: None,  # it waits its turn
        lambda: write(run, 1, "one\n"),
        lambda: write(run, 1, "one more\n"),
        lambda: (write(run, 1, "last words\n"), write(run, 2, "two\n")),
        lambda: None,
    ]

    def sleep(seconds: float) -> None:
        script.pop(0)()

    text = "".join(follow(run, None, lambda: not script, sleep=sleep))
    assert text == "one\none more\nlast words\n==> attempt 2 <==\ntwo\n"


def test_following_one_attempt_ends_with_it(run: RunDirectory) -> None:
    write(run, 1, "one\n")

    def sleep(seconds: float) -> None:
        write(run, 1, "end\n")
        FinishReceipt(attempt=1, outcome=Outcome.PREEMPTED, finished_at=now()).write(run.attempt(1).finished_file)
        write(run, 2, "two\n")

    assert "".join(follow(run, 1, lambda: False, only=True, sleep=sleep)) == "one\nend\n"


def test_the_attempt_that_is_asked_for(run: RunDirectory) -> None:
    assert choose_attempt(run, None) is None
    with pytest.raises(SLURMError, match="no attempt 1; it has not started yet"):
        choose_attempt(run, 1)
    for number in (1, 2, 10):
        write(run, number, "")
    assert choose_attempt(run, None) == 10
    assert choose_attempt(run, 2) == 2
    with pytest.raises(SLURMError, match="no attempt 3; there are 1, 2, 10"):
        choose_attempt(run, 3)


def test_the_last_words_are_the_traceback(tmp_path: Path) -> None:
    path = tmp_path / "log"
    frames = "".join(f'  File "a.py", line {line}\n    call()\n' for line in range(40))
    path.write_text(f"start\nTraceback (most recent call last):\n{frames}ValueError: bad\n")
    shown = last_error_lines(path, 6)
    assert shown[:2] == ["Traceback (most recent call last):", "  ..."]
    assert (len(shown), shown[-1]) == (6, "ValueError: bad")
    path.write_text("".join(f"line {number}\n" for number in range(30)))
    assert last_error_lines(path, 3) == ["line 27", "line 28", "line 29"]
    assert last_error_lines(tmp_path / "none") == []
