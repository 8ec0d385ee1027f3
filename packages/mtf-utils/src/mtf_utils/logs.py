"""Logging of a run: one console and at most one file, and of many processes only rank 0 chatters."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from mtf_utils.names import nearest
from mtf_utils.problems import Problem, SettingsError

__all__ = ["get_logger", "setup_logging"]

_CONSOLE = "mtf.console"
_FILE = "mtf.file"
_RANK_VARIABLES = ("RANK", "SLURM_PROCID")
_COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31;1"}


def setup_logging(
    level: str | int = "INFO",
    log_file: str | os.PathLike[str] | None = None,
    *,
    rank: int | None = None,
    capture_warnings: bool = True,
) -> None:
    """Show what is logged on stderr and, if asked, write it to a file.

    The last call decides: a second one changes the level and the file and never doubles a line. Handlers that others
    have attached to the root logger stay as they are.

    Ranks above 0 show warnings and worse only, marked with their rank. Their file is `<name>.rank<n><suffix>`, created
    when there is something to write: processes of several hosts cannot append to one file of a network file system.

    Args:
        level: the least severe messages to show, by name in any case or by number.
        log_file: where to append the same lines; parent folders are created. None writes no file.
        rank: this process's rank; by default `RANK`, else `SLURM_PROCID` of the environment, else 0.
        capture_warnings: log what goes through `warnings`, too.

    Raises:
        SettingsError: the level or the rank is not valid.
        OSError: the file cannot be written.
    """
    number, rank = _level_number(level), _rank(rank, os.environ)
    if rank > 0:
        number = max(number, logging.WARNING)
    handlers: list[logging.Handler] = [_ConsoleHandler()]
    handlers[0].setFormatter(_Formatter(rank, coloured=_is_colour_terminal()))
    if log_file is not None:
        handlers.append(_file_handler(Path(log_file), rank))
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if handler.get_name() in (_CONSOLE, _FILE)]:
        root.removeHandler(old)
        old.close()
    # The handlers of others may want more than ours.
    root.setLevel(min(number, root.level) if root.handlers else number)
    for handler in handlers:
        handler.setLevel(number)
        root.addHandler(handler)
    logging.captureWarnings(capture_warnings)


def get_logger(name: str | None = None) -> logging.Logger:
    """The logger of that name, usually `get_logger(__name__)`; without a name the root logger."""
    return logging.getLogger(name)


class _ConsoleHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at that moment, so that redirecting it later has an effect."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.set_name(_CONSOLE)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Formatter(logging.Formatter):
    default_msec_format = "%s.%03d"

    def __init__(self, rank: int, *, coloured: bool = False) -> None:
        mark = f"[rank {rank}] " if rank else ""
        super().__init__(f"%(asctime)s %(levelname)-7s {mark}%(name)s: %(message)s")
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        colour = _COLOURS.get(record.levelno) if self._coloured else None
        return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def _file_handler(path: Path, rank: int) -> logging.Handler:
    if rank:
        path = path.with_name(f"{path.stem}.rank{rank}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace", delay=rank > 0)
    handler.set_name(_FILE)
    handler.setFormatter(_Formatter(rank))
    return handler


def _level_number(level: str | int) -> int:
    known = logging.getLevelNamesMapping()
    if isinstance(level, str) and level.upper() in known:
        return known[level.upper()]
    if isinstance(level, int) and not isinstance(level, bool) and level >= 0:
        return level
    names = sorted(known, key=lambda name: known[name])
    guess = nearest(level, names) if isinstance(level, str) else None
    message = f"expected one of {', '.join(names)} or a number from 0, found {level!r}"
    raise SettingsError([Problem(("level",), message, level, suggestion=guess)], subject="logging")


def _rank(rank: int | None, environ: Mapping[str, str]) -> int:
    if rank is not None:
        return _checked_rank("rank", rank, valid=rank >= 0)
    name = next((name for name in _RANK_VARIABLES if environ.get(name)), None)
    return _checked_rank(name, environ[name], valid=environ[name].isdecimal()) if name else 0


def _checked_rank(source: str, rank: str | int, *, valid: bool) -> int:
    if not valid:
        problem = Problem((source,), f"expected the number of a process, from 0, found {rank!r}", rank)
        raise SettingsError([problem], subject="logging")
    return int(rank)


def _is_colour_terminal() -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or os.name == "nt":
        return False
    return sys.stderr is not None and sys.stderr.isatty()
