"""The `mtf` command: finds the verb's package, runs the verb, and turns what it raises into one message and a status.

A package contributes a verb through the entry-point group `mtf.commands`: the entry point's name is the verb, its
object a `Command`. It is imported when its verb is called, never before.
"""

from __future__ import annotations

import argparse
import errno
import os
import select
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Final, NamedTuple, TextIO

from mtf_utils.display import printable
from mtf_utils.names import nearest
from mtf_utils.problems import SettingsError
from mtf_utils.records import RunDirectoryError

__all__ = ["DONE", "GROUP", "UNREACHABLE", "USER_MISTAKE", "WORK_FAILED", "Command", "CommandError", "main"]

GROUP: Final = "mtf.commands"
"""The entry-point group that verbs come through."""

DONE: Final = 0
WORK_FAILED: Final = 1
USER_MISTAKE: Final = 2
UNREACHABLE: Final = 3
"""The cluster could not be reached."""

_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
_PIPE_CLOSED = 141  # 128 + SIGPIPE
_DEBUG = "MTF_DEBUG"


@dataclass(frozen=True)
class Command:
    """A verb of `mtf`.

    Attributes:
        help: one line that says what it does.
        configure: adds the verb's arguments to its parser.
        run: does the work and returns the exit status: `DONE`, `WORK_FAILED`, `USER_MISTAKE` or `UNREACHABLE`.
    """

    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class CommandError(Exception):
    """What keeps a verb from its work, as a message for the user; `exit_status` is what `mtf` ends with.

    Any other exception that has an integer `exit_status`, of its class or its own, is treated alike: shown as a message
    without a traceback.
    """

    def __init__(self, message: str, *, exit_status: int = USER_MISTAKE) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class _Verb(NamedTuple):
    distribution: str
    heading: str
    help: str


_CONFIGS, _SWEEPS, _HOUSE = "Configurations", "Sweeps", "Everything else"

# Known before anything is imported, so that help is fast and a missing package can be named.
_VERBS: Final = {
    "init": _Verb("mtf-config", _CONFIGS, "start a project: folders and a configuration to begin with"),
    "validate": _Verb("mtf-config", _CONFIGS, "check configuration files; every problem with its line"),
    "show": _Verb("mtf-config", _CONFIGS, "print a configuration with everything filled in"),
    "diff": _Verb("mtf-config", _CONFIGS, "compare two configurations"),
    "schema": _Verb("mtf-config", _CONFIGS, "print the schema of a configuration, for editors"),
    "plan": _Verb("mtf-slurm", _SWEEPS, "show what a sweep would run, and write nothing"),
    "run": _Verb("mtf-slurm", _SWEEPS, "run a sweep on this machine"),
    "submit": _Verb("mtf-slurm", _SWEEPS, "submit a sweep to the cluster"),
    "status": _Verb("mtf-slurm", _SWEEPS, "show how the runs of a sweep stand"),
    "logs": _Verb("mtf-slurm", _SWEEPS, "show the output of a run"),
    "explain": _Verb("mtf-slurm", _SWEEPS, "say why a run is in the state it is in"),
    "cancel": _Verb("mtf-slurm", _SWEEPS, "cancel runs"),
    "retry": _Verb("mtf-slurm", _SWEEPS, "start failed runs again"),
    "results": _Verb("mtf-slurm", _SWEEPS, "rank the runs of a sweep by a metric"),
    "report": _Verb("mtf-slurm", _SWEEPS, "write a report about a sweep"),
    "clean": _Verb("mtf-slurm", _SWEEPS, "remove what finished runs no longer need"),
    "checkpoint": _Verb("mtf-trainer", _HOUSE, "list, verify and inspect checkpoints"),
    "cluster": _Verb("mtf-slurm", _HOUSE, "start and stop a throw-away Slurm on this machine"),
    "doctor": _Verb("mtf-slurm", _HOUSE, "check this machine and its cluster"),
    "demo": _Verb("mtf-slurm", _HOUSE, "see a sweep survive being killed"),
}

