"""Whether the script that a command names is there, as far as that can be known before the run starts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from mtf_config import ExperimentConfig
from mtf_slurm.evidence import has_finished
from mtf_utils.rundir import SweepDirectory

__all__ = ["missing_script", "script_problems"]

_INTERPRETER: Final = re.compile(r"\{python\}|(.*/)?(python[0-9.]*|bash|sh)")
_WITH_VALUE: Final = ("-W", "-X")
_NO_SCRIPT: Final = ("-c", "-m", "-s")
"""Options after which the interpreter runs something else than a file."""


def missing_script(command: Sequence[str], project_root: Path) -> str:
    """The script that a command runs and that is not in the project; empty if it is, or cannot be known.

    What cannot be known: a program in the PATH and an absolute path are the compute node's, a placeholder is filled in
    there, and a module is found by the interpreter.

    Args:
        command: its words, placeholders not filled in.
        project_root: where relative paths begin.
    """
    script = _script_of(command)
    if not script or "{" in script or Path(script).is_absolute() or (project_root / script).exists():
        return ""
    return script


def script_problems(
    directory: SweepDirectory,
    configs: Mapping[str, ExperimentConfig],
    command: Sequence[str],
    project_root: Path,
    keep_code: Collection[str] = (),
) -> dict[str, str]:
    """Why runs would all fail at once, by their names: the script of their command is not there.

    Runs whose `slurm.setup` may make it, that go on with code of their own, or that have finished are left out.

    Args:
        directory: the folder of the sweep.
        configs: the experiments by the names of the runs.
        command: its words, placeholders not filled in.
        project_root: where relative paths begin.
        keep_code: the names of runs that do not begin with the code of the project.
    """
    script = missing_script(command, project_root)
    if not script:
        return {}
    reason = (
        f"the command runs {script!r}, and there is no {project_root / script}; name the script by its path in the "
        "project (command), or have slurm.setup make it"
    )
    waiting = (name for name, config in configs.items() if not (config.slurm and config.slurm.setup))
    return {name: reason for name in waiting if name not in keep_code and not has_finished(directory.run(name))}


def _script_of(command: Sequence[str]) -> str:
    program, *rest = command
    if not _INTERPRETER.fullmatch(program):
        return program if "/" in program else ""
    return _first_file(iter(rest))


def _first_file(words: Iterator[str]) -> str:
    for word in words:
        if word in _NO_SCRIPT or word == "-":
            return ""
        if not word.startswith("-"):
            return word
        if word in _WITH_VALUE:
            next(words, None)
    return ""
