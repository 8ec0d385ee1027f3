"""What a template came to: whether sbatch will take it as it is meant. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from mtf_slurm.cluster.known_options import ADDABLE, FIELD_OF, LONG_FORMS, OWNED
from mtf_slurm.cluster.templates import Inserted
from mtf_slurm.errors import SLURMError
from mtf_utils.settings import nearest

__all__ = ["check_written", "written_at"]

_MARK: Final = "#SBATCH"
_SHELL: Final = re.compile(r"#!\s*(\S*/)?(env\s+(-\S+\s+)*)?(\S*/)?(ba|da|k|z)?sh(\s.*)?")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:=@%+,-]*")
_ONE_WORD: Final = re.compile(r"[^\s\"'\\#]*")
_INERT: Final = re.compile(r"[^`$\\\"']*")  # also where what looks like a comment is a part of a here-document
# Between the parts of a heterogeneous job. Source: sbatch(1)
_SEPARATORS: Final = ("hetjob", "packjob")
# Jobs stand or fall with these; a template may repeat what the launcher says, and not say anything else.
_FIXED: Final = {
    "dependency": "write slurm.dependency",
    "job-name": "by this name the job is found again; for a name of your own, write slurm.job_name",
    "no-requeue": "write slurm.requeue",
    "requeue": "write slurm.requeue",
    "signal": "write slurm.signal",
} | OWNED


def check_written(
    text: str, inserted: Sequence[Inserted], *, source: str, body: str, words: Sequence[str], name: str
) -> None:
    """Refuse a script that sbatch would not take, or not as it was meant, or in which a value is a command.

    Args:
        text: the script.
        inserted: what in it comes from values.
        source: the template that it comes from.
        body: what it has to do.
        words: the options of the job, which a line of the script must not contradict.
        name: of the template, for errors.

    Raises:
        SLURMError: every problem; those of lines with the line of the template, where that has the same line once,
            else with that of the script.
    """
    problems = [f"{name}: {problem}" for problem in _frame_problems(text, body)]
    for number, line, problem in _line_problems(text.partition(body)[0], words):
        problems.append(f"{written_at(name, source, number, line)}: {line!r}{problem}")
    # a value may look like another line of the template
    for number, line, problem in _value_problems(text, inserted, words):
        problems.append(f"{name}: line {number} of the script: {line!r}{problem}")
    if problems:
        raise SLURMError("\n".join(problems))


def written_at(name: str, source: str, number: int, line: str) -> str:
    """Where a line of a script comes from.

    Args:
        name: of the template.
        source: its text.
        number: of the line in the script.
        line: the line.
    """
    lines = [each.strip() for each in source.splitlines()]
    once = lines.count(line.strip()) == 1
    return f"{name}:{lines.index(line.strip()) + 1}" if once else f"{name}: line {number} of the script"


def _frame_problems(text: str, body: str) -> Iterator[str]:
    if not text.startswith("#!"):
        yield f"the script begins with {text[:20]!r}; sbatch takes only what begins with '#!', such as '#!/bin/bash'"
    elif not _SHELL.fullmatch(first := text.partition("\n")[0].rstrip()):
        yield f"the script begins with {first!r}, and {{{{ body }}}} is for a shell; begin it with '#!/bin/bash'"
    if (count := text.count(body)) != 1:
        yield f"the script has {{{{ body }}}} {count} times; write it once, and without a filter"
        return
    before, _, rest = text.partition(body)
    if stray := before.rpartition("\n")[2].strip():
        yield f"{stray!r} stands before {{{{ body }}}}, which needs lines of its own"
    after = [line for line in rest.splitlines() if line.strip() and not line.startswith("#")]
    if after:
        yield f"{after[0].strip()!r} would never run: {{{{ body }}}} does not return; move it up"


def _value_problems(text: str, inserted: Sequence[Inserted], words: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """The number of a line, the line, and what a value does in it."""
    lines = text.split("\n")
    for value in inserted:
        line = lines[value.line - 1]
        if _PLAIN.fullmatch(value.text):
            continue
        if line.startswith(_MARK):
            if _ONE_WORD.fullmatch(value.text) or set(_split(value.text.removeprefix(_MARK))) <= set(words):
                continue
            why = "is more than one word for sbatch; every option is in `options`, ready for such a line"
            yield value.line, line, f": {value.text!r} {why}"
        elif not value.quoted and not _is_in_comment(value.text, line):
            why = "is more than a word to the shell; write it with the filter that makes it one"
            how = "as in {{ account | quote }}, and without quotes around"
            yield value.line, line, f": {value.text!r} {why}, {how}"


def _is_in_comment(value: str, line: str) -> bool:
    start = line.lstrip()
    return start.startswith("#") and not start.startswith(value) and _INERT.fullmatch(value) is not None


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return [text]


def _line_problems(head: str, words: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """The number of a line, the line, and what is wrong with it."""
    commands = False
    for number, line in enumerate(head.split("\n"), 1):
        if not line.startswith(_MARK):
            commands = commands or bool(line.strip() and not line.lstrip().startswith("#"))
            continue
        if commands:
            yield number, line, " comes after a command, where sbatch does not read it; move it up"
        try:
            parts = shlex.split(line.removeprefix(_MARK), comments=True)
        except ValueError as error:
            yield number, line, f": {error}"
            continue
        if parts and parts[0] in _SEPARATORS:
            yield number, line, " makes several jobs of one, and the launcher knows of one only; remove it"
        for option, value in _options(parts):
            if trouble := _about(option, value, words):
                yield number, line, f": {trouble}"


def _options(parts: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """The options of a line by their long names; a value that stands by itself belongs to the option before it."""
    found: list[tuple[str, str | None]] = []
    for part in parts:
        if part.startswith("--"):
            name, equals, value = part[2:].partition("=")
            found.append((name, value if equals else None))
        elif part.startswith("-") and len(part) > 1:
            found.append((LONG_FORMS.get(part[1], part[1]), part[2:] or None))
        elif found:
            found[-1] = (found[-1][0], part)
    yield from found


def _about(name: str, value: str | None, words: Sequence[str]) -> str:
    if (name if value is None else f"{name}={value}") in (word.removeprefix("--") for word in words):
        return ""
    if name in _FIXED:
        return f"--{name} is the launcher's: {_FIXED[name]}"
    if name in ADDABLE or name in FIELD_OF:
        return ""
    guess = nearest(name, [*ADDABLE, *FIELD_OF])
    return f"sbatch has no option --{name}" + (f"; did you mean --{guess}?" if guess else "")
