"""Logging: one line a message, whoever calls setup how often, and quiet ranks."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from mtf_utils import SettingsError, get_logger, setup_logging

ours = pytest.mark.usefixtures("root_logger")


@ours
def test_a_message_reaches_console_and_file_in_one_readable_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deep" / "er" / "training.log"
    setup_logging(level="INFO", log_file=file)
    get_logger("some.module").info("epoch %d is over", 3)
    get_logger("some.module").debug("unseen")
    line = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO    some\.module: epoch 3 is over\n"
    assert re.fullmatch(line, capsys.readouterr().err)
    assert re.fullmatch(line, file.read_text())


@ours
def test_calling_twice_doubles_nothing_and_takes_the_new_level(capsys: pytest.CaptureFixture[str]) -> None:
    for level in ("INFO", "INFO", "ERROR", "debug"):
        setup_logging(level)
    get_logger("m").debug("once")
    assert capsys.readouterr().err.count("once") == 1
    setup_logging("ERROR")
    get_logger("m").warning("too mild")
    assert capsys.readouterr().err == ""


@ours
def test_the_last_call_decides_about_the_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    setup_logging(log_file=first)
    get_logger("m").info("one")
    setup_logging(log_file=str(second))
    get_logger("m").info("two")
    setup_logging()
    get_logger("m").info("three")
    assert (first.read_text().count("\n"), second.read_text().count("\n")) == (1, 1)
    setup_logging(log_file=first)
    get_logger("m").info("four")
    assert [line.split()[-1] for line in first.read_text().splitlines()] == ["one", "four"]


def test_handlers_of_others_stay(root_logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    theirs = logging.NullHandler()
    root_logger.addHandler(theirs)
    with caplog.at_level(logging.DEBUG):
        before = [(handler, handler.level, handler.formatter) for handler in root_logger.handlers]
        setup_logging("ERROR")
        setup_logging("ERROR")
        get_logger("m").debug("seen by the one who asked for it")
        after = [(handler, handler.level, handler.formatter) for handler in root_logger.handlers]
    assert after[: len(before)] == before
    assert caplog.messages == ["seen by the one who asked for it"]


@ours
@pytest.mark.parametrize("rank", [1, 7])
def test_other_ranks_speak_from_warning_on_and_say_who_they_are(
    rank: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging("DEBUG", tmp_path / "run.log", rank=rank)
    get_logger("m").info("chatter")
    assert list(tmp_path.iterdir()) == []
    get_logger("m").warning("trouble")
    assert re.search(rf"WARNING \[rank {rank}\] m: trouble\n$", capsys.readouterr().err)
    assert [file.name for file in tmp_path.iterdir()] == [f"run.rank{rank}.log"]


@ours
@pytest.mark.parametrize(
    ("environ", "speaks"),
    [
        ({}, True),
        ({"RANK": "0", "SLURM_PROCID": "3"}, True),
        ({"RANK": "3", "SLURM_PROCID": "0"}, False),
        ({"SLURM_PROCID": "2"}, False),
        ({"RANK": ""}, True),
    ],
)
def test_the_rank_comes_from_the_environment(
    environ: dict[str, str], speaks: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    setup_logging()
    get_logger("m").info("hello")
    assert bool(capsys.readouterr().err) == speaks


@ours
@pytest.mark.parametrize("level", ["warning", "Warn", logging.WARNING, 25])
def test_levels_by_name_and_number(level: str | int, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(level)
    get_logger("m").info("below")
    get_logger("m").warning("above")
    assert capsys.readouterr().err.count("\n") == 1


@ours
@pytest.mark.parametrize("level", ["LOUD", "", -1, True, None, 1.5])
def test_a_bad_level_is_refused_and_changes_nothing(level: object, root_logger: logging.Logger) -> None:
    before = (root_logger.level, list(root_logger.handlers))
    with pytest.raises(SettingsError, match=r"expected one of .*DEBUG, INFO, .*found") as caught:
        setup_logging(level)  # type: ignore[arg-type]
    assert repr(level) in str(caught.value)
    assert (root_logger.level, root_logger.handlers) == before


@ours
def test_a_slip_in_the_level_is_guessed() -> None:
    with pytest.raises(SettingsError, match="did you mean 'INFO'"):
        setup_logging("INOF")


@ours
def test_bad_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"rank: .*-1"):
        setup_logging(rank=-1)
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(SettingsError, match=r"RANK: .*'first'"):
        setup_logging()


@ours
def test_a_file_that_cannot_be_written_is_named_and_changes_nothing(
    tmp_path: Path, root_logger: logging.Logger
) -> None:
    before = list(root_logger.handlers)
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        setup_logging(log_file=tmp_path)
    assert root_logger.handlers == before


@ours
def test_warnings_are_logged_if_asked(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        setup_logging(log_file=file)
        warnings.warn("careful", stacklevel=1)
        assert "py.warnings" in file.read_text()
        setup_logging(log_file=file, capture_warnings=False)
        written = file.read_text()
        with pytest.warns(UserWarning, match="again"):
            warnings.warn("again", stacklevel=1)
        assert file.read_text() == written


def test_a_process_logs_to_stderr_without_colours_when_it_is_no_terminal() -> None:
    program = "from mtf_utils import *; setup_logging('INFO', rank=0); get_logger('m').error('broken')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.endswith("ERROR   m: broken\n")
    assert "\x1b" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_it_declines(no_color: str, coloured: bool) -> None:
    import os
    import pty

    program = "from mtf_utils import *; setup_logging('INFO', rank=0); get_logger('m').error('broken')"
    ours_end, theirs_end = pty.openpty()
    environ = os.environ | {"TERM": "xterm", "NO_COLOR": no_color}
    subprocess.run([sys.executable, "-c", program], stderr=theirs_end, env=environ, check=True)
    text = os.read(ours_end, 4096)
    os.close(ours_end)
    os.close(theirs_end)
    assert b"broken" in text
    assert (b"\x1b[31m" in text) == coloured
