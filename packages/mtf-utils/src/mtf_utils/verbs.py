"""Which verbs there are: known ones and their packages, those that are installed, and the help that lists them."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Final, NamedTuple

from mtf_utils.command import WORK_FAILED, Command, CommandError
from mtf_utils.names import nearest

__all__ = ["GROUP", "VERBS", "entry_point", "entry_points", "help_text", "known_verbs", "load", "version_text"]

GROUP: Final = "mtf.commands"
"""The entry-point group that verbs come through."""


class _Verb(NamedTuple):
    distribution: str
    heading: str
    help: str


_BEGIN, _CONFIGS, _SWEEPS, _HOUSE = "To begin with", "Configurations", "Sweeps", "Everything else"

# Known before anything is imported, so that help is fast and a missing package can be named.
VERBS: Final = {
    "init": _Verb("mtf-config", _BEGIN, "make a project that runs: training, configuration, sweep, tests"),
    "demo": _Verb("mtf-slurm", _BEGIN, "see a sweep survive being killed"),
    "validate": _Verb("mtf-config", _CONFIGS, "check configuration files; every problem with its line"),
    "show": _Verb("mtf-config", _CONFIGS, "print a configuration as it is composed"),
    "diff": _Verb("mtf-config", _CONFIGS, "compare two configurations"),
    "schema": _Verb("mtf-config", _CONFIGS, "print the schema of a configuration, or of a verb's JSON"),
    "plan": _Verb("mtf-slurm", _SWEEPS, "show what a sweep would run, and write nothing"),
    "run": _Verb("mtf-slurm", _SWEEPS, "run a sweep on this machine, or what is missing of it"),
    "submit": _Verb("mtf-slurm", _SWEEPS, "submit a sweep to the cluster, or what is missing of it"),
    "status": _Verb("mtf-slurm", _SWEEPS, "show how the runs of a sweep stand; --watch stays"),
    "logs": _Verb("mtf-slurm", _SWEEPS, "show the output of a run"),
    "explain": _Verb("mtf-slurm", _SWEEPS, "say why a run is in its state, and what to do"),
    "cancel": _Verb("mtf-slurm", _SWEEPS, "have runs save and end"),
    "retry": _Verb("mtf-slurm", _SWEEPS, "start failed runs again"),
    "results": _Verb("mtf-slurm", _SWEEPS, "rank the runs of a sweep by a metric"),
    "report": _Verb("mtf-slurm", _SWEEPS, "write a report about a sweep"),
    "clean": _Verb("mtf-slurm", _SWEEPS, "remove what finished runs no longer need"),
    "checkpoint": _Verb("mtf-trainer", _HOUSE, "list, verify and inspect checkpoints"),
    "cluster": _Verb("mtf-slurm", _HOUSE, "start and stop a throw-away Slurm on this machine"),
    "doctor": _Verb("mtf-slurm", _HOUSE, "check this machine and its cluster"),
    "completion": _Verb("mtf-utils", _HOUSE, "let your shell complete verbs, options and names of runs"),
}

_DISTRIBUTIONS: Final = ("model-training-framework", "mtf-utils", "mtf-config", "mtf-trainer", "mtf-slurm")


def entry_points() -> dict[str, metadata.EntryPoint]:
    """The installed verbs; of two packages that claim a known one, its own package has it."""
    found: dict[str, metadata.EntryPoint] = {}
    for entry in metadata.entry_points(group=GROUP):
        own = entry.name in VERBS and _distribution(entry) == VERBS[entry.name].distribution
        if own or entry.name not in found:
            found[entry.name] = entry
    return found


def known_verbs() -> dict[str, str]:
    """The installed verbs in the order of the help, each with what it does."""
    entries = entry_points()
    known = {name: verb.help for name, verb in VERBS.items() if name in entries}
    return known | {name: _distribution(entries[name]) for name in sorted(set(entries) - set(VERBS))}


def entry_point(verb: str) -> metadata.EntryPoint:
    """Where a verb is found.

    Raises:
        CommandError: it is unknown, or of a package that is not installed.
    """
    entries = entry_points()
    if verb not in entries:
        raise CommandError(_why_missing(verb, entries))
    return entries[verb]


def load(verb: str) -> Command:
    """Import a verb.

    Raises:
        CommandError: it is unknown, of a package that is not installed, or broken.
    """
    entry = entry_point(verb)
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
    if verb not in VERBS:
        guess = nearest(verb, [*installed, *VERBS])
        return f"unknown verb {verb!r}" + (f"; did you mean {guess!r}?" if guess else "; see 'mtf --help'")
    distribution = VERBS[verb].distribution
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


def version_text() -> str:
    """The installed packages and their versions."""
    found = {name: version for name in _DISTRIBUTIONS if (version := _version(name))}
    lines = [f"{name} {version}" for name, version in found.items()]
    lines.append(f"Python {sys.version.split()[0]}")
    if len(set(found.values())) > 1:
        lines.append("These versions do not belong together: install the same version of each.")
    return "\n".join(lines)


def help_text() -> str:
    """Every verb, what it does, and what has to be installed for those that are not there."""
    entries = entry_points()
    lines = ["usage: mtf VERB [ARGUMENTS]", "       mtf VERB --help", "       mtf --version"]
    width = max(map(len, [*VERBS, *entries])) + 2
    for heading in (_BEGIN, _CONFIGS, _SWEEPS, _HOUSE):
        known = [name for name, verb in VERBS.items() if verb.heading == heading and name in entries]
        lines += ["", f"{heading}:"] * bool(known) + [f"  {name:{width}}{VERBS[name].help}" for name in known]
    if others := sorted(set(entries) - set(VERBS)):
        lines += ["", "From other packages:"]
        lines += [f"  {name:{width}}{_distribution(entries[name])}" for name in others]
    missing: dict[str, list[str]] = {}
    for name, verb in VERBS.items():
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