_DISTRIBUTIONS: Final = ("model-training-framework", "mtf-utils", "mtf-config", "mtf-trainer", "mtf-slurm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mtf` with these arguments (by default the process's own) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    subject = f"mtf {arguments[0]}" if arguments and arguments[0] in _VERBS else "mtf"
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
        print(_help(), file=sys.stderr)
        return USER_MISTAKE
    verb, *rest = arguments
    if verb in ("-h", "--help"):
        print(_help())
        return DONE
    if verb in ("-V", "--version"):
        print(_versions())
        return DONE
    if verb == "help" and rest:
        verb, rest = rest[0], ["--help"]
    command = _load(verb)
    parser = argparse.ArgumentParser(prog=f"mtf {verb}", description=command.help, allow_abbrev=False)
    command.configure(parser)
    return command.run(_parse(parser, rest))


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """The arguments, with options before, between and after the others."""
    if "--" in words:  # behind which nothing is an option; argparse forgets that where it parses twice
        return parser.parse_args(words)
    try:
        return parser.parse_intermixed_args(words)
    except TypeError:  # it has verbs of its own
        return parser.parse_args(words)


def _entry_points() -> dict[str, metadata.EntryPoint]:
    """The installed verbs; of two packages that claim a known one, its own package has it."""
    found: dict[str, metadata.EntryPoint] = {}
    for entry in metadata.entry_points(group=GROUP):
        own = entry.name in _VERBS and _distribution(entry) == _VERBS[entry.name].distribution
        if own or entry.name not in found:
            found[entry.name] = entry
    return found


def _load(verb: str) -> Command:
    entries = _entry_points()
    if verb not in entries:
        raise CommandError(_why_missing(verb, entries))
    entry = entries[verb]
    origin = f"{verb!r} of {_distribution(entry)}"
    try:
        command = entry.load()
    except (ImportError, AttributeError) as error:
        message = f"{origin} cannot be loaded: {error}; is the installation complete?"
        raise CommandError(message, exit_status=WORK_FAILED) from error
    if not isinstance(command, Command):
        raise CommandError(f"{origin} is not a Command: {entry.value} is {command!r}", exit_status=WORK_FAILED)
    return command


def _why_missing(verb: str, installed: dict[str, metadata.EntryPoint]) -> str:
    if verb.startswith("-"):
        return f"unknown option {verb!r}; the options of a verb go behind it: see 'mtf --help'"
    if verb not in _VERBS:
        guess = nearest(verb, [*installed, *_VERBS])
        return f"unknown verb {verb!r}" + (f"; did you mean {guess!r}?" if guess else "; see 'mtf --help'")
    distribution = _VERBS[verb].distribution
    if (version := _version(distribution)) is None:
        return f"{verb!r} comes with {distribution}, which is not installed: pip install {distribution}"
    return f"{verb!r} is not in {distribution} {version}, which is installed; another version may bring it"


def _distribution(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unknown package"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> str:
    found = {name: version for name in _DISTRIBUTIONS if (version := _version(name))}
    lines = [f"{name} {version}" for name, version in found.items()]
    lines.append(f"Python {sys.version.split()[0]}")
    if len(set(found.values())) > 1:
        lines.append("These versions do not belong together: install the same version of each.")
    return "\n".join(lines)


def _help() -> str:
    entries = _entry_points()
    lines = ["usage: mtf VERB [ARGUMENTS]", "       mtf VERB --help", "       mtf --version"]
    width = max(map(len, [*_VERBS, *entries])) + 2
    for heading in (_CONFIGS, _SWEEPS, _HOUSE):
        known = [name for name, verb in _VERBS.items() if verb.heading == heading and name in entries]
        lines += ["", f"{heading}:"] * bool(known) + [f"  {name:{width}}{_VERBS[name].help}" for name in known]
    if others := sorted(set(entries) - set(_VERBS)):
        lines += ["", "From other packages:"]
        lines += [f"  {name:{width}}{_distribution(entries[name])}" for name in others]
    missing: dict[str, list[str]] = {}
    for name, verb in _VERBS.items():
        if name not in entries and _version(verb.distribution) is None:
            missing.setdefault(verb.distribution, []).append(name)
    if missing:
        lines += ["", "Not installed:"]
        lines += [f"  pip install {name}: {', '.join(verbs)}" for name, verbs in missing.items()]
    lines += [
        "",
        "Exit status: 0 done, 1 the work failed, 2 a mistake in what was asked, 3 cluster unreachable.",
    ]
    return "\n".join(lines)


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
