"""The `mtf` command: finds the verb's package, runs the verb, and turns what it raises into one message and a status.

A package contributes a verb through the entry-point group `mtf.commands`: the entry point's name is the verb, its
object a `Command`. It is imported when its verb is called, never before.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import traceback
from collections.abc import Sequence
from typing import TextIO

from mtf_utils.arguments import parser_of
from mtf_utils.command import DONE, UNREACHABLE, USER_MISTAKE, WORK_FAILED, Command, CommandError
from mtf_utils.display import printable
from mtf_utils.problems import SettingsError
from mtf_utils.records import RunDirectoryError
from mtf_utils.verbs import GROUP, VERBS, help_text, load, version_text

__all__ = ["DONE", "GROUP", "UNREACHABLE", "USER_MISTAKE", "WORK_FAILED", "Command", "CommandError", "main"]

_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
_PIPE_CLOSED = 141  # 128 + SIGPIPE
_DEBUG = "MTF_DEBUG"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mtf` with these arguments (by default the process's own) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    subject = f"mtf {arguments[0]}" if arguments and arguments[0] in VERBS else "mtf"
    try:
        return _dispatch_and_flush(arguments)
    except SystemExit:  # first: one that is an Exception as well is none of ours to judge
        raise
    except KeyboardInterrupt as error:
        _say(f"\nmtf: {str(error) or 'interrupted'}")
        return _INTERRUPTED
    except OSError as error:
        unwritable = _abandon_stdout()
        if isinstance(error, BrokenPipeError) and (unwritable or _has_no_reader(sys.stdout)):
            return _PIPE_CLOSED
        return _report(subject, error)
    except Exception as error:  # noqa: BLE001 - the last place where anything can be said about it
        return _report(subject, error)


def _dispatch_and_flush(arguments: list[str]) -> int:
    try:
        status = _dispatch(arguments)
    except SystemExit:  # from argparse, which may have printed help
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(help_text(), file=sys.stderr)
        return USER_MISTAKE
    verb, *rest = arguments
    if verb in ("-h", "--help") or arguments == ["help"]:
        print(help_text())
        return DONE
    if verb in ("-V", "--version"):
        print(version_text())
        return DONE
    if verb == "help" and rest:
        verb, rest = rest[0], ["--help"]
    command = load(verb)
    return command.run(parser_of(verb, command).parse_words(rest))


def _report(subject: str, error: Exception) -> int:
    """Say what went wrong in one message and return the exit status that it deserves."""
    debugging = os.environ.get(_DEBUG, "0") not in ("", "0")
    if debugging:
        traceback.print_exception(error)
    status, expected = _judge(error)
    text = _text(error)
    if expected:
        _say(f"{subject}: {text}")
    else:
        hint = (
            "" if debugging else f"\nThis is a defect of ours or of an extension; {_DEBUG}=1 shows where it happened."
        )
        _say(f"{subject}: unexpected {type(error).__name__}: {text}{hint}")
    return status


def _judge(error: Exception) -> tuple[int, bool]:
    """The exit status for an error, and whether it is one that users are expected to meet."""
    if isinstance(status := getattr(error, "exit_status", None), int):
        return status, True
    if isinstance(error, SettingsError | RunDirectoryError):
        return USER_MISTAKE, True
    if isinstance(error, OSError):
        asked_for = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
        mistaken = isinstance(error, asked_for) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP)
        return USER_MISTAKE if mistaken else WORK_FAILED, True
    return WORK_FAILED, False


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        files = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        return f"{files}: {error.strerror}" if files else error.strerror
    return str(error) or type(error).__name__


def _say(text: str) -> None:
    print(printable(text, lines=True), file=sys.stderr, flush=True)


def _abandon_stdout() -> bool:
    """Whether our own output cannot be written any more; if so, keep Python from trying again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _has_no_reader(stream: TextIO) -> bool:
    # Unbuffered output leaves nothing to flush, so that only the pipe itself can tell.
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
